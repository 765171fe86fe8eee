//! Where rules apply.

use std::{fmt, str::FromStr};

/// Longest path of a cgroup, in bytes.
const MAX_PATH: usize = 4096;

/// Where rules apply, as policies, the configuration and records write it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// `command`: the command of `tipstaff exec`, and all that comes of it.
    Command,
    /// `cgroup:/PATH`: the cgroup of that path on the v2 hierarchy, and all below it.
    Cgroup(String),
}

/// Not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Something else.
    #[error("expected the scope `command` or `cgroup:/PATH`, found `{0}`")]
    Unknown(String),
    /// Not a path.
    #[error("expected the path of a cgroup, from `/` and without `.`, `..` and `//`, found `{0}`")]
    Path(String),
}

impl Scope {
    /// The path of the cgroup, if it is named by one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Command => None,
            Self::Cgroup(path) => Some(path),
        }
    }
}

/// Checks the path of a cgroup as it is seen below the mount of the hierarchy.
pub fn cgroup_path(path: &str) -> Result<&str, ScopeError> {
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    let is_path = path
        .strip_prefix('/')
        .is_some_and(|below| below.is_empty() || below.split('/').all(is_name));
    if is_path && path.len() <= MAX_PATH && !path.contains(char::is_control) {
        Ok(path)
    } else {
        Err(ScopeError::Path(shown(path)))
    }
}

fn shown(text: &str) -> String {
    crate::escape::control(crate::escape::prefix(text, 256)).into_owned()
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text.split_once(':') {
            None if text == "command" => Ok(Self::Command),
            Some(("cgroup", path)) => Ok(Self::Cgroup(cgroup_path(path)?.to_owned())),
            _ => Err(ScopeError::Unknown(shown(text))),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => f.write_str("command"),
            Self::Cgroup(path) => write!(f, "cgroup:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in ["command", "cgroup:/", "cgroup:/a b/c:d", "cgroup:/system.slice/ssh.service"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_no_scope() {
        for path in ["", "a", "/a/", "//", "/a//b", "/..", "/a/../b", "/./a", "/a\0", "/a\nb"] {
            let error = format!("cgroup:{path}").parse::<Scope>().unwrap_err();
            assert!(matches!(error, ScopeError::Path(_)), "{path:?}: {error}");
        }
        let long = format!("cgroup:/{}", "x".repeat(MAX_PATH));
        assert!(long.parse::<Scope>().unwrap_err().to_string().len() < 400);
        for text in ["", "all", "Command", "command:/x", "pid:1", "\u{1b}[2J"] {
            let error = text.parse::<Scope>().unwrap_err().to_string();
            assert!(error.starts_with("expected the scope") && !error.contains('\u{1b}'));
        }
    }
}
