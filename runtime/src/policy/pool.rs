//! The worker threads: a small pool that takes the next policy with something to do from one queue.
//! A policy runs on one worker at a time. The next one is the one that was served least: policies that
//! always have something to do share the processor time of the workers evenly, whatever a call of
//! theirs takes, and one that seldom does waits for no more than the turns that run.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Configured, LoadError, Outcome,
    counts::{Counts, Numbers},
    life::{Generation, Life},
    slot::Slot,
    succession::Next,
};
use crate::{manifest::Manifest, queue::Queue};

/// A slot has nothing to do and is in no queue.
const IDLE: u8 = 0;
/// It waits in the queue.
const WAITS: u8 = 1;
/// A worker has it.
const RUNS: u8 = 2;
/// A worker has it, and something came in the meantime.
const RUNS_MORE: u8 = 3;

/// Added to the bound of a stop, for the call that runs.
const LAST_CALL: Duration = Duration::from_secs(1);

/// The pool. Its threads end when it is dropped; stop the policies before.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    outcome: Outcome,
}

struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    /// By the processor time that they took; those of the same in the order in which they came.
    runnable: BTreeMap<(u64, u64), Arc<Slot>>,
    /// Time that who was served last had taken: who comes now has no claim to what it left before.
    served: u64,
    /// Number of the next that comes.
    number: u64,
    /// When to look at a slot again. With its address, so that it waits once for each time.
    timers: BTreeMap<(Instant, usize), Weak<Slot>>,
    over: bool,
}

/// A policy that runs. Dropped without [`Running::stop`], it ends after its current turn.
pub struct Running {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    outcome: Outcome,
    queue: Arc<Queue>,
    generation: Generation,
    numbers: Counts,
    manifest: Manifest,
}

impl Pool {
    /// Number of workers for this machine: as many as processors, but at least two, so that a policy
    /// that uses up its time does not hold the others, and at most four.
    #[must_use]
    pub fn default_workers() -> usize {
        thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
    }

    /// A pool of this many threads.
    pub fn new(workers: usize, outcome: Outcome) -> io::Result<Self> {
        let shared = Arc::new(Shared { line: Mutex::default(), changed: Condvar::new() });
        let workers = (0..workers)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name(format!("policy-{number}")).spawn(move || shared.work())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, workers, outcome })
    }

    /// Runs a policy, whose metrics become visible. There must be no earlier generation of it: use
    /// [`Running::prepare`] to replace one.
    pub fn start(&self, configured: Configured) -> Result<Running, LoadError> {
        let manifest = configured.manifest.clone();
        let generation = Generation::new(&manifest.name, 1, &self.outcome.counts);
        let capacity = configured.limits.queue;
        let next = Next::new(configured, generation.clone(), None, &self.outcome)?;
        let numbers = next.counts.clone();
        let (mut queue, mut next) = (None, Some(next));
        let slot = Arc::new_cyclic(|slot: &Weak<Slot>| {
            let made = queue.insert(self.shared.queue(capacity, slot.clone()));
            Slot::new(next.take().expect("called once"), Arc::clone(made))
        });
        let queue = queue.expect("made with the slot");
        // The first turn sets the timer for the first tick.
        self.shared.schedule(&slot);
        let (shared, outcome) = (Arc::clone(&self.shared), self.outcome.clone());
        Ok(Running { slot, shared, outcome, queue, generation, numbers, manifest })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Running {
    /// Where batches go in.
    #[must_use]
    pub const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The newest generation, which may still wait for its turn.
    #[must_use]
    pub const fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Makes a generation ready to take the place of this one. Fails if another policy took the name
    /// of one of its metrics; then nothing has changed.
    ///
    /// With `same_rows` it goes on with the queue as it is. Else it has one of its own: let that join
    /// the reader in place of the old one, so that the old one has got its last row, before
    /// [`Running::replace`].
    pub fn prepare(&self, configured: Configured, same_rows: bool) -> Result<Next, LoadError> {
        let capacity = configured.limits.queue;
        let queue = (!same_rows).then(|| self.shared.queue(capacity, Arc::downgrade(&self.slot)));
        Next::new(configured, self.generation.next(), queue, &self.outcome)
    }

    /// Puts a generation in the place of this one, between two batches: no row is lost, and none is
    /// seen by both. State is handed over where both sides can; else it starts empty. Does not wait.
    pub fn replace(&mut self, next: Next) {
        self.generation = next.generation.clone();
        self.manifest = next.plan.manifest.clone();
        if let Some(queue) = next.queue() {
            self.queue = Arc::clone(queue);
        }
        self.slot.succeed(next);
        self.shared.schedule(&self.slot);
    }

    /// The manifest in force.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How the policy is.
    #[must_use]
    pub fn life(&self) -> Life {
        self.slot.life().0
    }

    /// How the newest generation is; nothing while it waits for its turn.
    #[must_use]
    pub fn life_of_newest(&self) -> Option<Life> {
        let (life, number) = self.slot.life();
        (number == self.generation.number()).then_some(life)
    }

    /// What was counted about the policy, over all its generations.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.numbers.numbers()
    }

    /// Delivers what waits in the queue for at most this time, ticks a last time, and drops the
    /// instance. Nothing must be put into the queue any more. Returns whether it ended in time.
    #[must_use]
    pub fn stop(&self, bound: Duration) -> bool {
        self.stop_as(Life::Stopped, bound)
    }

    /// The same for a policy that is gone while the agent goes on.
    #[must_use]
    pub fn remove(&self, bound: Duration) -> bool {
        self.stop_as(Life::Removed, bound)
    }

    fn stop_as(&self, why: Life, bound: Duration) -> bool {
        let done = self.end(Instant::now() + bound, why);
        done.recv_timeout(bound + LAST_CALL).is_ok()
    }

    /// [`Running::stop`] for several policies at the same time. Returns the names of those that did
    /// not end in time.
    #[must_use]
    pub fn stop_all(all: &[Self], bound: Duration) -> Vec<String> {
        let until = Instant::now() + bound;
        let ends: Vec<_> = all.iter().map(|running| running.end(until, Life::Stopped)).collect();
        let in_time = |done: mpsc::Receiver<()>| {
            let left = (until + LAST_CALL).saturating_duration_since(Instant::now());
            done.recv_timeout(left).is_ok()
        };
        let late = all
            .iter()
            .zip(ends)
            .filter_map(|(running, done)| (!in_time(done)).then(|| running.manifest.name.clone()));
        late.collect()
    }

    fn end(&self, until: Instant, why: Life) -> mpsc::Receiver<()> {
        let (sender, done) = mpsc::channel();
        self.slot.stop(until, why, sender);
        self.shared.schedule(&self.slot);
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Instant::now(), Life::Stopped);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue that gives this slot a turn when a batch comes.
    fn queue(self: &Arc<Self>, capacity: usize, slot: Weak<Slot>) -> Arc<Queue> {
        let shared = Arc::downgrade(self);
        Arc::new(Queue::new(capacity, move || {
            if let (Some(slot), Some(shared)) = (slot.upgrade(), shared.upgrade()) {
                shared.schedule(&slot);
            }
        }))
    }

    /// Gives the slot a turn, soon.
    fn schedule(&self, slot: &Arc<Slot>) {
        let mark = slot.turn.fetch_update(Ordering::AcqRel, Ordering::Acquire, |turn| match turn {
            IDLE => Some(WAITS),
            RUNS => Some(RUNS_MORE),
            _ => None,
        });
        if mark == Ok(IDLE) {
            self.lock().push(Arc::clone(slot));
            self.changed.notify_one();
        }
    }

    fn work(&self) {
        while let Some(slot) = self.next() {
            slot.turn.store(RUNS, Ordering::Release);
            let after = slot.turn();
            if let Some(at) = after.wake {
                let is_next = self.lock().wake(at, &slot);
                if is_next {
                    // Who waits for a later time, or for none, has to look: this worker may be busy
                    // when the time comes.
                    self.changed.notify_one();
                }
            }
            let is_idle = !after.again
                && slot
                    .turn
                    .compare_exchange(RUNS, IDLE, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok();
            if !is_idle {
                slot.turn.store(WAITS, Ordering::Release);
                self.lock().push(slot);
                self.changed.notify_one();
            }
        }
    }

    /// The next slot with something to do. Waits for one; `None`: the pool is over.
    fn next(&self) -> Option<Arc<Slot>> {
        let mut line = self.lock();
        loop {
            let now = Instant::now();
            while let Some(slot) = line.due(now) {
                drop(line);
                self.schedule(&slot);
                line = self.lock();
            }
            if let Some(slot) = line.pop() {
                return Some(slot);
            }
            if line.over {
                return None;
            }
            line = match line.timers.first_key_value() {
                Some((&(at, _), _)) => {
                    let wait = at.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(line, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(line).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Line {
    fn push(&mut self, slot: Arc<Slot>) {
        let served = slot.served.load(Ordering::Relaxed).max(self.served);
        slot.served.store(served, Ordering::Relaxed);
        self.number += 1;
        self.runnable.insert((served, self.number), slot);
    }

    fn pop(&mut self) -> Option<Arc<Slot>> {
        let ((served, _), slot) = self.runnable.pop_first()?;
        self.served = served;
        Some(slot)
    }

    /// Notes when to look at a slot again; whether that is new and before all other times.
    fn wake(&mut self, at: Instant, slot: &Arc<Slot>) -> bool {
        let key = (at, Arc::as_ptr(slot).addr());
        let is_new = self.timers.insert(key, Arc::downgrade(slot)).is_none();
        is_new && self.timers.first_key_value().is_some_and(|(first, _)| *first == key)
    }

    /// Takes out a slot whose time has come.
    fn due(&mut self, now: Instant) -> Option<Arc<Slot>> {
        loop {
            let first = self.timers.first_entry().filter(|first| first.key().0 <= now)?;
            if let Some(slot) = first.remove().upgrade() {
                return Some(slot);
            }
        }
    }
}
