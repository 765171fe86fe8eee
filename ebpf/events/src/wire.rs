//! What all records share: the header, the texts behind the fixed part, and the maps.
//!
//! A record is the kind's struct (which begins with a [`Header`]), then the bytes of its texts.
//! All numbers are in the byte order of the machine.

/// First kind number that the runtime gives to kinds known only at run time.
pub const FIRST_RUNTIME_KIND: u16 = 64;
/// Number of kinds, built-in and known only at run time: the length of [`WANTED`].
pub const MAX_KINDS: u16 = 128;

/// Map, array of u64 by kind: what is wanted of it right now. 0: nothing, the program returns.
pub const WANTED: &str = "WANTED";
/// Map, array of u64 by `kind * CAUSES + cause`: events lost in the kernel, added to atomically.
pub const LOST: &str = "LOST";
/// Map, array of [`crate::filter::Filter`] by `kind * FILTER_SLOTS + slot`: which records are let
/// through. The slot that is in force ([`FILTER_SLOT_BIT`]) is never written.
pub const FILTER: &str = "FILTER";
/// Map, array of u64 by kind for each CPU: records that passed a filter which samples events.
pub const SAMPLED: &str = "SAMPLED";
/// Map, hash of thread group id to [`HIDE`] or [`HIDE_CHILDREN`]: processes whose events are not reported.
pub const HIDDEN: &str = "HIDDEN";
/// Value in [`HIDDEN`]: the process.
pub const HIDE: u8 = 1;
/// Value in [`HIDDEN`]: the process and its children, from their first moment.
pub const HIDE_CHILDREN: u8 = 2;
/// Map, ring buffer of kinds whose [`crate::Ring`] is `Bulk`.
pub const BULK: &str = "BULK";
/// Map, ring buffer of kinds whose [`crate::Ring`] is `Life`.
pub const LIFE: &str = "LIFE";
/// Map, ring buffer of kinds on which an enforcing policy waits ([`URGENT_BIT`]).
pub const URGENT: &str = "URGENT";

/// Bit of a word in [`WANTED`]: the kind is wanted at all.
pub const ON_BIT: u64 = 1 << 63;
/// Bit of a word in [`WANTED`]: its records travel in [`URGENT`].
pub const URGENT_BIT: u64 = 1 << 62;
/// Bit of a word in [`WANTED`]: records pass only if they pass the filter.
pub const FILTER_BIT: u64 = 1 << 61;
/// Bit of a word in [`WANTED`]: which of the kind's filters is in force.
pub const FILTER_SLOT_BIT: u64 = 1 << 60;
/// Bit of a word in [`WANTED`]: its records pass only while their cgroup's [`crate::budget`] lasts.
pub const BUDGET_BIT: u64 = 1 << 59;
/// Filters of each kind in [`FILTER`].
pub const FILTER_SLOTS: u16 = 2;
/// First bit of the fields that every kind has; the kind's own fields have bits 0 to 31.
pub const COMMON_SHIFT: u32 = 32;

/// Number of causes per kind in [`LOST`].
pub const CAUSES: u16 = 5;
/// Cause: the ring buffer had no room.
pub const LOST_RING: u16 = 0;
/// Cause: the program could not run or finish (no scratch buffer left, nested too deeply).
pub const LOST_MISSED: u16 = 1;
/// Cause: a map that holds what is in flight was full.
pub const LOST_MAP: u16 = 2;
/// Cause: the budget of the cgroup was spent.
pub const LOST_CGROUP_BUDGET: u16 = 3;
/// Cause: it was left out to save the agent's time.
pub const LOST_AGENT_BUDGET: u16 = 4;

/// Longest path or other single text in a record, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Longest list of arguments in a record, in bytes, NULs included.
pub const MAX_ARGS: usize = 8192;

/// What every record begins with: 64 bytes.
///
/// Fields that were not asked for are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub time: u64,
    /// Id of the cgroup in the v2 hierarchy.
    pub cgroup: u64,
    /// Id of the cgroup in the v1 memory hierarchy; 0 where there is none.
    pub cgroup_v1: u64,
    /// Process (thread group) in the initial pid namespace.
    pub pid: u32,
    /// Thread in the initial pid namespace.
    pub tid: u32,
    /// Process in its own pid namespace.
    pub ns_pid: u32,
    /// Real user in the initial user namespace.
    pub uid: u32,
    /// Command name of the thread.
    pub comm: [u8; 16],
    /// Number of the kind.
    pub kind: u16,
    /// By how much the kernel has thinned the kind: a [`crate::sample::Sample`] as a number.
    pub sample: u16,
    /// Bit n: the kind's n-th own field has no value in this record.
    pub absent: u32,
}

const _: () = assert!(size_of::<Header>() == 64);

/// Where in the record the bytes of a text are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Offset from the start of the record, in bytes.
    pub offset: u16,
    /// Length in bytes; the highest bit ([`Text::CUT`]) says that the kernel's value was longer.
    pub length: u16,
}

impl Text {
    /// Bit of `length`: the value was cut.
    pub const CUT: u16 = 1 << 15;

    /// A text of `length` bytes at `offset`.
    #[must_use]
    pub const fn new(offset: u16, length: u16, cut: bool) -> Self {
        Self { offset, length: length | if cut { Self::CUT } else { 0 } }
    }

    /// Length in bytes, without the flag.
    #[must_use]
    pub const fn len(self) -> u16 {
        self.length & !Self::CUT
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether the kernel's value was longer than what the record holds.
    #[must_use]
    pub const fn is_cut(self) -> bool {
        self.length & Self::CUT != 0
    }
}

/// Processes that are hidden at the same time: the agent and its children.
pub const MAX_HIDDEN: u32 = 1024;
/// A number of the kernel's types that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;
