//! The queue of closed batches in front of each policy, bounded in bytes. A slow policy fills its
//! own queue and loses its own events, and is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{batch::lost_with, spare::Rows};

/// Rows that are handed to a policy in one call. Never changed once closed, so that policies with
/// the same subscriptions share it.
#[derive(Debug, Default)]
pub struct Batch {
    /// The rows, back to back, in time order.
    pub bytes: Rows,
    /// Number of events by subscription (gap rows not counted).
    pub events: Vec<u64>,
    /// Time of the first event.
    pub first_ns: u64,
    /// Time of the last event.
    pub last_ns: u64,
}

/// Events of one subscription that were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Index of the subscription in the manifest.
    pub subscription: u8,
    /// How many.
    pub lost: u64,
    /// Not before this time.
    pub first_ns: u64,
    /// Not after this time.
    pub last_ns: u64,
    /// Where they were lost.
    pub cause: Cause,
}

/// Where events are lost. The numbers are part of the contract with policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Cause {
    /// A ring buffer had no room.
    RingFull = 1,
    /// A program could not run (recursion, nesting).
    ProgramMissed = 2,
    /// A map of the probe was full.
    MapFull = 3,
    /// The policy's own queue was full.
    QueueFull = 4,
    /// The budget of a cgroup was spent.
    CgroupBudget = 5,
    /// The policy's instance was lost with the batch that it had, or nobody was there to take it.
    InstanceLost = 6,
    /// The agent left it out to save its own time. Rows that say their weight stand for it.
    AgentBudget = 7,
}

impl Cause {
    /// All causes, with the names that metrics and messages use.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::RingFull, "ring_full"),
        (Self::ProgramMissed, "program_missed"),
        (Self::MapFull, "map_full"),
        (Self::QueueFull, "queue_full"),
        (Self::CgroupBudget, "cgroup_budget"),
        (Self::InstanceLost, "instance_lost"),
        (Self::AgentBudget, "agent_budget"),
    ];

    /// Name in metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(cause, _)| *cause == self).map_or("", |(_, name)| name)
    }
}

/// What a policy is given next: first the gaps, then the batch.
#[derive(Debug)]
pub struct Delivery {
    /// Events that this queue dropped since the previous delivery, and those of which a batch was to tell
    /// that it dropped.
    pub gaps: Vec<Gap>,
    /// The oldest batch that is waiting.
    pub batch: Arc<Batch>,
}

/// See the module's documentation.
pub struct Queue {
    inner: Mutex<Inner>,
    capacity: usize,
    ready: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Inner {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    gaps: Vec<Gap>,
    dropped: u64,
}

impl Queue {
    /// A queue that holds at most `capacity` bytes of rows, and always at least one batch. `ready`
    /// is called when a batch comes to an empty queue; it must not block.
    pub fn new(capacity: usize, ready: impl Fn() + Send + Sync + 'static) -> Self {
        Self { inner: Mutex::default(), capacity, ready: Box::new(ready) }
    }

    /// Puts a batch in, or drops it and remembers the gap. Never blocks for longer than a pop takes.
    pub fn push(&self, batch: &Arc<Batch>) {
        let mut inner = self.lock();
        let was_empty = inner.batches.is_empty();
        if !was_empty && inner.bytes + batch.bytes.len() > self.capacity {
            inner.drop_batch(batch);
            return;
        }
        inner.bytes += batch.bytes.len();
        inner.batches.push_back(Arc::clone(batch));
        drop(inner);
        if was_empty {
            (self.ready)();
        }
    }

    /// Takes the oldest batch out.
    pub fn pop(&self) -> Option<Delivery> {
        let mut inner = self.lock();
        let batch = inner.batches.pop_front()?;
        inner.bytes -= batch.bytes.len();
        Some(Delivery { gaps: std::mem::take(&mut inner.gaps), batch })
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.lock().batches.is_empty()
    }

    /// Bytes of rows that wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Number of events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn drop_batch(&mut self, batch: &Batch) {
        self.dropped += batch.events.iter().sum::<u64>();
        for gap in lost_with(batch, Cause::QueueFull) {
            gap.add_to(&mut self.gaps);
        }
    }
}

impl Gap {
    /// Adds it to gaps that are still to be told: those of one subscription and cause grow together.
    pub fn add_to(self, gaps: &mut Vec<Self>) {
        let same =
            |gap: &&mut Self| (gap.subscription, gap.cause) == (self.subscription, self.cause);
        if let Some(gap) = gaps.iter_mut().find(same) {
            gap.lost += self.lost;
            gap.first_ns = gap.first_ns.min(self.first_ns);
            gap.last_ns = gap.last_ns.max(self.last_ns);
        } else {
            gaps.push(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::push_gap;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn batch(bytes: usize, events: &[u64], first_ns: u64) -> Arc<Batch> {
        Arc::new(Batch {
            bytes: vec![0; bytes].into(),
            events: events.to_vec(),
            first_ns,
            last_ns: first_ns + 9,
        })
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told_with_the_next_delivery() {
        let queue = Queue::new(100, || {});
        queue.push(&batch(80, &[4, 0], 10));
        queue.push(&batch(80, &[3, 1], 20));
        queue.push(&batch(80, &[2, 0], 30));
        let delivery = queue.pop().unwrap();
        assert_eq!(delivery.batch.first_ns, 10);
        assert_eq!(
            delivery.gaps,
            [
                Gap {
                    subscription: 0,
                    lost: 5,
                    first_ns: 20,
                    last_ns: 39,
                    cause: Cause::QueueFull
                },
                Gap {
                    subscription: 1,
                    lost: 1,
                    first_ns: 20,
                    last_ns: 29,
                    cause: Cause::QueueFull
                },
            ]
        );
        assert_eq!(queue.dropped(), 6);
        assert!(queue.pop().is_none());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_a_dropped_batch_was_to_tell_is_told() {
        let before =
            Gap { subscription: 1, lost: 5_000, first_ns: 3, last_ns: 8, cause: Cause::RingFull };
        let mut bytes = Vec::new();
        push_gap(&before, &mut bytes);
        let told =
            Arc::new(Batch { bytes: bytes.into(), events: vec![0, 0], first_ns: 3, last_ns: 8 });
        let queue = Queue::new(10, || {});
        queue.push(&batch(80, &[1, 0], 0));
        queue.push(&told);
        queue.push(&told);
        let delivery = queue.pop().unwrap();
        assert_eq!(delivery.gaps, [Gap { lost: 10_000, ..before }]);
        assert_eq!(queue.dropped(), 0, "they were lost before");
    }

    #[test]
    fn a_batch_larger_than_the_queue_still_passes_an_empty_one() {
        let queue = Queue::new(10, || {});
        queue.push(&batch(80, &[1], 0));
        assert!(queue.pop().is_some());
    }

    #[test]
    fn ready_is_called_once_until_the_queue_is_empty_again() {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&calls);
        let queue = Queue::new(1000, move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        queue.push(&batch(1, &[1], 0));
        queue.push(&batch(1, &[1], 0));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        queue.pop();
        queue.pop();
        queue.push(&batch(1, &[1], 0));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
