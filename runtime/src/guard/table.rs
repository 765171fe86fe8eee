//! A table: the rules of one policy in one scope, what goes for everything else, and how to decide by
//! it. This is the plain account of it; the kernel's maps are tested against it.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use thiserror::Error;
use tipstaff_events::guard::{MAX_RULES, NODE_ENTRIES};

use super::{
    NameRule, Operation, Prefix, Protocol, Rule, RuleError, Verdict,
    rule::{split_reason, write_reason},
};

/// Rules and a default. In text, one rule per line, `default allow` or `default deny` on a line of its
/// own; a line that begins with `#` is a comment:
///
/// ```text
/// # what the deployment may use
/// default deny            # everything else is deployed by it
/// allow any tcp 192.0.2.0/24 443
/// allow name mirror.example
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What becomes of what no rule is about.
    pub default: Verdict,
    /// Why; may be empty.
    pub default_reason: String,
    /// The rules; a denial names its rule by the index in this list.
    pub rules: Vec<Rule>,
    /// The rules about names; where there are some, each name that is asked of a DNS server is judged, and
    /// the default counts for names, too. Counted from 0 by themselves.
    pub names: Vec<NameRule>,
    /// What the operator never lets a policy deny ([`Rule::always_allow`]). Goes before all rules, and is
    /// not part of the text: the host puts it in.
    pub always: Vec<Rule>,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The operator's exception of this index.
    Always(usize),
    /// The rule of this index.
    Rule(usize),
    /// No rule is about it.
    Default,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableError {
    /// In one line.
    #[error("line {line}: {source}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong there.
        source: RuleError,
    },
    /// Two defaults.
    #[error("line {line}: a second default; the first one is in line {first}")]
    SecondDefault {
        /// Number of the line, from 1.
        line: usize,
        /// That of the other.
        first: usize,
    },
    /// No default.
    #[error("no default; write `default allow` or `default deny` on a line of its own")]
    NoDefault,
    /// More rules than the kernel's maps have room for.
    #[error("{rules} rules, those of `always_allow` included; {MAX_RULES} is the most")]
    TooManyRules {
        /// How many there are.
        rules: usize,
    },
    /// Too much to be told apart at one prefix.
    #[error(
        "the rules for {prefix}, with those of the prefixes that cover it and the default, are more than \
         {NODE_ENTRIES} that count; give ranges of ports instead of single ones, or fewer rules on the \
         prefixes that cover it"
    )]
    Crowded {
        /// The prefix.
        prefix: Prefix,
    },
}

impl Table {
    /// A table without rules.
    #[must_use]
    pub fn new(default: Verdict) -> Self {
        Self {
            default,
            default_reason: String::new(),
            rules: Vec::new(),
            names: Vec::new(),
            always: Vec::new(),
        }
    }

    /// How many rules the policy wrote.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len() + self.names.len()
    }

    /// Whether there is nothing but the default.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What becomes of an operation, and what decides it: an exception of the operator; else of the rules
    /// that match the one with the longest prefix, then the narrowest range of ports, then one that
    /// denies, then the first; else the default. `protocol` is that of the socket, `Any` for one that no
    /// rule can name. Rules that have expired when so much time is over do not count.
    #[must_use]
    pub fn decide(
        &self,
        after: Duration,
        operation: Operation,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
    ) -> (Verdict, By) {
        let matches = |rule: &Rule| {
            rule.ttl.is_none_or(|ttl| after < ttl)
                && rule.matches(operation, protocol, address, port)
        };
        if let Some(index) = self.always.iter().position(matches) {
            return (Verdict::Allow, By::Always(index));
        }
        let matching = self.rules.iter().enumerate().filter(|(_, rule)| matches(rule));
        // The first one of those that are equal.
        match matching.min_by_key(|(_, rule)| rule.precedence()) {
            Some((index, rule)) => (rule.verdict, By::Rule(index)),
            None => (self.default, By::Default),
        }
    }

    /// Why: the reason of what decided.
    #[must_use]
    pub fn reason(&self, by: By) -> &str {
        match by {
            By::Always(index) => self.always.get(index).map_or("", |rule| &rule.reason),
            By::Rule(index) => self.rules.get(index).map_or("", |rule| &rule.reason),
            By::Default => &self.default_reason,
        }
    }
}

impl FromStr for Table {
    type Err = TableError;

    fn from_str(text: &str) -> Result<Self, TableError> {
        let mut default: Option<(usize, Verdict, String)> = None;
        let (mut rules, mut names) = (Vec::new(), Vec::new());
        for (line, text) in text.lines().enumerate().map(|(index, text)| (index + 1, text.trim())) {
            let at_line = |source| TableError::Line { line, source };
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.split_whitespace();
            if words.next() != Some("default") {
                if NameRule::is_meant(text) {
                    names.push(text.parse().map_err(at_line)?);
                } else {
                    rules.push(text.parse().map_err(at_line)?);
                }
                continue;
            }
            let (rest, reason) = split_reason(text).map_err(at_line)?;
            let mut words = rest.split_whitespace().skip(1);
            let verdict = words.next().unwrap_or_default().parse().map_err(at_line)?;
            if let Some(more) = words.next() {
                let error =
                    RuleError::new("end of the default", "nothing behind the verdict", more);
                return Err(at_line(error));
            }
            if let Some((first, ..)) = default.replace((line, verdict, reason)) {
                return Err(TableError::SecondDefault { line, first });
            }
        }
        let (_, default, default_reason) = default.ok_or(TableError::NoDefault)?;
        Ok(Self { default, default_reason, rules, names, always: Vec::new() })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "default {}", self.default)?;
        write_reason(f, &self.default_reason)?;
        writeln!(f)?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))?;
        self.names.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}
