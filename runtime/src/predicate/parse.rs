//! Reading a condition.

use std::net::IpAddr;

use tipstaff_events::Role;

use super::{Compare, Match, Node, Operator, Test, Width};
use crate::{
    kind::{Class, Field, Kind},
    nearest,
};

/// Deepest nesting of parentheses and `not`.
const DEEPEST: usize = 64;
/// Operators, longer ones before those that they begin with.
const OPERATORS: &[&str] = &["!=", "<=", ">=", "^=", "$=", "==", "=", "<", ">", "~"];

/// Why a condition cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not have the form of one.
    #[error("the condition `{text}`: expected {expected}, found {found}")]
    Form {
        /// The condition.
        text: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A field that the kind does not have.
    #[error("event `{event}` has no field `{field}`{hint}")]
    NoField {
        /// The kind.
        event: String,
        /// Name of the field.
        field: String,
        /// The nearest name.
        hint: String,
    },
    /// A value that the field cannot have.
    #[error("field `{field}` is {is}; `{value}` is not: expected {expected}")]
    Value {
        /// The field.
        field: String,
        /// What it is.
        is: &'static str,
        /// The value.
        value: String,
        /// What can stand there.
        expected: String,
    },
    /// An operator that does not go with the field.
    #[error(
        "field `{field}` is {is} and cannot be compared by `{operator}`: expected one of {expected}"
    )]
    Operator {
        /// The field.
        field: String,
        /// What it is.
        is: &'static str,
        /// The operator.
        operator: String,
        /// What can stand there.
        expected: &'static str,
    },
    /// Too many parentheses.
    #[error("the condition is nested more than {DEEPEST} deep")]
    TooDeep,
}

pub(super) fn parse(text: &str, kind: &Kind) -> Result<Node, Error> {
    let mut parser = Parser { text, rest: text, kind, depth: 0 };
    let node = parser.either()?;
    if parser.rest.trim_start().is_empty() {
        Ok(node)
    } else {
        Err(parser.form("`and`, `or` or the end"))
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    kind: &'a Kind,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn either(&mut self) -> Result<Node, Error> {
        let mut left = self.both()?;
        while self.word("or") {
            left = Node::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Node, Error> {
        let mut left = self.one()?;
        while self.word("and") {
            left = Node::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Node, Error> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Error::TooDeep);
        }
        let node = if self.word("not") {
            Node::Not(Box::new(self.one()?))
        } else if self.symbol("(") {
            let inner = self.either()?;
            if !self.symbol(")") {
                return Err(self.form("`)`"));
            }
            inner
        } else {
            self.compare()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn compare(&mut self) -> Result<Node, Error> {
        let name = self.while_is(|char| char.is_ascii_alphanumeric() || char == '_' || char == '.');
        if name.is_empty() {
            return Err(self.form("the name of a field"));
        }
        let Some(field) = self.kind.field(name) else {
            return Err(Error::NoField {
                event: self.kind.name.to_string(),
                field: name.into(),
                hint: nearest::hint(name, self.kind.fields.iter().map(|field| field.name.as_ref())),
            });
        };
        let Some(&operator) = OPERATORS.iter().find(|operator| self.symbol(operator)) else {
            return Err(self.form("one of = != < <= > >= ~ ^= $="));
        };
        let value = self.value()?;
        Ok(Node::Compare(Compare {
            from: field.from,
            absent: field.absent,
            test: test(field, operator, &value)?,
        }))
    }

    fn value(&mut self) -> Result<String, Error> {
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|char| matches!(char, '"' | '\''));
        let Some(quote) = quote else {
            let word = self.while_is(|char| !char.is_whitespace() && char != '(' && char != ')');
            return if word.is_empty() { Err(self.form("a value")) } else { Ok(word.into()) };
        };
        let mut value = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                _ if char == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        Err(self.form("the quote that ends the value"))
    }

    /// Takes a keyword, if it is next.
    fn word(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(word) {
            Some(behind)
                if !behind.starts_with(|char: char| {
                    char.is_ascii_alphanumeric() || "_.=".contains(char)
                }) =>
            {
                self.rest = behind;
                true
            }
            _ => false,
        }
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        match self.rest.trim_start().strip_prefix(symbol) {
            Some(behind) => {
                self.rest = behind;
                true
            }
            None => false,
        }
    }

    fn while_is(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|char| !is(char)).unwrap_or(rest.len());
        self.rest = &rest[end..];
        &rest[..end]
    }

    fn form(&self, expected: &'static str) -> Error {
        let rest = self.rest.trim();
        let found = if rest.is_empty() { "the end".to_owned() } else { format!("`{rest}`") };
        Error::Form { text: self.text.into(), expected, found }
    }
}

fn test(field: &Field, operator: &str, value: &str) -> Result<Test, Error> {
    let wrong = |is, expected: String| Error::Value {
        field: field.name.to_string(),
        is,
        value: value.into(),
        expected,
    };
    let unfit = |is, expected| Error::Operator {
        field: field.name.to_string(),
        is,
        operator: operator.into(),
        expected,
    };
    let number = |size, signed| {
        let operator = order(operator).ok_or_else(|| unfit("a number", "= != < <= > >="))?;
        let value = integer(value)
            .ok_or_else(|| wrong("a number", "digits, or 0x and hexadecimal digits".into()))?;
        Ok(Test::Number(operator, value, Width { size, signed }))
    };
    if field.role != Role::Key {
        return Err(unfit(
            "a number that adds up",
            "none: only what a row is about can be compared",
        ));
    }
    let text = || matching(operator).ok_or_else(|| unfit("a text", "= != ~ ^= $="));
    match field.class() {
        Class::Unsigned(size) => number(size, false),
        Class::Signed(size) => number(size, true),
        Class::Text => Ok(Test::Text(text()?, value.as_bytes().into())),
        Class::List => Ok(Test::List(text()?, value.as_bytes().into())),
        Class::Histogram => Err(unfit("a histogram", "none: it cannot be compared")),
        Class::Name(names) => {
            let operator = order(operator)
                .filter(|operator| matches!(operator, Operator::Equal | Operator::NotEqual))
                .ok_or_else(|| unfit("one of several names", "= !="))?;
            let index = names.iter().position(|name| *name == value).ok_or_else(|| {
                let hint = nearest::hint(value, names.iter().copied());
                wrong("one of several names", format!("one of {}{hint}", names.join(", ")))
            })?;
            let index = i128::try_from(index).unwrap_or(i128::MAX);
            Ok(Test::Number(operator, index, Width { size: 1, signed: false }))
        }
        Class::Address => {
            let equal = match operator {
                "=" | "==" => true,
                "!=" => false,
                _ => return Err(unfit("an address", "= !=")),
            };
            let (network, bits) = network(value).ok_or_else(|| {
                wrong("an address", "an address, or a network such as 10.0.0.0/8".into())
            })?;
            Ok(Test::Network(network, bits, equal))
        }
    }
}

fn order(operator: &str) -> Option<Operator> {
    Some(match operator {
        "=" | "==" => Operator::Equal,
        "!=" => Operator::NotEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        _ => return None,
    })
}

fn matching(operator: &str) -> Option<Match> {
    Some(match operator {
        "=" | "==" => Match::Equal,
        "!=" => Match::NotEqual,
        "~" => Match::Contains,
        "^=" => Match::BeginsWith,
        "$=" => Match::EndsWith,
        _ => return None,
    })
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let value = match digits.get(..2) {
        Some("0x") => i128::from(u64::from_str_radix(&digits[2..], 16).ok()?),
        Some("0o") => i128::from(u64::from_str_radix(&digits[2..], 8).ok()?),
        _ => i128::from(digits.parse::<u64>().ok()?),
    };
    Some(sign * value)
}

/// An address or network, IPv4 mapped into IPv6, and the number of bits that count.
fn network(text: &str) -> Option<([u8; 16], u8)> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let (address, mapped) = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), 96),
        IpAddr::V6(address) => (address, 0),
    };
    let bits = match length {
        None => 128,
        Some(bits) => bits.parse::<u8>().ok()?.checked_add(mapped).filter(|bits| *bits <= 128)?,
    };
    Some((address.octets(), bits))
}
