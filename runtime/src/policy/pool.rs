//! The worker threads: a small pool that takes the next policy with something to do from one queue.
//! A policy runs on one worker at a time, and goes to the end of the queue after each turn, so that
//! a slow one costs the others a turn's time and nothing more.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Configured, LoadError, Outcome,
    counts::{Counts, Numbers},
    slot::{Life, Slot},
};
use crate::{manifest::Manifest, outcome::PolicyMetrics, queue::Queue};

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
    runnable: VecDeque<Arc<Slot>>,
    /// When to look at a slot again. With its address, so that it waits once for each time.
    timers: BTreeMap<(Instant, usize), Weak<Slot>>,
    over: bool,
}

/// A policy that runs. Dropped without [`Running::stop`], it ends after its current turn.
pub struct Running {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
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
    /// [`Pool::hold`] to replace one.
    pub fn start(&self, configured: Configured) -> Result<Running, LoadError> {
        self.hold(configured).start()
    }

    /// Makes the queue of a policy, which takes batches already, but runs it only when told to: when
    /// the generation before it has ended.
    #[must_use]
    pub fn hold(&self, configured: Configured) -> Held {
        let (path, metrics) = (configured.path.clone(), configured.outcome.metrics.clone());
        let manifest = configured.manifest.clone();
        let counts = Counts::new(&self.outcome.counts, &manifest);
        let slot = Arc::new_cyclic(|slot: &Weak<Slot>| {
            let (slot, shared) = (slot.clone(), Arc::downgrade(&self.shared));
            let ready = move || {
                if let (Some(slot), Some(shared)) = (slot.upgrade(), shared.upgrade()) {
                    shared.schedule(&slot);
                }
            };
            let queue = Arc::new(Queue::new(configured.limits.queue, ready));
            Slot::new(configured, queue, counts)
        });
        // As if it waited for its turn already, so that a batch does not give it one.
        slot.turn.store(WAITS, Ordering::Release);
        Held {
            running: Running { slot, shared: Arc::clone(&self.shared), manifest },
            path,
            metrics,
        }
    }
}

/// A policy that takes batches but does not run yet. Dropped, it never does.
pub struct Held {
    running: Running,
    path: PathBuf,
    metrics: PolicyMetrics,
}

impl Held {
    /// Where batches go in.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        self.running.queue()
    }

    /// Runs it: its metrics become visible and go on from where those of the generation before it
    /// ended. Fails if another policy took the name of one of them in the meantime.
    pub fn start(self) -> Result<Running, LoadError> {
        let Self { running, path, metrics } = self;
        if let Err(error) = metrics.commit() {
            return Err(LoadError { path, reason: error.into() });
        }
        // The first turn sets the timer for the first tick.
        running.shared.lock().runnable.push_back(Arc::clone(&running.slot));
        running.shared.changed.notify_one();
        Ok(running)
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
    pub fn queue(&self) -> &Arc<Queue> {
        &self.slot.queue
    }

    /// The manifest in force.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How the policy is.
    #[must_use]
    pub fn life(&self) -> Life {
        self.slot.life()
    }

    /// What was counted about the policy, over all its generations.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.slot.counts.numbers()
    }

    /// Delivers what waits in the queue for at most this time, ticks a last time, and drops the
    /// instance. Nothing must be put into the queue any more. Returns whether it ended in time.
    #[must_use]
    pub fn stop(&self, bound: Duration) -> bool {
        let done = self.end(Instant::now() + bound);
        done.recv_timeout(bound + LAST_CALL).is_ok()
    }

    /// [`Running::stop`] for several policies at the same time. Returns the names of those that did
    /// not end in time.
    #[must_use]
    pub fn stop_all(all: &[Self], bound: Duration) -> Vec<String> {
        let until = Instant::now() + bound;
        let ends: Vec<_> = all.iter().map(|running| running.end(until)).collect();
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

    fn end(&self, until: Instant) -> mpsc::Receiver<()> {
        let (sender, done) = mpsc::channel();
        self.slot.stop(until, sender);
        self.shared.schedule(&self.slot);
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the slot a turn, soon.
    fn schedule(&self, slot: &Arc<Slot>) {
        let mark = slot.turn.fetch_update(Ordering::AcqRel, Ordering::Acquire, |turn| match turn {
            IDLE => Some(WAITS),
            RUNS => Some(RUNS_MORE),
            _ => None,
        });
        if mark == Ok(IDLE) {
            self.lock().runnable.push_back(Arc::clone(slot));
            self.changed.notify_one();
        }
    }

    fn work(&self) {
        while let Some(slot) = self.next() {
            slot.turn.store(RUNS, Ordering::Release);
            let after = slot.turn();
            if let Some(at) = after.wake {
                self.lock().timers.insert((at, Arc::as_ptr(&slot).addr()), Arc::downgrade(&slot));
            }
            let is_idle = !after.again
                && slot
                    .turn
                    .compare_exchange(RUNS, IDLE, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok();
            if !is_idle {
                slot.turn.store(WAITS, Ordering::Release);
                self.lock().runnable.push_back(slot);
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
            if let Some(slot) = line.runnable.pop_front() {
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
