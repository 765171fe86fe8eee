//! `tipstaff:policy/log`: lines go to the agent's log, escaped, cut and limited.

use std::sync::PoisonError;

use super::State;
use crate::{
    escape,
    policy::{bindings::tipstaff::policy::log, limits::LOG_LINE},
};

impl log::Host for State {
    fn line(&mut self, level: u8, text: String) -> wasmtime::Result<()> {
        let outcome = &self.outcome;
        if !outcome.log_rate.lock().unwrap_or_else(PoisonError::into_inner).allow() {
            outcome.log_limited.inc();
            return Ok(());
        }
        let (policy, line) = (&*outcome.name, escape::control(escape::prefix(&text, LOG_LINE)));
        match level {
            0 => tracing::error!(policy, "{line}"),
            1 => tracing::warn!(policy, "{line}"),
            2 => tracing::info!(policy, "{line}"),
            _ => tracing::debug!(policy, "{line}"),
        }
        Ok(())
    }
}
