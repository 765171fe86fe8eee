//! Whether a condition holds for a record.

use super::{Compare, Match, Node, Operator, Predicate, Test, Width};
use crate::{
    enrich::Lookup,
    kind::{From, Repr},
    record::{self, Malformed},
};

impl Predicate {
    /// Whether it holds for this record.
    pub fn holds(&self, record: &[u8], lookup: &mut Lookup<'_>) -> Result<bool, Malformed> {
        self.node.holds(record, lookup)
    }
}

impl Node {
    fn holds(&self, record: &[u8], lookup: &mut Lookup<'_>) -> Result<bool, Malformed> {
        Ok(match self {
            Self::And(left, right) => left.holds(record, lookup)? && right.holds(record, lookup)?,
            Self::Or(left, right) => left.holds(record, lookup)? || right.holds(record, lookup)?,
            Self::Not(inner) => !inner.holds(record, lookup)?,
            Self::Compare(compare) => compare.holds(record, lookup)?,
        })
    }
}

impl Compare {
    fn holds(&self, record: &[u8], lookup: &mut Lookup<'_>) -> Result<bool, Malformed> {
        if record::absent(record)? & self.absent != 0 {
            return Ok(false);
        }
        match self.from {
            From::Table(field) => {
                let subject = record::subject(record)?;
                Ok(if let Test::Number(operator, value, _) = &self.test {
                    lookup
                        .number(field, &subject)
                        .is_some_and(|found| operator.holds(i128::from(found), *value))
                } else {
                    lookup
                        .text(field, &subject)
                        .is_some_and(|found| self.test.holds_for_bytes(found))
                })
            }
            From::Record { offset, repr } => self.holds_in(record, usize::from(offset), repr),
        }
    }

    fn holds_in(&self, record: &[u8], at: usize, repr: Repr) -> Result<bool, Malformed> {
        Ok(match &self.test {
            Test::Number(operator, value, Width { size, signed }) => {
                let found = record::number(record, at, *size, *signed)?;
                let found =
                    if *signed { i128::from(found.cast_signed()) } else { i128::from(found) };
                operator.holds(found, *value)
            }
            Test::Network(network, bits, equal) => {
                let found: [u8; 16] = record::bytes_at(record, at)?;
                let differ = u128::from_be_bytes(found) ^ u128::from_be_bytes(*network);
                (differ.leading_zeros() >= u32::from(*bits)) == *equal
            }
            Test::Text(..) | Test::List(..) => record::span(record, at, repr)?
                .is_some_and(|span| self.test.holds_for_bytes(span.bytes)),
        })
    }
}

impl Test {
    fn holds_for_bytes(&self, found: &[u8]) -> bool {
        match self {
            Self::Text(how, value) => how.holds(found, value),
            Self::List(how, value) => {
                let entries = found.strip_suffix(b"\0").unwrap_or(found);
                let mut entries = entries.split(|&byte| byte == 0);
                if *how == Match::NotEqual {
                    entries.all(|entry| entry != &**value)
                } else {
                    entries.any(|entry| how.holds(entry, value))
                }
            }
            Self::Number(..) | Self::Network(..) => false,
        }
    }
}

impl Operator {
    fn holds(self, found: i128, value: i128) -> bool {
        match self {
            Self::Equal => found == value,
            Self::NotEqual => found != value,
            Self::Less => found < value,
            Self::LessOrEqual => found <= value,
            Self::Greater => found > value,
            Self::GreaterOrEqual => found >= value,
        }
    }
}

impl Match {
    pub(super) fn holds(self, found: &[u8], value: &[u8]) -> bool {
        match self {
            Self::Equal => found == value,
            Self::NotEqual => found != value,
            Self::BeginsWith => found.starts_with(value),
            Self::EndsWith => found.ends_with(value),
            Self::Contains => {
                value.is_empty() || found.windows(value.len()).any(|part| part == value)
            }
        }
    }
}
