//! `tipstaff:policy/log`: lines go to the agent's log, escaped, cut and limited.

use std::sync::PoisonError;

use super::{PolicyOutcome, State, wasi::Wasi};
use crate::{
    escape,
    policy::{bindings::tipstaff::policy::log, limits::LOG_LINE},
};

impl log::Host for State {
    fn line(&mut self, level: u8, text: String) -> wasmtime::Result<()> {
        write(&self.outcome, level, &text);
        Ok(())
    }
}

/// Standard output is information, standard error a warning: tracebacks of other languages come there.
impl Wasi for State {
    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        let (lines, level) = if is_error { (&mut self.stderr, 1) } else { (&mut self.stdout, 2) };
        lines.write(bytes, |line| write(&self.outcome, level, line));
    }
}

fn write(outcome: &PolicyOutcome, level: u8, text: &str) {
    if !outcome.log_rate.lock().unwrap_or_else(PoisonError::into_inner).allow() {
        outcome.log_limited.inc();
        return;
    }
    let (policy, line) = (&*outcome.name, escape::control(escape::prefix(text, LOG_LINE)));
    match level {
        0 => tracing::error!(policy, "{line}"),
        1 => tracing::warn!(policy, "{line}"),
        2 => tracing::info!(policy, "{line}"),
        _ => tracing::debug!(policy, "{line}"),
    }
}
