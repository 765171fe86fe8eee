//! What policies say: alerts and log lines.

/// An alert that a policy raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Name of the policy.
    pub policy: String,
    /// When it was raised, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What happened, for a human. May hold any character: sinks escape it.
    pub message: String,
    /// Names and values.
    pub labels: Vec<(String, String)>,
}

/// How bad something is, with the numbers that policies use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// 0: worth knowing.
    Info,
    /// 1: someone should look.
    Warning,
    /// 2: someone should look now.
    Critical,
}
