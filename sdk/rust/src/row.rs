//! Rows: how a batch is taken apart.
//!
//! Everything is read from slices at constant offsets, without `unsafe` and without casts, because
//! a batch may lie at any address. A malformed batch (a bug of the agent) panics.

/// Bytes of a row's header.
pub const HEADER: usize = 16;
/// Flag of a row that is not an event.
const NOT_AN_EVENT: u8 = 0x80;

/// The rows of a batch.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    batch: &'a [u8],
    at: usize,
}

impl<'a> Rows<'a> {
    /// The rows of `batch`.
    #[must_use]
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { batch, at: 0 }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    #[inline]
    fn next(&mut self) -> Option<Row<'a>> {
        let rest = &self.batch[self.at..];
        let words: usize = u16::from_le_bytes(*rest.get(12..)?.first_chunk()?).into();
        assert!(words >= HEADER / 8, "row shorter than its header");
        let bytes = &rest[..words * 8];
        self.at += words * 8;
        Some(Row { batch: self.batch, bytes })
    }
}

/// One row of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    batch: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Row<'a> {
    /// The first `size` bytes: header and fixed part.
    #[inline]
    #[must_use]
    pub fn fixed(self, size: usize) -> Fixed<'a> {
        Fixed { batch: self.batch, bytes: &self.bytes[..size] }
    }

    #[inline]
    fn head(self) -> &'a [u8; HEADER] {
        self.bytes.first_chunk().expect("Rows checks the length")
    }

    /// Time of the event, in nanoseconds on the kernel's monotonic clock.
    #[inline]
    #[must_use]
    pub fn time_ns(self) -> u64 {
        self.fixed(HEADER).u64(0)
    }

    /// Index of the subscription in the manifest.
    #[inline]
    #[must_use]
    pub fn subscription(self) -> u8 {
        self.head()[14]
    }

    /// What is special about the row.
    #[inline]
    #[must_use]
    pub fn flags(self) -> Flags {
        Flags(self.head()[15])
    }

    /// Whether the row is an event. Others are to be skipped where they are not understood.
    #[inline]
    #[must_use]
    pub fn is_event(self) -> bool {
        self.head()[15] & NOT_AN_EVENT == 0
    }

    /// What was lost, if this row says so. `kinds` are the kinds of the subscriptions.
    #[must_use]
    pub fn gap(self, kinds: &[&'static str]) -> Option<Gap> {
        if self.is_event() || self.bytes.len() < HEADER + 20 {
            return None;
        }
        let fixed = self.fixed(HEADER + 20);
        Some(Gap {
            kind: kinds[usize::from(self.subscription())],
            lost: fixed.u64(HEADER),
            first_ns: self.time_ns(),
            last_ns: fixed.u64(HEADER + 8),
            cause: fixed.u32(HEADER + 16),
        })
    }
}

/// Header and fixed part of a row, cut once to a constant length so that reads at constant offsets
/// need no check.
#[derive(Clone, Copy, Debug)]
pub struct Fixed<'a> {
    batch: &'a [u8],
    bytes: &'a [u8],
}

macro_rules! numbers {
    ($($ty:ident)+) => { $(
        #[doc = concat!("The `", stringify!($ty), "` at `offset`.")]
        #[inline]
        #[must_use]
        pub fn $ty(self, offset: usize) -> $ty {
            $ty::from_le_bytes(self.array(offset))
        }
    )+ };
}

impl<'a> Fixed<'a> {
    numbers! { u8 u16 u32 u64 i32 i64 }

    /// The `N` bytes at `offset`.
    #[inline]
    #[must_use]
    pub fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        *self.bytes[offset..].first_chunk().expect("the layout ends inside the fixed part")
    }

    /// The bytes that the offset and the length at `offset` point at.
    #[inline]
    #[must_use]
    pub fn bytes(self, offset: usize) -> &'a [u8] {
        let (start, length) = (self.u32(offset) as usize, self.u32(offset + 4) as usize);
        &self.batch[start..][..length]
    }

    /// Whether the optional field of this number has a value.
    #[inline]
    #[must_use]
    pub fn is_present(self, bit: u32) -> bool {
        self.u32(8) & (1 << bit) == 0
    }
}

/// What is special about a row. A field of this type with `#[event(flags)]` receives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// A text was longer than what the agent keeps.
    #[must_use]
    pub const fn cut(self) -> bool {
        self.0 & 1 != 0
    }

    /// A number was larger than its field and stands at its maximum.
    #[must_use]
    pub const fn clipped(self) -> bool {
        self.0 & 2 != 0
    }

    /// The event happened before one that was delivered earlier.
    #[must_use]
    pub const fn late(self) -> bool {
        self.0 & 4 != 0
    }
}

/// Events that were lost: "quiet" and "blind" are never the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Kind of the events.
    pub kind: &'static str,
    /// How many.
    pub lost: u64,
    /// Not before this time, in nanoseconds on the kernel's monotonic clock.
    pub first_ns: u64,
    /// Not after this time.
    pub last_ns: u64,
    /// Where: 1 ring full, 2 program missed, 3 map full, 4 queue of this policy full, 5 budget of a
    /// cgroup spent, 6 instance of this policy lost, 7 left out to save the agent's time (not told to
    /// who asks for `weight`). There may be more.
    pub cause: u32,
}
