//! The one thread that drains the source, keeps the tables, makes rows, and closes batches.
//!
//! It never waits for a policy and does no I/O: queues in front of policies drop what does not fit
//! and say so, and the resolver reads files. Who joins, leaves or is replaced does so between two
//! drains, at a cut in time, so that nobody loses an event or sees one twice.

mod losses;
mod publish;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::{
    feed::{Member, MemberId},
    intake::Intake,
    kind::Kinds,
    outcome::AgentMetrics,
    plan::Plan,
    queue::Queue,
    resolver::Resolver,
    source::Source,
    waker::Waker,
};

/// A policy's wish for rows.
#[derive(Clone)]
pub struct Subscriber {
    /// What its rows are. The probes must deliver what it wants before it is handed in.
    pub plan: Arc<Plan>,
    /// Where its batches go.
    pub queue: Arc<Queue>,
    /// How long a row may wait for others.
    pub latency: Duration,
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscriber")
    }
}

enum Command {
    Add { subscriber: Subscriber, id: MemberId, done: Sender<()> },
    Remove { id: MemberId, done: Sender<()> },
    Replace { old: MemberId, subscriber: Subscriber, id: MemberId, done: Sender<()> },
    Settle { done: Sender<()> },
    Stop,
}

/// The reader's thread. Dropping it without [`Reader::stop`] stops it, too.
pub struct Reader {
    commands: Sender<Command>,
    waker: Waker,
    next: AtomicU64,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread. `subscribers` are there before the first record is taken, which matters
    /// for a source that does not wait; their numbers count from 0.
    pub fn start<S: Source + 'static>(
        source: S,
        kinds: &Kinds,
        metrics: Arc<AgentMetrics>,
        subscribers: Vec<Subscriber>,
    ) -> io::Result<Self> {
        let waker = Waker::new()?;
        let resolver = if source.is_live() { Some(Resolver::start(waker.clone())?) } else { None };
        let mut intake = Intake::new(resolver.as_ref().map(|resolver| resolver.requests.clone()));
        let next = subscribers.len() as u64;
        for (subscriber, id) in subscribers.into_iter().zip(0..) {
            let member = Member { id: MemberId(id), queue: subscriber.queue };
            intake.join(&subscriber.plan, nanoseconds(subscriber.latency), member, 0, false);
        }
        let (commands, commanded) = unbounded();
        let (end, ended) = bounded(0);
        let work = thread::Work::new(
            source,
            intake,
            commanded,
            waker.clone(),
            resolver,
            publish::Publisher::new(metrics, kinds.clone()),
            end,
        );
        let thread = std::thread::Builder::new().name("reader".into()).spawn(move || work.run())?;
        Ok(Self { commands, waker, next: AtomicU64::new(next), ended, thread: Some(thread) })
    }

    /// Lets a subscriber in: it gets all events that happen after this call.
    #[must_use]
    pub fn add(&self, subscriber: Subscriber) -> MemberId {
        let id = self.number();
        self.ask(|done| Command::Add { subscriber, id, done });
        id
    }

    /// Lets a subscriber go. When this returns it has got its last batch.
    pub fn remove(&self, id: MemberId) {
        self.ask(|done| Command::Remove { id, done });
    }

    /// Puts a subscriber in the place of another: each event goes to exactly one of the two. When
    /// this returns the old one has got its last batch, and the new one may have got some.
    #[must_use]
    pub fn replace(&self, old: MemberId, subscriber: Subscriber) -> MemberId {
        let id = self.number();
        self.ask(|done| Command::Replace { old, subscriber, id, done });
        id
    }

    /// Waits until the process table knows the processes that were there before the subscribers, so
    /// that the first event after this finds its own. Gives up after `timeout`.
    pub fn settle(&self, timeout: Duration) {
        let (done, wait) = bounded(0);
        self.command(Command::Settle { done });
        // Late is not wrong: fields that are asked for too early are absent, and counted.
        let _ = wait.recv_timeout(timeout);
    }

    /// Waits until the source has ended and everything is delivered; `false` if that takes longer
    /// than `timeout`.
    #[must_use]
    pub fn wait_for_end(&self, timeout: Duration) -> bool {
        !matches!(
            self.ended.recv_timeout(timeout),
            Err(crossbeam_channel::RecvTimeoutError::Timeout)
        )
    }

    /// Takes what is still waiting in the source, delivers everything, and ends the thread. Detach
    /// the probes first: then nothing that they saw is left out.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.command(Command::Stop);
            if thread.join().is_err() {
                tracing::error!("the reader's thread panicked");
            }
        }
    }

    fn number(&self) -> MemberId {
        MemberId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a command and waits until its `done` is dropped.
    fn ask(&self, command: impl FnOnce(Sender<()>) -> Command) {
        let (done, wait) = bounded(0);
        self.command(command(done));
        // It ends because the other end is dropped, also if the thread has gone.
        let _ = wait.recv();
    }

    fn command(&self, command: Command) {
        // It fails when the thread has gone: then there is nobody to obey.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
