//! What the command of `tipstaff exec` may do with files. The policy says it when it is given its settings; the command
//! is put under it before it begins, with all that it starts, and nobody can change it afterwards.
//!
//! ```no_run
//! use tipstaff::guard::file::Table;
//!
//! # fn configure() -> Result<(), tipstaff::guard::Refused> {
//! Table::deny_all("only the working directory is written")
//!     .allow("list,read", "/", "")
//!     .deny("read", "~/.ssh", "keys")
//!     .allow("write", ".", "")
//!     .set()
//! # }
//! ```
//!
//! Accesses are `list` (the names in a directory), `read` (what is in a file; also needed to run it) and `write`
//! (also truncating, creating, removing and renaming); several have commas between them. A path begins with `/`,
//! with `.` (the working directory) or with `~` (the home of the user that the command runs as), and all below
//! it is meant. With `-` in front of a path that is allowed it is no error that nothing is there. The
//! longest path counts, then the one that denies.

use std::fmt;

use super::{Refused, paths::Rules};
use crate::bindings::guard_file::tipstaff::policy::guard_file;

/// Rules about files, and what becomes of what no rule is about.
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

    /// With a rule that allows; the reason may be empty.
    #[must_use]
    pub fn allow(self, accesses: &str, path: &str, reason: &str) -> Self {
        Self(self.0.with("allow", accesses, path, reason))
    }

    /// With a rule that denies; the reason may be empty.
    #[must_use]
    pub fn deny(self, accesses: &str, path: &str, reason: &str) -> Self {
        Self(self.0.with("deny", accesses, path, reason))
    }

    /// Puts the command under it, in place of the table that this policy asked for before.
    ///
    /// # Errors
    /// See [`Refused`]; also if a path cannot be written in a rule.
    pub fn set(&self) -> Result<(), Refused> {
        guard_file::set_table("command", self.0.text()?).map_err(Refused)
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
