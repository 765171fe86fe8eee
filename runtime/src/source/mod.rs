//! Where records come from: the kernel's rings, or a file of JSON Lines events.
//!
//! Both hand out the same records, so everything behind this trait is tested without a kernel.

pub mod encode;
mod handover;
pub mod jsonl;
pub(crate) mod records;
mod rings;

use std::{os::fd::BorrowedFd, time::Duration};

use crate::{kind::Enriched, queue::Cause};

pub use handover::Handover;
pub use jsonl::Jsonl;
pub use rings::Rings;

/// Where records come from.
pub trait Source: Send {
    /// Hands out what is waiting, the life ring first, then urgent, then bulk, and `most` items of
    /// each ring at most. Never blocks.
    fn drain(&mut self, most: usize, each: &mut impl FnMut(Item<'_>)) -> Drained;

    /// Blocks until something is waiting, `waker` becomes readable, or `timeout` has passed.
    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration);

    /// Blocks until `timeout` has passed, `waker` becomes readable, or something urgent is waiting: in
    /// the urgent ring, or with `life` in the life ring. Where nothing happens while it is read nothing
    /// is urgent.
    fn wait_for_urgent(&mut self, waker: BorrowedFd<'_>, timeout: Duration, life: bool) {
        let _ = (waker, life);
        std::thread::sleep(timeout);
    }

    /// Whether there is something that [`Self::drain`] could not hand out yet: a probe has begun a
    /// record and not ended it, and those behind it wait too.
    fn has_unfinished(&self) -> bool;

    /// Hands out how many events were lost so far, by kind and cause, in totals since the source
    /// was opened. Totals of 0 may be left out.
    fn losses(&mut self, each: &mut impl FnMut(u16, Cause, u64));

    /// Whether the events happen while they are read. Only then do the clocks, `/proc`, the cgroup
    /// tree and the list of users of this machine say something about them.
    fn is_live(&self) -> bool;
}

/// What a source hands out.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// An event, as a probe wrote it.
    Record(&'a [u8]),
    /// An event for which values of enriched fields are known already.
    Enriched(&'a [u8], &'a Given),
    /// Events of one kind that were lost here.
    Lost(Lost),
    /// All records of an aggregated kind for the tick at this time were handed out.
    Tick(u16, u64),
}

/// What a call of [`Source::drain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Number of items handed out.
    pub items: usize,
    /// Whether nothing was waiting any more when each ring was last looked at.
    pub all: bool,
    /// Whether an urgent event was there that is to be handed out after a life event that came since.
    pub holds_urgent: bool,
    /// Time of the newest record of the ring that is drained last; 0: none came from it.
    pub newest_in_bulk: u64,
    /// Whether there will never be more.
    pub ended: bool,
}

/// Events of one kind that were lost before they came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Number of the kind.
    pub kind: u16,
    /// How many.
    pub count: u64,
    /// Not before this time.
    pub first_ns: u64,
    /// Not after this time.
    pub last_ns: u64,
    /// Where they were lost.
    pub cause: Cause,
}

/// Values of enriched fields that came with an event and go before any table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given(Vec<(Enriched, GivenValue)>);

/// A value in [`Given`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenValue {
    /// A number.
    Number(u64),
    /// A text, or a list whose entries each end with a NUL.
    Bytes(Vec<u8>),
}

impl Given {
    /// Adds a value.
    pub fn set(&mut self, field: Enriched, value: GivenValue) {
        self.0.retain(|(other, _)| *other != field);
        self.0.push((field, value));
    }

    /// The value of that field, if it is given.
    #[must_use]
    pub fn get(&self, field: Enriched) -> Option<&GivenValue> {
        self.0.iter().find(|(other, _)| *other == field).map(|(_, value)| value)
    }

    /// Whether no value is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
