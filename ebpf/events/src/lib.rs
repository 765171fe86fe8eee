//! The catalogue: every built-in event kind, its fields, units and documentation, and the layout
//! of its record in the ring buffer.
//!
//! [`catalogue`] is the one place where a kind is written. From it come the structs that the eBPF
//! programs fill in, the description that the runtime decodes by, `docs/events.md` and
//! `tipstaff events --list`. [`wire`] holds what all records share,
//! [`filter`] which of them are let through, [`sample`] how many of those, [`budget`] how many of one
//! cgroup, [`guard`] what the rules of
//! guardrails are in the kernel.
#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod describe;
pub mod aggregate;
pub mod budget;
pub mod catalogue;
pub mod dns;
pub mod filter;
pub mod guard;
pub mod sample;
pub mod tracepoint;
pub mod wire;

pub use catalogue::KINDS;

/// An event kind as the catalogue describes it.
#[derive(Debug)]
pub struct Kind {
    /// Number of the kind in records and in the shared maps, below [`wire::FIRST_RUNTIME_KIND`].
    pub id: u16,
    /// Name in manifests, JSON and the command line.
    pub name: &'static str,
    /// What the event says and where it is taken.
    pub doc: &'static [&'static str],
    /// Ring that its records travel in, unless an enforcing policy waits for them.
    pub ring: Ring,
    /// Size of the fixed part of its record, header included, in bytes.
    pub size: u16,
    /// The kind's own fields. The fields that every kind has are [`catalogue::COMMON`].
    pub fields: &'static [Field],
}

/// A field of a kind.
#[derive(Debug)]
pub struct Field {
    /// Name in manifests and JSON.
    pub name: &'static str,
    /// Type on the wire.
    pub ty: Type,
    /// Unit of a number, or what the number is; empty where the name says it.
    pub unit: &'static str,
    /// What the value says.
    pub doc: &'static [&'static str],
    /// Offset from the start of the record, in bytes.
    pub offset: u16,
    /// Bit in the kind's word of [`wire::WANTED`]; 0 for what is always there at no cost.
    pub wanted: u64,
    /// Bit in [`wire::Header::absent`] that says that this record has no value; 0 if it always has.
    pub absent: u32,
    /// What it is in a row of an aggregated kind.
    pub role: Role,
}

/// What a field is in a row of an aggregated kind. In other kinds every field is a [`Role::Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the row is about: what a subscription asks for tells its rows apart.
    Key,
    /// Added up over everything that the row is about.
    Sum,
    /// The least value of everything that the row is about.
    Least,
    /// The greatest.
    Greatest,
}

impl Kind {
    /// Whether its records are sums that are made at each tick, not events.
    #[must_use]
    pub fn is_aggregated(&self) -> bool {
        self.fields.iter().any(|field| field.role != Role::Key)
    }
}

/// The type of a field on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// One byte, unsigned.
    U8,
    /// Two bytes, unsigned.
    U16,
    /// Four bytes, unsigned.
    U32,
    /// Eight bytes, unsigned.
    U64,
    /// Four bytes, signed.
    I32,
    /// Eight bytes, signed.
    I64,
    /// An IPv6 address, or an IPv4 address mapped into one, in network order: 16 bytes.
    Address,
    /// A kernel string: a [`wire::Text`] that points at bytes behind the fixed part.
    Text,
    /// Several kernel strings, each ended by a NUL: a [`wire::Text`] that points at all of them.
    List,
    /// How many of something were in each of [`aggregate::BUCKETS`] ranges: a [`wire::Text`] that points
    /// at so many numbers of 8 bytes, little-endian. Number n counts from 2^n to below 2^(n+1); number 0
    /// also 0, the last one also everything above.
    Histogram,
    /// The command name of a thread: 16 bytes, ended by a NUL if shorter.
    Comm,
    /// One byte, the index of a name in this list.
    Name(&'static [&'static str]),
}

impl Type {
    /// Size of the field in the fixed part of the record, in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::Name(_) => 1,
            Self::U16 => 2,
            Self::U32 | Self::I32 | Self::Text | Self::List | Self::Histogram => 4,
            Self::U64 | Self::I64 => 8,
            Self::Address | Self::Comm => 16,
        }
    }
}

/// The ring buffer that a kind's records travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// fork, exec and exit: small, drained first, so that a flood never corrupts the process table.
    Life,
    /// Everything else.
    Bulk,
}

/// Index of `name` in the names of a [`Type::Name`], for constants.
///
/// # Panics
/// If it is not there: a build error where the result is a constant.
#[must_use]
pub const fn index(names: &[&str], name: &str) -> u8 {
    let mut at = 0;
    while at < names.len() {
        if equal(names[at].as_bytes(), name.as_bytes()) {
            #[expect(clippy::cast_possible_truncation, reason = "no list has 256 names")]
            return at as u8;
        }
        at += 1;
    }
    panic!("no such name in the list")
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}
