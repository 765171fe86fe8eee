//! One policy as the worker pool sees it: it is given turns, and told from outside what to do in them.

mod work;

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::Instant,
};

use super::{
    life::{Generation, Life},
    succession::Next,
};
use crate::queue::Queue;
use work::Work;

/// What is done after a turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct After {
    /// There is more to do at once.
    pub again: bool,
    /// There may be more to do at this time.
    pub wake: Option<Instant>,
}

/// See the module's documentation.
pub(super) struct Slot {
    /// Where the slot stands in the pool's queue; see there.
    pub turn: AtomicU8,
    /// Processor time that it took so far, in nanoseconds, as the pool reckons it to be fair.
    pub served: AtomicU64,
    work: Mutex<Work>,
    /// How the policy was after its last turn, for those who do not wait for a turn: the number of the
    /// generation, and in the lowest byte its life.
    life: AtomicU64,
    orders: Mutex<Orders>,
}

/// What a slot is told from outside.
#[derive(Default)]
struct Orders {
    stop: Option<Stop>,
    next: Vec<Next>,
}

struct Stop {
    until: Instant,
    why: Life,
    done: Sender<()>,
}

impl Slot {
    /// A slot for a first generation, which runs at once: its metrics become visible.
    pub fn new(first: Next, queue: Arc<Queue>) -> Self {
        let work = Work::new(first, queue);
        Self {
            turn: AtomicU8::new(0),
            served: AtomicU64::new(0),
            life: AtomicU64::new(packed(work.generation(), work.life())),
            work: Mutex::new(work),
            orders: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the policy was after its last turn, and the number of its generation then.
    pub fn life(&self) -> (Life, u32) {
        let [life, number @ .., _, _, _] = self.life.load(Ordering::Acquire).to_le_bytes();
        (Life::from_number(life), u32::from_le_bytes(number))
    }

    /// Asks for an end: what waits is delivered until then.
    pub fn stop(&self, until: Instant, why: Life, done: Sender<()>) {
        self.orders().stop.get_or_insert(Stop { until, why, done });
    }

    /// Asks for another generation in its place.
    pub fn succeed(&self, next: Next) {
        self.orders().next.push(next);
    }

    /// Does what there is to do. Called by one worker at a time.
    pub fn turn(&self) -> After {
        let mut work = self.lock();
        let Orders { stop, next } = mem::take(&mut *self.orders());
        work.begin(next);
        let after = match stop {
            Some(stop) => {
                work.end(stop.until, stop.why);
                let _ = stop.done.send(());
                After::default()
            }
            None => work.turn(),
        };
        self.life.store(packed(work.generation(), work.life()), Ordering::Release);
        // A turn without a call took time as well.
        let used = u64::try_from(work.used().as_nanos()).unwrap_or(u64::MAX).max(1000);
        self.served.fetch_add(used, Ordering::Relaxed);
        after
    }
}

/// For [`Slot::life`].
fn packed(generation: &Generation, life: Life) -> u64 {
    u64::from(generation.number()) << 8 | u64::from(life as u8)
}
