//! The reader's loop.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::{Command, losses::Totals, nanoseconds, publish::Publisher};
use crate::{
    clock,
    feed::Member,
    intake::{Intake, Urgency},
    resolver::Resolver,
    source::Source,
    waker::Waker,
};

/// Most items of each ring that are taken before anything else is looked at.
const MOST_ITEMS: usize = 4_096;
/// Most answers of the resolver that are taken between two drains.
const MOST_ANSWERS: usize = 256;
/// How far the watermark stays behind: records are out of order by some tens of microseconds.
const WATERMARK_NS: u64 = 1_000_000;
/// While events come, the reader sleeps this long between two drains: being woken for each event
/// would cost the kernel more than the event.
const BUSY_SLEEP: Duration = Duration::from_millis(1);
/// The counters of lost events are read, and the tables and metrics seen to, this often.
const ROUND_NS: u64 = 100_000_000;
/// How long draining may go on after [`Command::Stop`] if the source does not become quiet.
const LAST_DRAIN: Duration = Duration::from_secs(1);
/// A change of the wall clock that is worth telling.
const STEP_NS: u64 = 50_000_000;

pub(super) struct Work<S> {
    source: S,
    intake: Intake,
    commands: Receiver<Command>,
    waker: Waker,
    resolver: Option<Resolver>,
    publisher: Publisher,
    totals: Totals,
    /// Dropped when the source has ended and everything is delivered.
    end: Option<Sender<()>>,
    /// Dropped when the process table is complete.
    settling: Vec<Sender<()>>,
    next_round: u64,
    newest_in_bulk: u64,
    wall_offset: Option<i64>,
}

/// What to do after a round.
enum Next {
    Again,
    Sleep,
    Wait(Duration),
}

impl<S: Source> Work<S> {
    pub(super) fn new(
        source: S,
        intake: Intake,
        commands: Receiver<Command>,
        waker: Waker,
        resolver: Option<Resolver>,
        publisher: Publisher,
        end: Sender<()>,
    ) -> Self {
        Self {
            source,
            intake,
            commands,
            waker,
            resolver,
            publisher,
            totals: Totals::default(),
            end: Some(end),
            settling: Vec::new(),
            next_round: 0,
            newest_in_bulk: 0,
            wall_offset: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.waker.reset();
            while let Ok(command) = self.commands.try_recv() {
                if self.obey(command) {
                    self.finish();
                    return;
                }
            }
            match self.round() {
                Next::Again => {}
                Next::Sleep => self.sleep(),
                Next::Wait(timeout) => self.source.wait(self.waker.fd(), timeout),
            }
        }
    }

    /// The reader's clock: that of the events.
    fn now(&self) -> u64 {
        if self.source.is_live() { clock::monotonic_ns() } else { self.intake.newest() }
    }

    fn round(&mut self) -> Next {
        let began = self.now();
        self.intake.set_now(began);
        if self.source.is_live() {
            self.set_wall_clock();
        }
        let Self { source, intake, resolver, .. } = self;
        intake.seed_if_needed();
        let mut answers = 0;
        for answer in
            resolver.iter().flat_map(|resolver| resolver.answers.try_iter()).take(MOST_ANSWERS)
        {
            intake.learn(answer);
            answers += 1;
        }
        if intake.is_settled() {
            self.settling.clear();
        }
        let drained = source.drain(MOST_ITEMS, &mut |item| intake.take(item));
        if drained.ended {
            self.see_to_losses(began);
            self.intake.flush();
            self.publisher.publish(&mut self.intake);
            self.end = None;
            return Next::Wait(Duration::from_mins(1));
        }
        self.newest_in_bulk = self.newest_in_bulk.max(drained.newest_in_bulk);
        // Records that were committed before a drain that left nothing are all here; else only
        // those are that are older than the newest one of the ring that is drained last.
        let seen = match (self.source.is_live(), drained.all) {
            (true, true) => began,
            (true, false) => self.newest_in_bulk,
            (false, _) => self.intake.newest(),
        };
        self.intake.deliver(seen.saturating_sub(WATERMARK_NS));
        if began >= self.next_round {
            self.next_round = began + ROUND_NS;
            self.see_to_losses(began);
            self.intake.tables().expire(began);
            self.publisher.publish(&mut self.intake);
        }
        let is_urgent = drained.holds_urgent && self.intake.urgency() != Urgency::None;
        if !drained.all || is_urgent || answers == MOST_ANSWERS || !self.source.is_live() {
            Next::Again
        } else if drained.items > 0 {
            Next::Sleep
        } else {
            match self.intake.due() {
                Some(0) => Next::Sleep,
                due => {
                    let next = due.unwrap_or(u64::MAX).min(self.next_round);
                    Next::Wait(Duration::from_nanos(next.saturating_sub(began)))
                }
            }
        }
    }

    /// Lets more events come together, if none of them is urgent.
    fn sleep(&mut self) {
        match self.intake.urgency() {
            Urgency::None => std::thread::sleep(BUSY_SLEEP),
            urgency => {
                let life = urgency == Urgency::Life;
                self.source.wait_for_urgent(self.waker.fd(), BUSY_SLEEP, life);
            }
        }
    }

    /// Obeys; says whether it was told to stop.
    fn obey(&mut self, command: Command) -> bool {
        // What was read for this command must be in before the cut.
        self.drain_waiting();
        // Events up to now belong to who was there before.
        let cut = self.now();
        // What was lost so far is told to who was there, and not to who comes.
        self.see_to_losses(cut);
        match command {
            Command::Add { subscriber, id, done } => {
                let member = Member { id, queue: subscriber.queue };
                self.intake.join(
                    &subscriber.plan,
                    nanoseconds(subscriber.latency),
                    member,
                    cut,
                    false,
                );
                drop(done);
            }
            Command::Remove { id, done } => self.intake.leave(id, cut, done),
            Command::Replace { old, subscriber, id, done } => {
                let member = Member { id, queue: subscriber.queue };
                self.intake.leave(old, cut, done);
                self.intake.join(
                    &subscriber.plan,
                    nanoseconds(subscriber.latency),
                    member,
                    cut,
                    true,
                );
            }
            Command::Settle { done } => self.settling.push(done),
            Command::Stop => return true,
        }
        false
    }

    /// Takes what waits now, but does not go on for ever.
    fn drain_waiting(&mut self) {
        const ROUNDS: usize = 16;
        if self.source.is_live() {
            let Self { source, intake, .. } = self;
            let _ =
                (0..ROUNDS).find(|_| source.drain(MOST_ITEMS, &mut |item| intake.take(item)).all);
        }
    }

    fn finish(mut self) {
        let began = Instant::now();
        loop {
            let Self { source, intake, .. } = &mut self;
            let drained = source.drain(MOST_ITEMS, &mut |item| intake.take(item));
            let idle = drained.items == 0;
            if drained.ended || idle && !source.has_unfinished() {
                break;
            }
            if began.elapsed() > LAST_DRAIN {
                // Of which kinds and how many they are is known to nobody.
                tracing::warn!(
                    "the probes did not become quiet: their last events are left behind"
                );
                break;
            }
            if idle {
                std::thread::sleep(BUSY_SLEEP);
            }
        }
        self.see_to_losses(self.now());
        self.intake.flush();
        self.publisher.publish(&mut self.intake);
        self.publisher.tell_losses();
        let Self { resolver, intake, .. } = self;
        // Dropping both ends of its queues ends the resolver.
        drop(intake);
        if let Some(Resolver { requests, answers, thread }) = resolver {
            drop((requests, answers));
            if thread.join().is_err() {
                tracing::error!("the resolver's thread panicked");
            }
        }
    }

    fn see_to_losses(&mut self, now: u64) {
        let Self { source, totals, intake, publisher, .. } = self;
        source.losses(&mut |kind, cause, total| {
            if let Some(lost) = totals.difference(kind, cause, total, now) {
                intake.take_loss(&lost);
                publisher.count_loss(&lost);
            }
        });
        totals.read_at(now);
    }

    fn set_wall_clock(&mut self) {
        let offset = clock::wall_offset_ns();
        if let Some(before) = self.wall_offset
            && offset.abs_diff(before) > STEP_NS
        {
            let milliseconds = (offset - before) / 1_000_000;
            tracing::warn!(milliseconds, "the wall clock was set, or the machine slept");
        }
        self.wall_offset = Some(offset);
        self.intake.tables().set_wall_offset(offset);
    }
}
