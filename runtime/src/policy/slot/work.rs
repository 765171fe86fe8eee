//! What is done with a policy in a turn: its queue, its instance, its generations.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::After;
use crate::{
    batch::{gap_rows, lost_with},
    clock,
    policy::{
        CallError,
        counts::Counts,
        health::{Health, Verdict, WINDOW},
        instance::Instance,
        life::{Generation, Life},
        share::Share,
        succession::{Beginning, LAST_ROWS, Next, Plan},
    },
    queue::{Batch, Cause, Delivery, Gap, Queue},
};

/// A turn ends after this time if others wait: long enough for many batches, short enough to be fair.
const SLICE: Duration = Duration::from_millis(10);

/// See the module's documentation.
pub(super) struct Work {
    generation: Generation,
    plan: Plan,
    queue: Arc<Queue>,
    counts: Counts,
    instance: Option<Instance>,
    life: Life,
    health: Health,
    share: Share,
    retry: Instant,
    tick: Option<Duration>,
    next_tick: Instant,
    /// What the next instance is told that the last one took with it.
    lost: Vec<Gap>,
    /// Generations that wait to take its place, in this order.
    next: VecDeque<Next>,
    /// Processor time of this turn's calls.
    used: Duration,
}

impl Work {
    /// The first generation runs at once: its metrics become visible.
    pub fn new(first: Next, queue: Arc<Queue>) -> Self {
        let Next { generation, plan, counts, mut instance, queue: _, metrics, since: now } = first;
        metrics.commit();
        plan.outcome.takes_over();
        instance.runs();
        generation.enters(Life::Running, &plan.runs());
        Self {
            tick: plan.tick(),
            next_tick: now + plan.tick().unwrap_or_default(),
            share: Share::new(plan.limits.cpu_percent, now),
            generation,
            plan,
            queue,
            counts,
            instance: Some(instance),
            life: Life::Running,
            health: Health::default(),
            retry: now,
            lost: Vec::new(),
            next: VecDeque::new(),
            used: Duration::ZERO,
        }
    }

    pub const fn generation(&self) -> &Generation {
        &self.generation
    }

    pub const fn life(&self) -> Life {
        self.life
    }

    /// Processor time of this turn's calls.
    pub const fn used(&self) -> Duration {
        self.used
    }

    /// Begins a turn. These generations are to take its place, behind those that wait already.
    pub fn begin(&mut self, next: Vec<Next>) {
        self.next.extend(next);
        self.used = Duration::ZERO;
    }

    /// Does what there is to do.
    pub fn turn(&mut self) -> After {
        let begin = Instant::now();
        self.succeed();
        match self.life {
            Life::Quarantined => {
                self.drop_waiting();
                self.succeed();
            }
            Life::Restarting if begin < self.retry => {
                return After { again: false, wake: Some(self.retry) };
            }
            Life::Restarting => self.restart(),
            Life::Running => {}
            _ => return After::default(),
        }
        if let Some((until, new)) = self.share.wait(begin) {
            if let Some(wait) = new {
                self.counts.throttled(wait);
            }
            return After { again: false, wake: Some(until) };
        }
        if self.is_tick_due(begin) {
            self.tick();
        }
        while self.instance.is_some() && begin.elapsed() < SLICE {
            match self.queue.pop() {
                Some(delivery) => self.deliver(&delivery),
                None if self.succeed() => {}
                None => break,
            }
        }
        self.after()
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let mut gaps = mem::take(&mut self.lost);
        gaps.extend_from_slice(&delivery.gaps);
        self.counts.dropped(&delivery.gaps);
        if !gaps.is_empty() {
            self.call(|instance| instance.on_batch(&gap_rows(&gaps)));
            if self.instance.is_none() {
                // The next instance is told.
                self.lost = gaps;
            }
        }
        let batch = &delivery.batch;
        if batch.bytes.len() > self.plan.limits.batch() {
            self.counts.limit_reached("batch");
            self.lose(batch);
            return;
        }
        self.counts.delivers(batch, clock::monotonic_ns());
        self.call(|instance| instance.on_batch(&batch.bytes));
        if self.instance.is_some() {
            self.counts.delivered(batch);
        } else {
            // How far the instance came is unknown: all of the batch counts as lost.
            self.lose(batch);
        }
    }

    /// Counts a batch as lost, to be told to the next instance.
    fn lose(&mut self, batch: &Batch) {
        self.counts.lost(batch);
        for gap in lost_with(batch, Cause::InstanceLost) {
            gap.add_to(&mut self.lost);
        }
    }

    fn tick(&mut self) {
        self.call(|instance| instance.on_tick(clock::monotonic_ns()));
        if let Some(tick) = self.tick {
            // A tick that is late is not made up for.
            self.next_tick = (self.next_tick + tick).max(Instant::now());
        }
    }

    /// Calls the instance, if there is one. An error is its end.
    fn call(&mut self, call: impl FnOnce(&mut Instance) -> Result<(), CallError>) {
        let Some(instance) = &mut self.instance else { return };
        let result = call(instance);
        let cpu = instance.cpu();
        self.spend(cpu);
        if let Err(error) = result {
            self.failed(&error, error.limit());
        }
    }

    fn spend(&mut self, cpu: Duration) {
        self.counts.called(cpu);
        self.share.spend(cpu);
        self.used += cpu;
    }

    fn restart(&mut self) {
        match self.plan.start() {
            Ok(mut instance) => {
                self.spend(instance.cpu());
                instance.runs();
                self.instance = Some(instance);
                self.life = Life::Running;
                self.generation.enters(Life::Running, &"a new instance runs");
            }
            Err(refusal) => self.failed(&refusal, refusal.limit()),
        }
    }

    /// The instance is lost, perhaps because of the limit of that key.
    fn failed(&mut self, error: &dyn std::error::Error, limit: Option<&str>) {
        let now = Instant::now();
        if let Some(key) = limit {
            self.counts.limit_reached(key);
        }
        self.counts.failed();
        self.instance = None;
        match self.health.failed(now) {
            Verdict::Quarantine(failures) => {
                self.life = Life::Quarantined;
                let within = WINDOW.as_secs();
                self.generation.enters(
                    Life::Quarantined,
                    &format_args!(
                        "{error}; quarantined after {failures} failures within {within} s: replace its file to try again"
                    ),
                );
            }
            Verdict::Restart(back_off) => {
                self.life = Life::Restarting;
                self.retry = now + back_off;
                self.generation.enters(
                    Life::Restarting,
                    &format_args!("{error}; a new instance starts in {back_off:?}"),
                );
            }
        }
    }

    /// Lets the next generation take over if its time has come.
    fn succeed(&mut self) -> bool {
        let is_time = |next: &mut Next| {
            // One that goes on with the same rows may begin after any batch; another one when all
            // rows of the old kind are delivered, or when that takes too long.
            next.queue.is_none() || self.queue.is_empty() || next.since.elapsed() > LAST_ROWS
        };
        let Some(mut next) = self.next.pop_front_if(is_time) else { return false };
        if next.queue.is_some() {
            self.drop_waiting();
        }
        if !next.plan.program.has_hand_over() || !self.plan.program.has_hand_over() {
            // The last chance to say something.
            self.call(|instance| instance.on_tick(clock::monotonic_ns()));
        }
        let (beginning, cpu) = next.take_over(self.instance.as_mut(), self.plan.limits.state);
        self.spend(cpu);
        let Next { generation, plan, counts, mut instance, queue, metrics, since: _ } = next;
        self.generation.enters(
            Life::Replaced,
            &format_args!("replaced by generation {}", generation.number()),
        );
        metrics.commit();
        plan.outcome.takes_over();
        instance.runs();
        let gaps = mem::take(&mut self.lost);
        self.lost = self.plan.translate(gaps, &plan);
        self.tick = plan.tick();
        self.next_tick = Instant::now() + self.tick.unwrap_or_default();
        if self.plan.limits.cpu_percent != plan.limits.cpu_percent {
            self.share = Share::new(plan.limits.cpu_percent, Instant::now());
        }
        self.queue = queue.unwrap_or_else(|| Arc::clone(&self.queue));
        (self.generation, self.plan, self.counts) = (generation, plan, counts);
        self.instance = Some(instance);
        (self.life, self.health) = (Life::Running, Health::default());
        let runs = self.plan.runs();
        match beginning {
            Beginning::With(bytes) => self.generation.enters(
                Life::Running,
                &format_args!("{runs}; it takes over {bytes} bytes of state"),
            ),
            Beginning::Empty(why) => {
                self.generation
                    .enters(Life::Running, &format_args!("{runs}; it starts empty: {why}"));
            }
            Beginning::Lost { why, limit } => {
                if let Some(key) = limit {
                    self.counts.limit_reached(key);
                }
                tracing::warn!(
                    policy = &*self.plan.outcome.name,
                    "generation {} starts empty, the state of the one before it is lost: {why}",
                    self.generation.number()
                );
                self.generation.enters(Life::Running, &format_args!("{runs}; it starts empty"));
            }
        }
        true
    }

    /// Delivers what waits, as long as there is time, and a last tick. Once.
    pub fn end(&mut self, until: Instant, why: Life) {
        if matches!(self.life, Life::Stopped | Life::Removed) {
            return;
        }
        self.succeed();
        while Instant::now() < until {
            if self.instance.is_none() {
                // A generation that waits may take what is left.
                if !self.succeed() {
                    break;
                }
            } else if let Some(delivery) = self.queue.pop() {
                self.deliver(&delivery);
            } else if !self.succeed() {
                break;
            }
        }
        self.drop_waiting();
        for next in mem::take(&mut self.next) {
            if let Some(queue) = next.queue {
                self.queue = queue;
                self.counts = next.counts;
                self.drop_waiting();
            }
        }
        self.call(|instance| instance.on_tick(clock::monotonic_ns()));
        self.instance = None;
        self.life = why;
        if why == Life::Stopped {
            self.generation.enters(why, &"the agent ends");
        }
    }

    /// Empties the queue of a policy that nobody is going to call.
    fn drop_waiting(&mut self) {
        while let Some(delivery) = self.queue.pop() {
            self.counts.dropped(&delivery.gaps);
            for gap in delivery.gaps {
                gap.add_to(&mut self.lost);
            }
            self.lose(&delivery.batch);
        }
    }

    fn is_tick_due(&self, now: Instant) -> bool {
        self.tick.is_some() && self.instance.is_some() && now >= self.next_tick
    }

    fn after(&self) -> After {
        let waits = || !self.queue.is_empty() || !self.next.is_empty();
        match self.life {
            Life::Running => After { again: waits(), wake: self.tick.map(|_| self.next_tick) },
            Life::Restarting => After { again: false, wake: Some(self.retry) },
            // Once more, to empty the queue.
            Life::Quarantined => After { again: waits(), wake: None },
            _ => After::default(),
        }
    }
}
