//! One rule about a path, and how it is written:
//!
//! ```text
//! allow read,list /usr
//! allow write ./build            # below the working directory
//! deny read ~/.ssh               # keys
//! allow read -/lib64             # not an error where it is missing
//! ```
//!
//! Verdict, accesses, path; what stands behind ` #` is the reason. The path is all between, blanks within it
//! included, and all that is below it is meant, too.

use std::{fmt, str::FromStr};

use crate::guard::{RuleError, Verdict, rule::write_reason};

use super::super::rule::MAX_REASON;

/// Longest path in a rule, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// What can be done with a file that a rule can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Reading the names in a directory.
    List,
    /// Reading what is in a file. Also needed to run it.
    Read,
    /// Writing, truncating, creating, removing, renaming.
    Write,
    /// Running it by `execve`.
    Execute,
}

impl Access {
    /// All accesses, with the words for them.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::List, "list"),
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Execute, "execute"),
    ];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(access, _)| *access == self).map_or("", |(_, name)| name)
    }
}

/// A set of accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Accesses(u8);

impl Accesses {
    /// With this one, too.
    #[must_use]
    pub const fn with(self, access: Access) -> Self {
        Self(self.0 | 1 << access as u8)
    }

    /// Whether this one is in it.
    #[must_use]
    pub const fn has(self, access: Access) -> bool {
        self.0 >> access as u8 & 1 == 1
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Access> {
        Access::ALL.into_iter().map(|(access, _)| access).filter(move |access| self.has(*access))
    }
}

impl FromIterator<Access> for Accesses {
    fn from_iter<T: IntoIterator<Item = Access>>(all: T) -> Self {
        all.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for Accesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Access::name).collect();
        f.write_str(&names.join(","))
    }
}

/// A rule about a path and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What it is about.
    pub accesses: Accesses,
    /// The path: from `/`, from the working directory (`.`, `./a`), or from the home directory (`~`, `~/a`).
    pub path: String,
    /// Whether it is no error that nothing is there. What is denied may always be missing.
    pub may_be_missing: bool,
    /// Why; may be empty.
    pub reason: String,
}

/// The rule, and the reason behind ` #`.
pub(super) fn split_reason(line: &str) -> Result<(&str, String), RuleError> {
    let at = line.match_indices('#').map(|(at, _)| at);
    let at =
        at.into_iter().find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
    let (rest, reason) = at.map_or((line, ""), |at| (&line[..at], &line[at + 1..]));
    let reason = reason.trim();
    if reason.len() > MAX_REASON || reason.contains(char::is_control) {
        let expected = format!("one line of at most {MAX_REASON} bytes behind #");
        return Err(RuleError::new("reason", expected, reason));
    }
    Ok((rest.trim(), reason.to_owned()))
}

fn path(text: &str) -> Result<&str, RuleError> {
    let wrong = |expected: &str| Err(RuleError::new("path", expected, text));
    let below = match text.split_once('/') {
        Some(("" | "." | "~", below)) => below,
        None if matches!(text, "." | "~") => "",
        _ => {
            return wrong(
                "a path from `/`, from the working directory (`.` or `./...`) or from the home directory (`~` or `~/...`)",
            );
        }
    };
    if text.len() > MAX_PATH || text.contains(char::is_control) {
        return wrong("at most 4096 bytes without control characters");
    }
    let is_plain = |name: &str| !matches!(name, "" | "." | "..");
    let below = below.strip_suffix('/').filter(|below| !below.is_empty()).unwrap_or(below);
    if below.is_empty() || below.split('/').all(is_plain) {
        Ok(text)
    } else {
        wrong("a path without `.`, `..` and `//` in it")
    }
}

impl FromStr for PathRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (rule, reason) = split_reason(text)?;
        let (verdict, rest) = rule.split_once(char::is_whitespace).unwrap_or((rule, ""));
        let verdict = verdict.parse::<Verdict>()?;
        let rest = rest.trim_start();
        let (words, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let access = |word: &str| {
            let found = Access::ALL.into_iter().find(|(_, name)| *name == word);
            found.map(|(access, _)| access).ok_or_else(|| {
                let names: Vec<&str> = Access::ALL.iter().map(|(_, name)| *name).collect();
                RuleError::new("accesses", format!("some of {}", names.join(", ")), word)
            })
        };
        let accesses = words.split(',').map(access).collect::<Result<Accesses, _>>()?;
        let given = rest.trim();
        let (given, may_be_missing) = match given.strip_prefix('-') {
            Some(given) => (given, true),
            None => (given, false),
        };
        let path = path(given)?.to_owned();
        Ok(Self { verdict, accesses, path, may_be_missing, reason })
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, accesses, path, may_be_missing, reason } = self;
        let mark = if *may_be_missing { "-" } else { "" };
        write!(f, "{verdict} {accesses} {mark}{path}")?;
        write_reason(f, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in [
            "allow list,read /",
            "deny read ~/.ssh # keys",
            "allow write .",
            "allow write ./a b/c#d # why # this",
            "allow execute -/lib64/ld-linux-x86-64.so.2",
            "deny list,read,write,execute ~",
        ] {
            assert_eq!(text.parse::<PathRule>().unwrap().to_string(), text);
        }
        let rule: PathRule = " allow\tread  /a b  # x".parse().unwrap();
        assert_eq!((rule.path.as_str(), rule.reason.as_str()), ("/a b", "x"));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("", "verdict"),
            ("permit read /", "verdict"),
            ("allow", "accesses"),
            ("allow reed /", "accesses"),
            ("allow read, /", "accesses"),
            ("allow read", "path"),
            ("allow read usr", "path"),
            ("allow read ../x", "path"),
            ("allow read /a/../b", "path"),
            ("allow read //", "path"),
            ("allow read ~user", "path"),
            ("allow read /a\u{1b}[2J", "path"),
            ("allow read # /", "path"),
        ] {
            let error = text.parse::<PathRule>().unwrap_err();
            assert_eq!(error.part, part, "{text}: {error}");
        }
        let long = format!("allow read /{}", "x".repeat(MAX_PATH));
        assert_eq!(long.parse::<PathRule>().unwrap_err().part, "path");
        let long = format!("allow read / # {}", "x".repeat(MAX_REASON + 1));
        assert_eq!(long.parse::<PathRule>().unwrap_err().part, "reason");
    }
}
