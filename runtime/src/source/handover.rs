//! Records that this process makes itself, on their way to the reader: readings of aggregated kinds, and
//! what is seen in user space (DNS queries). Many may put records in; the reader takes them as it takes
//! those of a ring, and never waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Item, records::Records};
use crate::{clock, queue::Cause, waker::Waker};

/// Readings that wait for the reader. When it does not take them the next one is put off: then it has
/// the sum of both.
const MOST_READINGS: usize = 4;
/// Most bytes of single records that wait; what comes when there are more is lost, and counted.
const MOST_BYTES: usize = 4 << 20;

/// Both ends. Cheap to clone.
#[derive(Clone)]
pub struct Handover(Arc<Inner>);

struct Inner {
    waiting: Mutex<Waiting>,
    waker: Waker,
}

#[derive(Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    readings: usize,
    /// Bytes of single records.
    bytes: usize,
    /// Kinds of single records that are wanted.
    wanted: BTreeSet<u16>,
    /// Single records that were lost, by kind.
    lost: BTreeMap<u16, u64>,
}

/// What is put in at once.
struct Parcel {
    time: u64,
    records: Records,
    /// The kind whose tick it is.
    tick: Option<u16>,
}

impl Handover {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Inner { waiting: Mutex::default(), waker: Waker::new()? })))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stamped while the reader cannot look: so it never sees a later time first.
    fn push(&self, mut waiting: MutexGuard<'_, Waiting>, records: Records, tick: Option<u16>) {
        waiting.parcels.push_back(Parcel { time: clock::monotonic_ns(), records, tick });
        drop(waiting);
        self.0.waker.wake();
    }

    /// Whether another reading may be made.
    pub(crate) fn has_room_for_reading(&self) -> bool {
        self.lock().readings < MOST_READINGS
    }

    /// Puts in all records of an aggregated kind for a tick, which gets the time of this call.
    pub(crate) fn put_reading(&self, kind: u16, records: Records) {
        let mut waiting = self.lock();
        waiting.readings += 1;
        self.push(waiting, records, Some(kind));
    }

    /// Sets the kinds of single records that somebody wants.
    pub(crate) fn set_wanted(&self, kinds: impl IntoIterator<Item = u16>) {
        self.lock().wanted = kinds.into_iter().collect();
    }

    /// Whether somebody wants single records of this kind: others need not be made.
    #[must_use]
    pub(crate) fn wants(&self, kind: u16) -> bool {
        self.lock().wanted.contains(&kind)
    }

    /// Puts in the record of an event that happens now: its time becomes that of this call. One that
    /// nobody wants is left out, and one that there is no room for is counted as lost.
    pub(crate) fn put(&self, record: Records) {
        let mut waiting = self.lock();
        let kind = record.kind();
        if !waiting.wanted.contains(&kind) {
            return;
        }
        if waiting.bytes + record.bytes() > MOST_BYTES {
            *waiting.lost.entry(kind).or_default() += 1;
            return;
        }
        waiting.bytes += record.bytes();
        self.push(waiting, record, None);
    }

    /// Hands out what was put in up to this time; says how many records that were.
    pub(crate) fn drain(&self, until: u64, each: &mut impl FnMut(Item<'_>)) -> usize {
        let mut count = 0;
        loop {
            let mut waiting = self.lock();
            if waiting.parcels.front().is_none_or(|parcel| parcel.time > until) {
                if waiting.parcels.is_empty() {
                    self.0.waker.reset();
                }
                return count;
            }
            let Some(Parcel { time, mut records, tick }) = waiting.parcels.pop_front() else {
                return count;
            };
            match tick {
                Some(_) => waiting.readings -= 1,
                None => waiting.bytes -= records.bytes(),
            }
            drop(waiting);
            records.each(time, |record| {
                count += 1;
                each(Item::Record(record));
            });
            if let Some(kind) = tick {
                each(Item::Tick(kind, time));
            }
        }
    }

    /// Whether something waits.
    pub(crate) fn has_unread(&self) -> bool {
        !self.lock().parcels.is_empty()
    }

    /// Hands out how many records were lost so far, by kind.
    pub(crate) fn losses(&self, each: &mut impl FnMut(u16, Cause, u64)) {
        for (&kind, &count) in &self.lock().lost {
            each(kind, Cause::RingFull, count);
        }
    }
}

/// Readable while something waits.
impl AsFd for Handover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.waker.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    const KIND: u16 = 40;

    fn one(kind: u16) -> Records {
        let mut records = Records::new(kind);
        records.begin(&[0; 64], 104);
        records
    }

    fn drained(handover: &Handover) -> Vec<u64> {
        let mut times = Vec::new();
        handover.drain(u64::MAX, &mut |item| match item {
            Item::Record(record) => times.push(record::time(record).unwrap()),
            other => panic!("{other:?}"),
        });
        times
    }

    #[test]
    fn records_come_out_in_the_order_of_their_times_and_only_if_they_are_wanted() {
        let handover = Handover::new().unwrap();
        handover.put(one(KIND));
        assert!(!handover.has_unread() && !handover.wants(KIND));
        handover.set_wanted([KIND]);
        let before = clock::monotonic_ns();
        for _ in 0..3 {
            handover.put(one(KIND));
            handover.put(one(KIND + 1));
        }
        let mut none = 0;
        handover.drain(before, &mut |_| none += 1);
        assert_eq!(none, 0);
        let times = drained(&handover);
        assert_eq!(times.len(), 3);
        assert!(times[0] >= before && times.is_sorted());
        assert!(!handover.has_unread());
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let handover = Handover::new().unwrap();
        handover.set_wanted([KIND]);
        let most = MOST_BYTES / one(KIND).bytes();
        for _ in 0..most + 7 {
            handover.put(one(KIND));
        }
        let mut lost = Vec::new();
        handover.losses(&mut |kind, cause, count| lost.push((kind, cause, count)));
        assert_eq!(lost, [(KIND, Cause::RingFull, 7)]);
        assert_eq!(drained(&handover).len(), most);
        handover.put(one(KIND));
        assert_eq!(drained(&handover).len(), 1);
    }
}
