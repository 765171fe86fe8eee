//! What a policy says of itself: name, version, subscriptions, and the settings it takes.
//!
//! The manifest is TOML, from a hostile guest: size and numbers are limited, unknown keys and types
//! are refused.
//!
//! ```toml
//! name = "exec-audit"
//! version = "0.1.0"
//! tick = "1s"
//!
//! [[subscribe]]
//! event = "exec"
//! fields = ["path:text", "uid:u32", "proc.parent.exe:text?"]
//!
//! [[setting]]
//! name = "shells"
//! type = "texts"
//! doc = "File names that count as a shell."
//! default = ["sh", "bash"]
//! ```

use std::fmt;

use tipstaff_events::sample::Sample;

mod parse;
mod settings;

pub use parse::{
    MAX_FIELDS, MAX_OPTIONAL, MAX_SETTINGS, MAX_SUBSCRIPTIONS, MAX_TEXT, ManifestError,
};
pub use settings::SettingError;

/// A policy's manifest, parsed and checked in itself (not yet against the kinds of this agent).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Name: `[a-z][a-z0-9-]*`, 64 bytes at most.
    pub name: String,
    /// Version, as the author writes it.
    pub version: String,
    /// What it wants to be told, in order: the index is the one in each row.
    pub subscriptions: Vec<Subscription>,
    /// The settings that it takes.
    pub settings: Vec<Setting>,
    /// Time between two calls of `on-tick`, where the policy exports it.
    pub tick_ns: Option<u64>,
}

/// What a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Name of the event kind.
    pub event: String,
    /// Whether the policy runs without this kind.
    pub optional: bool,
    /// The fields, in the order of the row.
    pub fields: Vec<Ask>,
    /// Which events of the kind, as `--where` takes it; `None`: all. The key `where`.
    pub condition: Option<String>,
    /// Time between two rows of the same keys, for an aggregated kind.
    pub every_ns: Option<u64>,
    /// Whether its rows are delivered at once, alone and out of order if need be.
    pub urgent: bool,
    /// How many of the events it gets. The keys `sample` and `sample_by`.
    pub sample: Sample,
}

impl Subscription {
    /// These fields of all events of a kind.
    #[must_use]
    pub fn new(event: impl Into<String>, fields: Vec<Ask>) -> Self {
        Self {
            event: event.into(),
            optional: false,
            fields,
            condition: None,
            every_ns: None,
            urgent: false,
            sample: Sample::ALL,
        }
    }
}

/// One field that a policy asks for: `NAME:TYPE` or `NAME:TYPE?`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Name of the field.
    pub name: String,
    /// Type in the row.
    pub ty: AskType,
    /// Whether the policy runs without it: it has a bit in the row's `absent` mask.
    pub optional: bool,
}

/// Type of a field in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AskType {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
    /// Four bytes, signed.
    I32,
    /// Eight bytes, signed.
    I64,
    /// 16 bytes: IPv6 or mapped IPv4, in network order.
    Address,
    /// UTF-8; invalid bytes become U+FFFD.
    Text,
    /// Exact bytes.
    Bytes,
}

impl AskType {
    /// Every type with its name in a manifest.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::U8, "u8"),
        (Self::U16, "u16"),
        (Self::U32, "u32"),
        (Self::U64, "u64"),
        (Self::I32, "i32"),
        (Self::I64, "i64"),
        (Self::Address, "address"),
        (Self::Text, "text"),
        (Self::Bytes, "bytes"),
    ];

    /// Size in the fixed part of a row, in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 | Self::Text | Self::Bytes => 8,
            Self::Address => 16,
        }
    }

    /// Alignment in a row, in bytes.
    #[must_use]
    pub const fn align(self) -> usize {
        match self {
            Self::Text | Self::Bytes => 4,
            Self::Address => 8,
            other => other.size(),
        }
    }
}

impl fmt::Display for AskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(ty, _)| ty == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// A setting that a policy takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Key in `[policy.NAME.settings]`.
    pub name: String,
    /// Type of the value.
    pub ty: SettingType,
    /// What it does.
    pub doc: String,
    /// Value where the operator gives none, as TOML; `None`: the operator must give one.
    pub default: Option<String>,
}

/// Type of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingType {
    /// A string.
    Text,
    /// A signed integer.
    Integer,
    /// A floating-point number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array of strings.
    Texts,
    /// An array of integers.
    Integers,
}

impl SettingType {
    /// Every type with its name in a manifest and an example in TOML.
    pub const ALL: &[(Self, &'static str, &'static str)] = &[
        (Self::Text, "text", r#""a string""#),
        (Self::Integer, "integer", "7"),
        (Self::Number, "number", "0.5"),
        (Self::Boolean, "boolean", "true"),
        (Self::Texts, "texts", r#"["a", "b"]"#),
        (Self::Integers, "integers", "[1, 2]"),
    ];
}

impl fmt::Display for SettingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|entry| entry.0 == *self).map_or("", |entry| entry.1);
        f.write_str(name)
    }
}
