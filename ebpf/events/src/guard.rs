//! What the maps of a network guard hold, and how its programs decide by them: the same function that
//! runs in the kernel is tested on the host.
//!
//! Each guard (a cgroup and a policy's table) has maps of its own. The table is compiled by the host
//! into a [`Node`] for each prefix: the rules that can match an address there, in the order in which
//! they go before each other. So one look-up of the longest prefix is enough.
#![expect(clippy::inline_always, reason = "eBPF: one function with few registers")]

/// Map, array of u64: the words below.
pub const CONTROL: &str = "CONTROL";
/// Word in [`CONTROL`]: generation of the table in force, and [`DENY_BIT`] if its default is to deny; 0:
/// there is no table yet, and all is allowed.
pub const TABLE: u32 = 0;
/// Word in [`CONTROL`]: [`ENFORCE`], or 0: nothing is denied, what would be is counted and told.
pub const MODE: u32 = 1;
/// Word in [`CONTROL`]: until when the table counts at all, in nanoseconds of the clock that counts
/// suspend; 0: for ever.
pub const DEADMAN: u32 = 2;
/// Word in [`CONTROL`]: number of the guard, for records.
pub const GUARD: u32 = 3;
/// Word in [`CONTROL`]: id of its cgroup, for records.
pub const SCOPE: u32 = 4;
/// Length of [`CONTROL`].
pub const WORDS: u32 = 5;

/// Bit of the word [`TABLE`].
pub const DENY_BIT: u64 = 1 << 63;
/// Value of the word [`MODE`].
pub const ENFORCE: u64 = 1;

/// Map, longest-prefix trie of [`Place`] to [`Node`]. Holds two generations while one is made.
pub const NODES: &str = "NODES";
/// Most rules of a table, the operator's exceptions included.
pub const MAX_RULES: u16 = 16_384;
/// Entries of [`NODES`]: a node for each rule and one for the default, in two generations.
pub const MAX_NODES: u32 = 2 * (MAX_RULES as u32 + 1);

/// Map, array of [`Count`], two parts of [`COUNTS_OF_TABLE`]: generations that follow each other use
/// different ones.
pub const COUNTS: &str = "COUNTS";
/// Length of a part: one for each rule, by its index; the last one is for [`BY_DEFAULT`].
pub const COUNTS_OF_TABLE: u32 = MAX_RULES as u32 + 1;

/// Index of a rule that stands for the table's default, in maps.
pub const BY_DEFAULT: u16 = MAX_RULES;
/// The same in records.
pub const DEFAULT_IN_RECORD: u32 = u32::MAX;

/// Most records of one rule (or default) in one second; those above are counted and not made.
pub const RECORDS_PER_SECOND: u64 = 100;

/// Map, hash of [`Peer`] to u64: until when connecting and sending there is not denied, in nanoseconds of
/// the clock that counts suspend; what is there lifts the table's default alone, or with [`WHATEVER`] all
/// that the table says. For addresses of names that the table allows, the servers that are asked for
/// these, and the proxy.
pub const KNOWN: &str = "KNOWN";
/// Entries of [`KNOWN`].
pub const MAX_KNOWN: u32 = 8_192;
/// Bit of a value of [`KNOWN`]: not even a rule denies it.
pub const WHATEVER: u64 = 1 << 63;

/// A key of [`KNOWN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In network order; IPv4 mapped into IPv6.
    pub address: [u8; 16],
    /// 0: every port.
    pub port: u64,
}

/// Whether an entry of [`KNOWN`] lifts the denial by this rule.
#[inline(always)]
#[must_use]
pub fn lifts(value: u64, rule: u16, now: u64) -> bool {
    now < value & !WHATEVER && (rule == BY_DEFAULT || value & WHATEVER != 0)
}

/// Bit of [`Entry::what`]: connecting.
pub const CONNECT: u16 = 1;
/// Bit of [`Entry::what`]: sending to an address.
pub const SEND: u16 = 2;
/// Bit of [`Entry::what`]: binding.
pub const BIND: u16 = 4;
/// Bit of [`Entry::what`]: a socket of TCP.
pub const TCP: u16 = 8;
/// Bit of [`Entry::what`]: a socket of UDP.
pub const UDP: u16 = 16;
/// Bit of [`Entry::what`]: a socket of another protocol.
pub const OTHER: u16 = 32;
/// Bit of [`Entry::what`]: what matches is denied.
pub const DENY: u16 = 64;

/// Where a node is: a key of [`NODES`] behind its length in bits, which is [`GENERATION_BITS`] more than
/// that of the prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The generation that the node belongs to.
    pub generation: u64,
    /// The address, in network order; IPv4 mapped into IPv6.
    pub address: [u8; 16],
}

/// Bits of a [`Place`] before the address.
pub const GENERATION_BITS: u32 = 64;
/// Bits of a [`Place`].
pub const PLACE_BITS: u32 = GENERATION_BITS + 128;

/// A rule as it counts at some prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Until when, in nanoseconds of the clock that counts suspend; 0: for ever.
    pub expires: u64,
    /// Index of the rule, or [`BY_DEFAULT`].
    pub rule: u16,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// Operations and protocols that match, and the verdict; 0 matches nothing.
    pub what: u16,
}

/// Most entries of a node: as many as fit, with what the kernel adds, into 512 bytes of its memory.
pub const NODE_ENTRIES: usize = 24;

/// What goes for the addresses of a prefix, unless a longer prefix has a node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The first one that matches and has not expired decides.
    pub entries: [Entry; NODE_ENTRIES],
}

/// Bytes of an [`Entry`] in the map.
pub const ENTRY_BYTES: usize = size_of::<Entry>();
/// Bytes of a [`Node`] in the map.
pub const NODE_BYTES: usize = size_of::<Node>();

// Nothing is padding.
const _: () = assert!(ENTRY_BYTES == 16 && NODE_BYTES == 16 * NODE_ENTRIES);

impl Node {
    /// The entry that decides: an operation and a protocol (a bit of each), a port, the time (which is
    /// asked for only if something can expire). None: no entry is about it.
    #[inline(always)]
    pub fn find(&self, asked: u16, port: u16, now: impl Fn() -> u64) -> Option<&Entry> {
        let mut index = 0;
        while index < NODE_ENTRIES {
            let entry = &self.entries[index];
            if entry.what & asked == asked
                && entry.first <= port
                && port <= entry.last
                && (entry.expires == 0 || now() < entry.expires)
            {
                return Some(entry);
            }
            index += 1;
        }
        None
    }

    /// As the kernel reads it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; NODE_BYTES] {
        let mut bytes = [0; NODE_BYTES];
        for (entry, to) in self.entries.iter().zip(bytes.chunks_exact_mut(ENTRY_BYTES)) {
            to[..8].copy_from_slice(&entry.expires.to_ne_bytes());
            for (number, to) in [entry.rule, entry.first, entry.last, entry.what]
                .iter()
                .zip(to[8..].chunks_exact_mut(2))
            {
                to.copy_from_slice(&number.to_ne_bytes());
            }
        }
        bytes
    }
}

impl Entry {
    /// Whether what matches is denied.
    #[inline(always)]
    #[must_use]
    pub fn denies(&self) -> bool {
        self.what & DENY != 0
    }
}

/// What happened under a rule. All but the window is added to atomically and never goes back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations that were denied.
    pub denied: u64,
    /// Operations that would have been, in audit.
    pub would_deny: u64,
    /// Records of these that were wanted and not made, for there were [`RECORDS_PER_SECOND`] already.
    pub suppressed: u64,
    /// The second of the last record.
    pub second: u64,
    /// Records in that second, about: CPUs that meet here may count one twice, or together once.
    pub records: u64,
}

/// Bytes of a [`Count`] in the map.
pub const COUNT_BYTES: usize = size_of::<Count>();
