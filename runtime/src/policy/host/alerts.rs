//! `tipstaff:policy/alerts`: alerts go to the sinks, cut and limited.

use std::time::SystemTime;

use super::State;
use crate::{
    escape,
    outcome::Severity,
    policy::{
        bindings::tipstaff::policy::alerts,
        limits::{ALERT_LABEL, ALERT_LABELS, ALERT_MESSAGE},
    },
};

impl alerts::Host for State {
    fn raise(
        &mut self,
        severity: u8,
        message: String,
        labels: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let labels = labels
            .into_iter()
            .take(ALERT_LABELS)
            .map(|(name, value)| (cut(name, ALERT_LABEL), cut(value, ALERT_LABEL)))
            .collect();
        // Whatever became of it is counted there.
        self.outcome.alerts.raise(
            u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            Severity::from_number(severity),
            cut(message, ALERT_MESSAGE),
            labels,
        );
        Ok(())
    }
}

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(escape::prefix(&text, bytes).len());
    text
}
