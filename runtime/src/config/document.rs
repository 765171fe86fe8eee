//! A TOML file, read key by key against a list of keys. Not serde's way, because that stops at the
//! first problem and does not know the key's path: an operator wants all problems, with lines.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{Problem, Problems};
use crate::nearest::nearest;

/// A value and where it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Line in the file, from 1.
    pub line: usize,
}

/// A type that the value of a key can have.
pub trait Value: Sized {
    /// What is expected, for messages and the reference: "a string".
    fn expected() -> String;

    /// The value, or nothing and a problem in `reader`.
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;
}

/// A table with a fixed list of keys.
pub trait Section: Sized {
    /// What it is about.
    const ABOUT: &'static str;

    /// Its keys, in the order of the reference.
    fn keys() -> Vec<Key>;
}

/// A key of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value has to be.
    pub expected: String,
    /// The default, as TOML or in words; empty where there is none.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// A value in the file, with its path.
pub struct Node<'a> {
    /// Path of keys, for messages.
    pub key: String,
    /// The value.
    pub value: &'a DeValue<'a>,
    /// Where it is, in bytes.
    pub span: Range<usize>,
}

impl<'a> Node<'a> {
    fn child(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Self {
        let key =
            if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) };
        Self { key, value: value.get_ref(), span: value.span() }
    }

    /// The entries of a table: name, where it is, value.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Range<usize>, Self)> {
        let entries = self.value.as_table().into_iter().flatten();
        entries.map(|(name, value)| {
            (&**name.get_ref(), name.span(), self.child(name.get_ref(), value))
        })
    }

    /// The elements of an array.
    pub fn elements(&self) -> impl Iterator<Item = Self> {
        let elements = self.value.as_array().into_iter().flatten();
        elements.enumerate().map(|(index, value)| Self {
            key: format!("{}[{index}]", self.key),
            value: value.get_ref(),
            span: value.span(),
        })
    }
}

/// Reads a file and collects what is wrong.
pub struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<(usize, Problem)>,
}

impl<'a> Reader<'a> {
    /// Reads `text` as a `T`. All problems, or none and the value.
    pub fn read<T: Value>(file: &'a Path, text: &'a str) -> Result<T, Problems> {
        let mut reader = Self { file, text, problems: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            reader.problem(&span, "", format!("not TOML: {}", error.message()));
        }
        let mut value = None;
        // What was guessed after a syntax error is not worth a message.
        if reader.problems.is_empty() {
            let span = table.span();
            let root = DeValue::Table(table.into_inner());
            value = T::read(&Node { key: String::new(), value: &root, span }, &mut reader);
        }
        reader.problems.sort_by_key(|(at, _)| *at);
        match value {
            Some(value) if reader.problems.is_empty() => Ok(value),
            _ => Err(Problems(reader.problems.into_iter().map(|(_, problem)| problem).collect())),
        }
    }

    /// Adds a problem.
    pub fn problem(&mut self, at: &Range<usize>, key: &str, message: String) {
        let line = Some(self.line(at.start));
        self.problems.push((
            at.start,
            Problem { file: self.file.to_owned(), line, key: key.to_owned(), message },
        ));
    }

    /// Adds "expected one thing, found another".
    pub fn mismatch<T: Value>(&mut self, node: &Node<'_>) {
        let message = format!("expected {}, found {}", T::expected(), describe(node.value));
        self.problem(&node.span, &node.key, message);
    }

    /// Reads a value and notes its line.
    pub fn at<T: Value>(&mut self, node: &Node<'_>) -> Option<At<T>> {
        let line = self.line(node.span.start);
        T::read(node, self).map(|value| At { value, line })
    }

    /// Checks that `node` is a table that holds none but these keys, and gives its entries by name.
    pub fn table<'n>(
        &mut self,
        node: &Node<'n>,
        keys: &[Key],
    ) -> Option<BTreeMap<&'n str, Node<'n>>> {
        if !node.value.is_table() {
            let message = format!("expected a table, found {}", describe(node.value));
            self.problem(&node.span, &node.key, message);
            return None;
        }
        let names = || keys.iter().map(|key| key.name);
        let mut known = BTreeMap::new();
        for (name, span, entry) in node.entries() {
            if names().any(|known| known == name) {
                known.insert(name, entry);
                continue;
            }
            let message = match nearest(name, names()) {
                Some(near) => format!("unknown key; the nearest is `{near}`"),
                None => format!("unknown key, expected one of {}", quoted(names())),
            };
            self.problem(&span, &entry.key, message);
        }
        Some(known)
    }

    /// The line of a place in the file, from 1.
    pub fn line(&self, at: usize) -> usize {
        line(&self.text.as_bytes()[..at.min(self.text.len())])
    }
}

/// The line in which these bytes end, from 1.
pub fn line(before: &[u8]) -> usize {
    before.split(|&byte| byte == b'\n').count()
}

/// `a`, `b` or `c`: names for a message.
pub fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What a value is, for "found ...".
pub fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(integer) => format!("the integer {integer}"),
        DeValue::Float(float) => format!("the number {float}"),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Writes a section once: from here come what was typed ([`Section`], every value optional, with its
/// line), its reader, and the reference.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ #[default($default:literal)] pub $field:ident: $ty:ty,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: Option<At<$ty>>,)+
        }

        impl Section for $name {
            const ABOUT: &'static str = concat!($($about),+);

            fn keys() -> Vec<Key> {
                vec![$(Key {
                    name: stringify!($field),
                    expected: <$ty as Value>::expected(),
                    default: $default,
                    doc: concat!($($doc),+),
                }),+]
            }
        }

        impl Value for $name {
            fn expected() -> String {
                "a table".to_owned()
            }

            fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                let entries = reader.table(node, &Self::keys())?;
                Some(Self { $($field: entries.get(stringify!($field)).and_then(|node| reader.at(node)),)+ })
            }
        }
    };
}

pub(super) use section;
