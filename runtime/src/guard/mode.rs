//! How far actions may go.

use std::{fmt, str::FromStr};

/// How far actions may go. Of several the mildest counts, which is the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// No actions.
    #[default]
    Observe,
    /// Actions are decided and reported, and change nothing.
    Audit,
    /// Actions are done.
    Enforce,
}

impl Mode {
    /// All modes, the mildest first, with the names that are used everywhere.
    pub const ALL: &[(Self, &'static str)] =
        &[(Self::Observe, "observe"), (Self::Audit, "audit"), (Self::Enforce, "enforce")];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mode, _)| *mode == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `observe`, `audit` or `enforce`, found `{0}`")]
pub struct NoMode(pub String);

impl FromStr for Mode {
    type Err = NoMode;

    fn from_str(text: &str) -> Result<Self, NoMode> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(mode, _)| *mode).ok_or_else(|| NoMode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_ordered_and_are_read_as_they_are_written() {
        assert!(Mode::ALL.is_sorted());
        for (mode, name) in Mode::ALL {
            assert_eq!((name.parse().as_ref(), mode.to_string()), (Ok(mode), (*name).to_owned()));
        }
        let error = "Enforce".parse::<Mode>().unwrap_err();
        assert_eq!(error.to_string(), "expected `observe`, `audit` or `enforce`, found `Enforce`");
    }
}
