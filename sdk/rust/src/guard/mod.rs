//! Guardrails: what a policy asks to be done to the machine. Each module is a capability that the
//! operator has to grant (`grants = ["guard-network"]` in `[policy.NAME]`): a policy that uses one and
//! is not granted it does not load.

pub mod exec;
pub mod file;
pub mod network;
mod paths;
pub mod signal;

use std::fmt;

/// Why something is not done, for the operator: the mode is observe, there is no such scope, the rules
/// are not understood, or a limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn with_reason(text: &mut String, reason: &str) {
    if !reason.trim().is_empty() {
        *text += " # ";
        *text += reason.trim();
    }
}
