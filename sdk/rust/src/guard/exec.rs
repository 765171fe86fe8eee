//! Which programs the command of `tipstaff exec` may run, as [`file`](super::file) says what it may do with
//! files. It is about running a file by `execve`, and not about code that a program brings along.
//!
//! ```no_run
//! use tipstaff::guard::exec::Table;
//!
//! # fn configure() -> Result<(), tipstaff::guard::Refused> {
//! Table::deny_all("not a tool of the build").allow("/usr/bin", "").allow("/usr/lib", "").set()
//! # }
//! ```
//!
//! The interpreter of a script, and what loads a program (`ld.so`), must be allowed as well.

use std::fmt;

use super::{Refused, paths::Rules};
use crate::bindings::guard_exec::tipstaff::policy::guard_exec;

/// Rules about programs, and what becomes of those that no rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(Rules);

impl Table {
    /// What no rule allows is denied, for this reason.
    #[must_use]
    pub fn deny_all(reason: &str) -> Self {
        Self(Rules::new("deny", reason))
    }

    /// What no rule denies is allowed.
    #[must_use]
    pub fn allow_all() -> Self {
        Self(Rules::new("allow", ""))
    }

    /// With a rule that allows what is there and below it; the reason may be empty.
    #[must_use]
    pub fn allow(self, path: &str, reason: &str) -> Self {
        Self(self.0.with("allow", "execute", path, reason))
    }

    /// With a rule that denies what is there and below it; the reason may be empty.
    #[must_use]
    pub fn deny(self, path: &str, reason: &str) -> Self {
        Self(self.0.with("deny", "execute", path, reason))
    }

    /// Puts the command under it, in place of the table that this policy asked for before.
    ///
    /// # Errors
    /// See [`Refused`]; also if a path cannot be written in a rule.
    pub fn set(&self) -> Result<(), Refused> {
        guard_exec::set_table("command", self.0.text()?).map_err(Refused)
    }
}

/// As it is written.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A table as it is written, one rule per line; it is checked when it is set.
impl From<String> for Table {
    fn from(text: String) -> Self {
        Self(Rules::from(text))
    }
}
