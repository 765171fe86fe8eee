//! Alerts: what a human should hear of.

use crate::{bindings::tipstaff::policy::alerts, owned};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Someone should look.
    Warning,
    /// Someone should look now.
    Critical,
}

/// Raises an alert. Labels are names and values that tell alerts with the same message apart.
pub fn alert(severity: Severity, message: &str, labels: &[(&str, &str)]) {
    let severity = match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Critical => 2,
    };
    alerts::raise(severity, message, &owned(labels));
}
