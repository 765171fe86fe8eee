//! Which events something is about: simple comparisons on fields, as `--where` takes them.
//!
//! ```text
//! uid = 0 and not (path ^= /usr/ or path ~ "my file")
//! outcome != established and address = 10.0.0.0/8 and port >= 1024
//! ```
//!
//! `=` `!=` `<` `<=` `>` `>=` compare; `~` is "contains", `^=` "begins with", `$=` "ends with". A
//! list (`args`) is compared entry by entry, and one is enough. A comparison with a field that has
//! no value is false, whatever it compares with.

mod eval;
mod never;
mod parse;
mod push;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use parse::Error;
pub use push::filter;

use crate::kind::{Enriched, Field, From, Kind};

/// A condition on the events of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    node: Node,
    /// Bits that make the probe collect the fields that are compared.
    wanted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Compare(Compare),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Compare {
    from: From,
    /// Bit of the record's `absent` that says that there is no value.
    absent: u32,
    test: Test,
}

/// What a value must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Number(Operator, i128, Width),
    Text(Match, Arc<[u8]>),
    List(Match, Arc<[u8]>),
    /// Address, the number of bits that must be equal, and whether they must.
    Network([u8; 16], u8, bool),
}

/// How a number is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    size: u8,
    signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Equal,
    NotEqual,
    Contains,
    BeginsWith,
    EndsWith,
}

impl Predicate {
    /// The condition that holds where both do.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            node: Node::And(Box::new(self.node.clone()), Box::new(other.node.clone())),
            wanted: self.wanted | other.wanted,
        }
    }

    /// Reads a condition on the events of this kind.
    pub fn parse(text: &str, kind: &Kind) -> Result<Self, Error> {
        let node = parse::parse(text, kind)?;
        let mut wanted = 0;
        node.visit(&mut |compare| {
            wanted |= kind
                .fields
                .iter()
                .filter(|field| compare.is_of(field))
                .fold(0, |bits, field| bits | field.wanted);
        });
        Ok(Self { node, wanted })
    }

    /// Bits that make the probe collect the fields that are compared.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Whether it compares this field.
    #[must_use]
    pub fn compares(&self, field: &Field) -> bool {
        let mut found = false;
        self.node.visit(&mut |compare| found |= compare.is_of(field));
        found
    }

    /// The enriched fields that are compared.
    pub fn reads(&self) -> impl Iterator<Item = Enriched> {
        let mut found = Vec::new();
        self.node.visit(&mut |compare| {
            if let From::Table(field) = compare.from {
                found.push(field);
            }
        });
        found.into_iter()
    }
}

impl Node {
    fn visit(&self, each: &mut impl FnMut(&Compare)) {
        match self {
            Self::And(left, right) | Self::Or(left, right) => {
                left.visit(each);
                right.visit(each);
            }
            Self::Not(inner) => inner.visit(each),
            Self::Compare(compare) => each(compare),
        }
    }
}

impl Compare {
    fn is_of(&self, field: &Field) -> bool {
        self.from == field.from
    }
}
