//! How well this kernel lets us see the events of each kind.

use std::{collections::BTreeMap, fmt};

/// What of a kind's events is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// All of them, and each one that is lost is counted.
    Full,
    /// Some are missing, or losses are not all counted: the reason.
    Partial(String),
    /// None: the reason.
    None(String),
    /// The hook attached, but nothing has shown yet that it fires.
    Unverified,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Partial(reason) => write!(f, "partial: {reason}"),
            Self::None(reason) => write!(f, "none: {reason}"),
            Self::Unverified => f.write_str("unverified"),
        }
    }
}

/// A hook that was tried and does not work here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The hook.
    pub hook: String,
    /// What the kernel said.
    pub reason: String,
}

/// How a kind is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindReport {
    /// How well.
    pub coverage: Coverage,
    /// The hooks in use.
    pub hooks: Vec<String>,
    /// The programs in use, as PROGRAM@HOOK.
    pub programs: Vec<String>,
    /// The hooks that were tried before.
    pub rejected: Vec<Rejected>,
}

/// How each wanted kind is seen, by the kind's number.
pub type Report = BTreeMap<u16, KindReport>;

impl Default for KindReport {
    fn default() -> Self {
        Self {
            coverage: Coverage::Full,
            hooks: Vec::new(),
            programs: Vec::new(),
            rejected: Vec::new(),
        }
    }
}

impl KindReport {
    /// Adds what is known of another part of the same kind.
    pub(super) fn merge(&mut self, part: &Self) {
        self.hooks.extend(part.hooks.iter().cloned());
        self.programs.extend(part.programs.iter().cloned());
        self.rejected.extend(part.rejected.iter().cloned());
        match &part.coverage {
            Coverage::Full => {}
            Coverage::Partial(reason) => self.lacks(reason),
            none @ Coverage::None(_) => self.coverage = none.clone(),
            Coverage::Unverified => {
                if self.coverage == Coverage::Full {
                    self.coverage = Coverage::Unverified;
                }
            }
        }
    }

    /// Adds one more reason why not everything is seen.
    pub(super) fn lacks(&mut self, reason: &str) {
        self.coverage = match std::mem::replace(&mut self.coverage, Coverage::Full) {
            Coverage::Full | Coverage::Unverified => Coverage::Partial(reason.to_owned()),
            Coverage::Partial(before) if before.contains(reason) => Coverage::Partial(before),
            Coverage::Partial(before) => Coverage::Partial(format!("{before}; {reason}")),
            none @ Coverage::None(_) => none,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_add_up_and_none_stays_none() {
        let mut report = KindReport::default();
        report.lacks("a");
        report.lacks("b");
        report.lacks("a");
        assert_eq!(report.coverage.to_string(), "partial: a; b");
        report.coverage = Coverage::None("c".to_owned());
        report.lacks("d");
        assert_eq!(report.coverage, Coverage::None("c".to_owned()));
    }
}
