//! A table of rules about paths, and how it is written.

use std::{fmt, str::FromStr};

use super::{Access, PathRule, rule::split_reason};
use crate::guard::{Grant, TableError, Verdict, rule::write_reason};

/// Rules about paths and a default. In text, one rule per line, `default allow` or `default deny` on a
/// line of its own; a line that begins with `#` is a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTable {
    /// What becomes of what no rule is about.
    pub default: Verdict,
    /// Why; may be empty.
    pub default_reason: String,
    /// The rules; a denial names its rule by the index in this list.
    pub rules: Vec<PathRule>,
}

impl PathTable {
    /// The accesses that tables of this capability decide about. None for one that is about something
    /// else.
    #[must_use]
    pub const fn accesses(grant: Grant) -> &'static [Access] {
        match grant {
            Grant::File => &[Access::List, Access::Read, Access::Write],
            Grant::Exec => &[Access::Execute],
            _ => &[],
        }
    }

    /// An access that it names and that tables of this capability know nothing of.
    #[must_use]
    pub fn foreign(&self, grant: Grant) -> Option<Access> {
        let own = Self::accesses(grant);
        self.rules.iter().flat_map(|rule| rule.accesses.iter()).find(|access| !own.contains(access))
    }
}

impl FromStr for PathTable {
    type Err = TableError;

    fn from_str(text: &str) -> Result<Self, TableError> {
        let mut default = None;
        let mut rules = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |source| TableError::Line { line: number, source };
            let Some(rest) = line
                .strip_prefix("default")
                .filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
            else {
                rules.push(line.parse().map_err(at)?);
                continue;
            };
            if let Some((_, _, first)) = default {
                return Err(TableError::SecondDefault { line: number, first });
            }
            let (verdict, reason) = split_reason(rest).map_err(at)?;
            default = Some((verdict.parse().map_err(at)?, reason, number));
        }
        let (default, default_reason, _) = default.ok_or(TableError::NoDefault)?;
        Ok(Self { default, default_reason, rules })
    }
}

impl fmt::Display for PathTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { default, default_reason, rules } = self;
        write!(f, "default {default}")?;
        write_reason(f, default_reason)?;
        writeln!(f)?;
        rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let text = "default deny # the rest\nallow read /usr\ndeny read ~/.ssh # keys\n";
        let table: PathTable = format!("# a comment\n\n{text}").parse().unwrap();
        assert_eq!(table.to_string(), text);
        assert_eq!(table.foreign(Grant::File), None);
        assert_eq!(table.foreign(Grant::Exec), Some(Access::Read));
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_line() {
        let error = |text: &str| text.parse::<PathTable>().unwrap_err().to_string();
        assert!(error("allow read /").starts_with("no default"));
        assert_eq!(
            error("default deny\n\ndefault allow"),
            "line 3: a second default; the first one is in line 1"
        );
        assert!(error("default deny\nallow read etc").starts_with("line 2: path: expected a path"));
        assert!(error("default deny /").starts_with("line 1: verdict"));
        assert!(error("default").starts_with("line 1: verdict"));
    }
}
