//! Signals that policies ask for.

use std::{fmt, str::FromStr, sync::Arc};

use crate::escape;

/// A signal that may be asked for. Not `STOP`: what is stopped has to be continued, whatever becomes of
/// whoever stopped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Asks to end.
    Term,
    /// Ends.
    Kill,
    /// What Ctrl-C sends.
    Int,
    /// What a terminal that goes sends.
    Hup,
}

impl Signal {
    /// All of them, with their names.
    pub const ALL: &[(Self, &'static str)] =
        &[(Self::Term, "TERM"), (Self::Kill, "KILL"), (Self::Int, "INT"), (Self::Hup, "HUP")];
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(signal, _)| signal == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(signal, _)| *signal).ok_or_else(|| {
            let shown = escape::control(escape::prefix(text, 64));
            format!("expected the signal `TERM`, `KILL`, `INT` or `HUP`, found `{shown}`")
        })
    }
}

/// A signal that a policy asks for, as it wrote it.
#[derive(Debug, Clone, Copy)]
pub struct SignalWish<'a> {
    /// Number of the process.
    pub pid: u32,
    /// Its start, in nanoseconds since boot.
    pub start: u64,
    /// Name of the signal.
    pub signal: &'a str,
    /// Whether what descends from it is meant, too.
    pub tree: bool,
    /// Time of the event upon which it is sent; 0: none.
    pub time: u64,
}

impl SignalWish<'_> {
    /// Name of the action in records and metrics.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        action(self.tree)
    }
}

const fn action(tree: bool) -> &'static str {
    if tree { "signal-tree" } else { "signal" }
}

/// A signal that a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalAsk {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// Number of the process, as events have it.
    pub pid: u32,
    /// Its start, in nanoseconds since boot.
    pub start: u64,
    /// Which.
    pub signal: Signal,
    /// Whether what descends from it is meant, too.
    pub tree: bool,
    /// Time of the event upon which it is sent (monotonic).
    pub time: Option<u64>,
}

impl SignalAsk {
    /// Name of the action in records and metrics.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        action(self.tree)
    }
}

/// What is asked for, in words.
impl fmt::Display for SignalAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signal, pid, tree, .. } = self;
        let below = if *tree { " and all that descend from it" } else { "" };
        write!(f, "{signal} to process {pid}{below}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_as_it_is_written_and_what_needs_a_lease_is_none() {
        for (signal, name) in Signal::ALL {
            assert_eq!((name.parse(), signal.to_string()), (Ok(*signal), (*name).to_owned()));
        }
        for name in ["STOP", "CONT", "kill", "SIGKILL", "9", "", "\u{1b}[2J"] {
            let error = name.parse::<Signal>().unwrap_err();
            assert!(error.starts_with("expected the signal `TERM`"), "{error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }
}
