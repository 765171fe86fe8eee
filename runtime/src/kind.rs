//! What events there are: the built-in catalogue, kinds known only at run time (tracepoints from
//! the configuration), and the enriched fields that every kind has.

mod reference;

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use tipstaff_events::{KINDS, Ring, Role, Type, catalogue::COMMON};

pub use reference::reference;

/// An event kind on this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Number in records and shared maps.
    pub id: u16,
    /// Name in manifests, JSON and the command line.
    pub name: Cow<'static, str>,
    /// What the event says and where it is taken.
    pub doc: Cow<'static, str>,
    /// Ring that its records travel in.
    pub ring: RingName,
    /// Size of the fixed part of its record, header included, in bytes.
    pub size: u16,
    /// All fields: those that every kind has, then its own, then the enriched ones.
    pub fields: Vec<Field>,
}

/// See [`tipstaff_events::Ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingName {
    /// fork, exec, exit.
    Life,
    /// Everything else.
    Bulk,
}

/// A field of a kind on this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name in manifests and JSON.
    pub name: Cow<'static, str>,
    /// Unit of a number, or what the number is; empty where the name says it.
    pub unit: Cow<'static, str>,
    /// What the value says.
    pub doc: Cow<'static, str>,
    /// Where the value comes from, and its type there.
    pub from: From,
    /// Bits in the kind's word of the map `WANTED` that make the probe collect it.
    pub wanted: u64,
    /// Bit in the header's `absent` that says that a record has no value; 0 if it always has.
    pub absent: u32,
    /// What it is in a row of an aggregated kind.
    pub role: Role,
}

/// Where a field's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The record, at this offset from its start.
    Record {
        /// Offset in bytes.
        offset: u16,
        /// Representation there.
        repr: Repr,
    },
    /// A table in memory.
    Table(Enriched),
}

/// Representation of a value in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repr {
    /// As in the catalogue.
    Wire(Type),
    /// A signed or unsigned integer of 1, 2, 4 or 8 bytes (tracepoints).
    Int {
        /// Size in bytes.
        size: u8,
        /// Whether it is signed.
        signed: bool,
    },
    /// A char array of this size, ended by a NUL if shorter (tracepoints).
    Chars(u16),
    /// A `__data_loc` or `__rel_loc` of a tracepoint: length and offset of bytes behind the fixed
    /// part, the offset counted from `base`, which is where the tracepoint's record starts.
    DataLoc {
        /// Offset of the tracepoint's own record from the start of ours.
        base: u16,
        /// `__rel_loc`: counted from behind the field itself.
        relative: bool,
    },
}

/// Fields read from tables in memory, never from the kernel while an event waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Enriched {
    /// Wall-clock time, from an offset measured when the batch closes.
    WallTime,
    /// How many events of the kind this one stands for.
    Weight,
    /// Executable of the event's process.
    ProcExe,
    /// Arguments of the event's process, each ended by a NUL.
    ProcArgs,
    /// Start of the event's process since boot.
    ProcStart,
    /// Pid of the parent process.
    ProcParentPid,
    /// Executable of the parent process.
    ProcParentExe,
    /// Executables of all ancestors, from the parent up, each ended by a NUL.
    ProcAncestors,
    /// Path of the v2 cgroup below its mount.
    CgroupPath,
    /// Container id, from the cgroup's path.
    ContainerId,
    /// Container runtime, from the cgroup's path.
    ContainerRuntime,
    /// Name of the user.
    UserName,
}

/// The type of a value as a policy, a predicate or JSON sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Unsigned, of this many bytes.
    Unsigned(u8),
    /// Signed, of this many bytes.
    Signed(u8),
    /// IPv6 or mapped IPv4.
    Address,
    /// A string.
    Text,
    /// Strings, each ended by a NUL.
    List,
    /// How many were in each of [`tipstaff_events::aggregate::BUCKETS`] ranges.
    Histogram,
    /// A number that stands for one of these names; can be asked for as text or as a number.
    Name(&'static [&'static str]),
}

/// As the documentation names the type.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(size) => write!(f, "u{}", u32::from(*size) * 8),
            Self::Signed(size) => write!(f, "i{}", u32::from(*size) * 8),
            Self::Address => f.write_str("address"),
            Self::Text => f.write_str("text"),
            Self::List => f.write_str("list"),
            Self::Histogram => f.write_str("histogram"),
            Self::Name(_) => f.write_str("name"),
        }
    }
}

impl Repr {
    /// The type as a policy sees it.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Wire(ty) => match ty {
                Type::U8 => Class::Unsigned(1),
                Type::U16 => Class::Unsigned(2),
                Type::U32 => Class::Unsigned(4),
                Type::U64 => Class::Unsigned(8),
                Type::I32 => Class::Signed(4),
                Type::I64 => Class::Signed(8),
                Type::Address => Class::Address,
                Type::Text | Type::Comm => Class::Text,
                Type::List => Class::List,
                Type::Histogram => Class::Histogram,
                Type::Name(names) => Class::Name(names),
            },
            Self::Int { size, signed: true } => Class::Signed(size),
            Self::Int { size, signed: false } => Class::Unsigned(size),
            Self::Chars(_) | Self::DataLoc { .. } => Class::Text,
        }
    }
}

impl Enriched {
    /// Name, class, unit and documentation of each enriched field, and what it needs of the record.
    pub const ALL: &[(Enriched, &'static str, Class, &'static str, &'static str, u64)] = {
        use tipstaff_events::catalogue::{WANT_CGROUP, WANT_CGROUP_V1, WANT_UID};
        const BOTH: u64 = WANT_CGROUP | WANT_CGROUP_V1;
        &[
            (
                Self::WallTime,
                "wall_time",
                Class::Unsigned(8),
                "ns since 1970",
                "Wall-clock time of the event.",
                0,
            ),
            (
                Self::Weight,
                "weight",
                Class::Unsigned(4),
                "events",
                "How many events this one stands for, where only a sample is taken; else 1.",
                0,
            ),
            (Self::ProcExe, "proc.exe", Class::Text, "", "Executable of the event's process.", 0),
            (Self::ProcArgs, "proc.args", Class::List, "", "Arguments of the event's process.", 0),
            (
                Self::ProcStart,
                "proc.start",
                Class::Unsigned(8),
                "ns since boot",
                "Start of the event's process; with the pid its key.",
                0,
            ),
            (
                Self::ProcParentPid,
                "proc.parent.pid",
                Class::Unsigned(4),
                "",
                "Pid of the parent process.",
                0,
            ),
            (
                Self::ProcParentExe,
                "proc.parent.exe",
                Class::Text,
                "",
                "Executable of the parent process.",
                0,
            ),
            (
                Self::ProcAncestors,
                "proc.ancestors",
                Class::List,
                "",
                "Executables of all ancestors, from the parent up.",
                0,
            ),
            (
                Self::CgroupPath,
                "cgroup.path",
                Class::Text,
                "",
                "Path of the v2 cgroup below its mount.",
                WANT_CGROUP,
            ),
            (
                Self::ContainerId,
                "container.id",
                Class::Text,
                "",
                "Container id, from the cgroup's path; on hybrid hosts also from that of v1.",
                BOTH,
            ),
            (
                Self::ContainerRuntime,
                "container.runtime",
                Class::Text,
                "",
                "Container runtime, from the cgroup's path: docker, containerd, cri-o or podman.",
                BOTH,
            ),
            (Self::UserName, "user.name", Class::Text, "", "Name of the event's user.", WANT_UID),
        ]
    };

    /// The type as a policy sees it.
    #[must_use]
    pub fn class(self) -> Class {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or(Class::Text, |entry| entry.2)
    }
}

impl Field {
    /// The type as a policy sees it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.from {
            From::Record { repr, .. } => repr.class(),
            From::Table(enriched) => enriched.class(),
        }
    }
}

impl Kind {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether its records are sums that are made at each tick, not events.
    #[must_use]
    pub fn is_aggregated(&self) -> bool {
        self.fields.iter().any(|field| field.role != Role::Key)
    }

    /// Whether it has a field of this name, or fields below it: `proc` has `proc.exe`.
    #[must_use]
    pub fn has_within(&self, name: &str) -> bool {
        self.fields.iter().any(|field| is_within(&field.name, name))
    }
}

/// Whether a field is the one of this name, or below it: `proc.parent.exe` is within `proc.parent` and
/// within `proc`, `process` is not.
#[must_use]
pub fn is_within(field: &str, name: &str) -> bool {
    field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The fields that every kind has: `head` from the record's header, then `own`, then the enriched.
fn with_common_fields(own: Vec<Field>) -> Vec<Field> {
    let mut fields: Vec<Field> = COMMON.iter().map(built_in_field).collect();
    fields.extend(own);
    fields.extend(Enriched::ALL.iter().map(|&(enriched, name, _, unit, doc, wanted)| Field {
        name: name.into(),
        unit: unit.into(),
        doc: doc.into(),
        from: From::Table(enriched),
        wanted,
        absent: 0,
        role: Role::Key,
    }));
    fields
}

fn built_in_field(field: &tipstaff_events::Field) -> Field {
    Field {
        name: field.name.into(),
        unit: field.unit.into(),
        doc: paragraph(field.doc).into(),
        from: From::Record { offset: field.offset, repr: Repr::Wire(field.ty) },
        wanted: field.wanted,
        absent: field.absent,
        role: field.role,
    }
}

fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// All kinds of this agent, by name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kinds(Arc<BTreeMap<u16, Arc<Kind>>>);

impl Kinds {
    /// The built-in kinds.
    #[must_use]
    pub fn built_in() -> Self {
        Self::with(Vec::new())
    }

    /// The built-in kinds and these, which are known only at run time. `fields` of the latter holds
    /// their own fields only; their names and numbers must be new.
    #[must_use]
    pub fn with(more: Vec<Kind>) -> Self {
        let built_in = KINDS.iter().map(|kind| Kind {
            id: kind.id,
            name: kind.name.into(),
            doc: paragraph(kind.doc).into(),
            ring: match kind.ring {
                Ring::Life => RingName::Life,
                Ring::Bulk => RingName::Bulk,
            },
            size: kind.size,
            fields: kind.fields.iter().map(built_in_field).collect(),
        });
        Self(Arc::new(
            built_in
                .chain(more)
                .map(|mut kind| {
                    kind.fields = with_common_fields(kind.fields);
                    (kind.id, Arc::new(kind))
                })
                .collect(),
        ))
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Kind>> {
        self.0.values().find(|kind| kind.name == name)
    }

    /// The kind of that number.
    #[must_use]
    pub fn get(&self, id: u16) -> Option<&Arc<Kind>> {
        self.0.get(&id)
    }

    /// All kinds, by ascending number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_common_and_the_enriched_fields() {
        for kind in Kinds::built_in().iter() {
            for name in ["time", "pid", "comm", "cgroup", "proc.exe", "user.name"] {
                assert!(kind.field(name).is_some(), "{}.{name}", kind.name);
            }
        }
    }
}
