//! Rules about names that are asked of DNS servers, and how they are written:
//!
//! ```text
//! deny name api.example.com        # that name, and all below it
//! allow name *.internal.example    # only what is below it
//! deny name *                      # every name
//! ```
//!
//! The rule with the most labels counts; of equal ones `*.` before the other, then deny before allow, then
//! the first one; nothing matches: the default of the table. Labels are compared whole, in lower case.

use std::{collections::HashMap, fmt, str::FromStr};

use super::{
    RuleError, Verdict,
    rule::{split_reason, write_reason},
};

/// The word that stands for the operation in a rule about names.
pub(super) const NAME: &str = "name";

/// Longest name, in characters, as DNS has it.
const MAX_NAME: usize = 253;
/// Longest label.
const MAX_LABEL: usize = 63;

/// Names that end alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Names {
    /// The labels that they end with, in lower case; empty for all names.
    suffix: String,
    /// Whether the suffix itself is none of them.
    only_below: bool,
}

impl Names {
    /// Whether all of these are among those of this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.suffix == other.suffix {
            return !self.only_below || other.only_below;
        }
        suffixes(&other.suffix).any(|suffix| suffix == self.suffix)
    }
}

impl FromStr for Names {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = |expected: &str| RuleError::new("name", expected, text);
        if text == "*" {
            return Ok(Self { suffix: String::new(), only_below: true });
        }
        let (only_below, suffix) =
            text.strip_prefix("*.").map_or((false, text), |suffix| (true, suffix));
        let suffix = suffix.strip_suffix('.').unwrap_or(suffix);
        if !suffix.is_ascii() {
            return Err(wrong(
                "a name as DNS has it: its labels in ASCII, such as xn--bcher-kva.example",
            ));
        }
        let is_label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if suffix.len() > MAX_NAME || !suffix.split('.').all(is_label) {
            return Err(wrong("a name such as example.com, *.example.com for all below it, or *"));
        }
        if suffix.parse::<std::net::IpAddr>().is_ok() {
            return Err(wrong("a name; an address is written without `name`"));
        }
        Ok(Self { suffix: suffix.to_ascii_lowercase(), only_below })
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.only_below, self.suffix.as_str()) {
            (_, "") => f.write_str("*"),
            (true, suffix) => write!(f, "*.{suffix}"),
            (false, suffix) => f.write_str(suffix),
        }
    }
}

/// Which names are allowed or denied, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRule {
    /// What becomes of a query for one of them.
    pub verdict: Verdict,
    /// The names.
    pub names: Names,
    /// Why; may be empty. One line of [`super::MAX_REASON`] bytes at most.
    pub reason: String,
}

impl NameRule {
    /// Whether a line is a rule about names, right or wrong.
    pub(super) fn is_meant(line: &str) -> bool {
        line.split_whitespace().nth(1) == Some(NAME)
    }
}

impl FromStr for NameRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (rule, reason) = split_reason(text)?;
        let mut words = rule.split_whitespace();
        let verdict = words.next().unwrap_or_default().parse()?;
        let word = words.next().unwrap_or_default();
        if word != NAME {
            return Err(RuleError::new("rule about a name", "`name` behind the verdict", word));
        }
        let names = words.next().unwrap_or_default().parse()?;
        match words.next() {
            None => Ok(Self { verdict, names, reason }),
            Some(more) => Err(RuleError::new("end of the rule", "nothing behind the name", more)),
        }
    }
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, names, reason } = self;
        write!(f, "{verdict} {NAME} {names}")?;
        write_reason(f, reason)
    }
}

/// The rules of a table, so that each name is looked up by its labels and not by the rules.
#[derive(Debug, Default)]
pub struct NameIndex {
    /// By suffix: the rule for it with all below it, and the one for what is below it alone.
    rules: HashMap<String, [Option<usize>; 2]>,
}

impl NameIndex {
    /// Of these rules.
    #[must_use]
    pub fn new(rules: &[NameRule]) -> Self {
        let mut index = Self::default();
        for (at, NameRule { verdict, names, .. }) in rules.iter().enumerate() {
            let places = index.rules.entry(names.suffix.clone()).or_default();
            let place = &mut places[usize::from(names.only_below)];
            let goes_first = place.is_none_or(|other| {
                *verdict == Verdict::Deny && rules[other].verdict == Verdict::Allow
            });
            if goes_first {
                *place = Some(at);
            }
        }
        index
    }

    /// The rule that decides about a name, as queries have it ([`crate::dns::Question`]); none: the
    /// default does.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let itself = self.rules.get(name).and_then(|[with_below, _]| *with_below);
        itself.or_else(|| {
            suffixes(name).find_map(|suffix| {
                let [with_below, only_below] = *self.rules.get(suffix)?;
                only_below.or(with_below)
            })
        })
    }
}

/// What a name is below, the nearest first; the last one is empty. A dot within a label has a backslash in
/// front.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    let dots = name.bytes().enumerate().filter_map(move |(at, byte)| {
        let is_dot = byte == b'.' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_dot.then_some(at)
    });
    dots.filter_map(|at| name.get(at + 1..)).filter(|suffix| !suffix.is_empty()).chain([""])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in [
            "deny name api.example.com # deployed by this script",
            "allow name *.internal.example",
            "deny name *",
            "allow name xn--bcher-kva._tcp.example",
        ] {
            assert_eq!(text.parse::<NameRule>().unwrap().to_string(), text);
        }
        let rule: NameRule = "deny name  WWW.Example.COM.".parse().unwrap();
        assert_eq!(rule.to_string(), "deny name www.example.com");
    }

    #[test]
    fn what_is_no_name_is_told_with_what_is_one() {
        let long = format!("deny name {}", "a".repeat(64));
        for text in [
            "deny name",
            "deny name .",
            "deny name a..b",
            "deny name *.*.a",
            "deny name a*.b",
            "deny name bücher.example",
            "deny name 10.0.0.1",
            "deny name a b",
            "refuse name a",
            &long,
            "deny name a\\.b",
            "deny name *.",
        ] {
            let error = text.parse::<NameRule>().unwrap_err().to_string();
            assert!(error.contains("expected"), "{text}: {error}");
        }
    }

    /// The plain account of which rule decides.
    fn decides(rules: &[NameRule], name: &str) -> Option<usize> {
        let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
        let matching = rules.iter().enumerate().filter_map(|(at, rule)| {
            let suffix: Vec<&str> =
                rule.names.suffix.split('.').filter(|label| !label.is_empty()).collect();
            let matches = labels.ends_with(&suffix)
                && (!rule.names.only_below || labels.len() > suffix.len() || suffix.is_empty());
            let order =
                (usize::MAX - suffix.len(), !rule.names.only_below, rule.verdict == Verdict::Allow);
            matches.then_some((order, at))
        });
        matching.min().map(|(_, at)| at)
    }

    #[test]
    fn the_most_labels_count_and_only_whole_ones() {
        let rules: Vec<NameRule> = [
            "allow name example.com",
            "deny name *.example.com",
            "allow name b.a.example.com",
            "deny name b.a.example.com",
            "deny name ple.com",
            "allow name com",
            "deny name com",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        let index = NameIndex::new(&rules);
        for (name, rule) in [
            ("example.com", Some(0)),
            ("www.example.com", Some(1)),
            ("b.a.example.com", Some(3)),
            ("x.b.a.example.com", Some(3)),
            ("ba.example.com", Some(1)),
            ("xexample.com", Some(6)),
            ("com", Some(6)),
            ("org", None),
            (".", None),
        ] {
            assert_eq!(index.find(name), rule, "{name}");
            assert_eq!(decides(&rules, name), rule, "{name}");
        }
        let all: Vec<NameRule> = vec!["deny name *".parse().unwrap()];
        let index = NameIndex::new(&all);
        assert!([".", "a", "a.b"].iter().all(|name| index.find(name) == Some(0)));
    }

    #[test]
    fn a_dot_within_a_label_ends_none() {
        let rules = vec!["deny name b.example".parse().unwrap()];
        let index = NameIndex::new(&rules);
        assert_eq!(index.find("a\\.b.example"), None);
        assert_eq!(index.find("a\\\\.b.example"), Some(0));
        assert_eq!(index.find("a\\046.b.example"), Some(0));
    }

    #[test]
    fn names_cover_those_below() {
        let covers =
            |one: &str, other: &str| one.parse::<Names>().unwrap().covers(&other.parse().unwrap());
        assert!(covers("*", "a.b") && covers("b", "a.b") && covers("*.b", "a.b"));
        assert!(covers("b", "*.b") && covers("b", "b") && covers("*", "*"));
        assert!(!covers("*.b", "b") && !covers("a.b", "b") && !covers("a.b", "*"));
        assert!(!covers("b", "ab"));
    }
}
