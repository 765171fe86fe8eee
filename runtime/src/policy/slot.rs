//! One policy as the worker pool sees it: its queue, its instance, and what is done in a turn.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use super::{Configured, counts::Counts, error::Refusal, instance::Instance, load};
use crate::{
    batch::gap_rows,
    clock,
    queue::{Batch, Cause, Delivery, Gap, Queue},
};

/// A turn ends after this time if others wait: long enough for many batches, short enough to be fair.
const SLICE: Duration = Duration::from_millis(10);
/// An instance that is lost is restarted after this time, then after twice as long, and so on.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// So many instances lost within [`WINDOW`] put a policy into quarantine.
const FAILURES: usize = 5;
/// See [`FAILURES`].
const WINDOW: Duration = Duration::from_mins(1);

/// How a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// An instance takes batches.
    Running,
    /// The instance was lost; another one will be started.
    Restarting,
    /// Too many instances were lost: what comes is dropped, until the policy is replaced or removed.
    Quarantined,
    /// Stopped: removed, replaced, or the agent ends.
    Stopped,
}

impl Life {
    const ALL: [Self; 4] = [Self::Running, Self::Restarting, Self::Quarantined, Self::Stopped];
}

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
    pub queue: Arc<Queue>,
    pub counts: Counts,
    /// Where the slot stands in the pool's queue; see there.
    pub turn: AtomicU8,
    work: Mutex<Work>,
    /// How the policy was after its last turn, for those who do not wait for a turn.
    life: AtomicU8,
    stop: Mutex<Option<Stop>>,
}

struct Work {
    configured: Plan,
    instance: Option<Instance>,
    life: Life,
    failures: VecDeque<Instant>,
    retry: Instant,
    tick: Option<Duration>,
    next_tick: Instant,
    /// What the next instance is told that the last one took with it.
    lost: Vec<Gap>,
}

/// What an instance is started from.
struct Plan {
    program: super::instance::Program,
    settings: Vec<(String, String)>,
    limits: super::Limits,
    outcome: super::host::PolicyOutcome,
    manifest: crate::manifest::Manifest,
}

struct Stop {
    until: Instant,
    done: Sender<()>,
}

impl Slot {
    pub fn new(configured: Configured, queue: Arc<Queue>, counts: Counts) -> Self {
        let Configured { manifest, program, settings, limits, outcome, instance, .. } = configured;
        let tick = manifest.tick_ns.filter(|_| program.has_ticks()).map(Duration::from_nanos);
        let now = Instant::now();
        Self {
            queue,
            counts,
            turn: AtomicU8::new(0),
            work: Mutex::new(Work {
                configured: Plan { program, settings, limits, outcome, manifest },
                instance: Some(instance),
                life: Life::Running,
                failures: VecDeque::new(),
                retry: now,
                tick,
                next_tick: now + tick.unwrap_or_default(),
                lost: Vec::new(),
            }),
            life: AtomicU8::new(Life::Running as u8),
            stop: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the policy was after its last turn.
    pub fn life(&self) -> Life {
        let life = self.life.load(Ordering::Acquire);
        *Life::ALL.iter().find(|known| **known as u8 == life).unwrap_or(&Life::Stopped)
    }

    /// Asks for an end: what waits is delivered until then.
    pub fn stop(&self, until: Instant, done: Sender<()>) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        stop.get_or_insert(Stop { until, done });
    }

    /// Does what there is to do. Called by one worker at a time.
    pub fn turn(&self) -> After {
        let mut work = self.lock();
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        let after = match stop {
            Some(stop) => {
                self.end(&mut work, stop.until);
                let _ = stop.done.send(());
                After::default()
            }
            None => self.work(&mut work),
        };
        self.life.store(work.life as u8, Ordering::Release);
        after
    }

    fn work(&self, work: &mut Work) -> After {
        let begin = Instant::now();
        match work.life {
            Life::Stopped => return After::default(),
            Life::Quarantined => {
                self.drop_waiting();
                return After::default();
            }
            Life::Restarting if begin < work.retry => {
                return After { again: false, wake: Some(work.retry) };
            }
            Life::Restarting => self.restart(work),
            Life::Running => {}
        }
        if work.is_tick_due(begin) {
            self.tick(work);
        }
        while work.instance.is_some() && begin.elapsed() < SLICE {
            let Some(delivery) = self.queue.pop() else { break };
            self.deliver(work, &delivery);
        }
        work.after(&self.queue)
    }

    fn deliver(&self, work: &mut Work, delivery: &Delivery) {
        let mut gaps = mem::take(&mut work.lost);
        gaps.extend_from_slice(&delivery.gaps);
        self.counts.dropped(&delivery.gaps);
        if !gaps.is_empty() {
            self.call(work, |instance| instance.on_batch(&gap_rows(&gaps)));
            if work.instance.is_none() {
                // The next instance is told.
                work.lost = gaps;
            }
        }
        let batch = &delivery.batch;
        self.call(work, |instance| instance.on_batch(&batch.bytes));
        if work.instance.is_some() {
            self.counts.delivered(batch);
        } else {
            // How far the instance came is unknown: all of the batch counts as lost.
            work.lost.extend(lost(batch));
            self.counts.lost(batch);
        }
    }

    fn tick(&self, work: &mut Work) {
        self.call(work, |instance| instance.on_tick(clock::monotonic_ns()));
        if let Some(tick) = work.tick {
            // A tick that is late is not made up for.
            work.next_tick = (work.next_tick + tick).max(Instant::now());
        }
    }

    /// Calls the instance, if there is one. An error is its end.
    fn call(
        &self,
        work: &mut Work,
        call: impl FnOnce(&mut Instance) -> Result<(), super::CallError>,
    ) {
        let Some(instance) = &mut work.instance else { return };
        let result = call(instance);
        self.counts.called(instance.cpu());
        if let Err(error) = result {
            self.failed(work, &error);
        }
    }

    fn restart(&self, work: &mut Work) {
        let Plan { program, settings, limits, outcome, manifest } = &work.configured;
        let started =
            load::start(program, outcome, limits, settings).and_then(|(instance, text)| {
                // The plan was made for what the first instance said.
                if text.parse().as_ref() == Ok(manifest) {
                    Ok(instance)
                } else {
                    Err(Refusal::Changed)
                }
            });
        match started {
            Ok(instance) => {
                tracing::info!(policy = &*outcome.name, "a new instance runs");
                work.instance = Some(instance);
                work.life = Life::Running;
            }
            Err(refusal) => self.failed(work, &refusal),
        }
    }

    fn failed(&self, work: &mut Work, error: &dyn std::error::Error) {
        let now = Instant::now();
        let policy = &*work.configured.outcome.name;
        self.counts.failed();
        work.instance = None;
        while work.failures.front().is_some_and(|&first| now.duration_since(first) > WINDOW) {
            work.failures.pop_front();
        }
        work.failures.push_back(now);
        let failures = work.failures.len();
        if failures >= FAILURES {
            work.life = Life::Quarantined;
            tracing::error!(
                policy,
                "{error}; quarantined after {failures} failures within {} s: replace its file to try again",
                WINDOW.as_secs()
            );
        } else {
            let back_off = FIRST_BACK_OFF * (1 << (failures - 1));
            work.life = Life::Restarting;
            work.retry = now + back_off;
            tracing::error!(policy, "{error}; a new instance starts in {back_off:?}");
        }
    }

    /// Delivers what waits, as long as there is time, and a last tick.
    fn end(&self, work: &mut Work, until: Instant) {
        while work.instance.is_some() && Instant::now() < until {
            let Some(delivery) = self.queue.pop() else { break };
            self.deliver(work, &delivery);
        }
        self.drop_waiting();
        self.call(work, |instance| instance.on_tick(clock::monotonic_ns()));
        work.instance = None;
        work.life = Life::Stopped;
    }

    /// Empties the queue of a policy that nobody is going to call.
    fn drop_waiting(&self) {
        while let Some(delivery) = self.queue.pop() {
            self.counts.dropped(&delivery.gaps);
            self.counts.lost(&delivery.batch);
        }
    }
}

impl Work {
    fn is_tick_due(&self, now: Instant) -> bool {
        self.tick.is_some() && self.instance.is_some() && now >= self.next_tick
    }

    fn after(&self, queue: &Queue) -> After {
        match self.life {
            Life::Running => {
                After { again: !queue.is_empty(), wake: self.tick.map(|_| self.next_tick) }
            }
            Life::Restarting => After { again: false, wake: Some(self.retry) },
            // Once more, to empty the queue.
            Life::Quarantined => After { again: !queue.is_empty(), wake: None },
            Life::Stopped => After::default(),
        }
    }
}

fn lost(batch: &Batch) -> impl Iterator<Item = Gap> {
    let (first_ns, last_ns) = (batch.first_ns, batch.last_ns);
    (0..).zip(&batch.events).filter(|(_, events)| **events > 0).map(move |(subscription, &lost)| {
        Gap { subscription, lost, first_ns, last_ns, cause: Cause::InstanceLost }
    })
}
