//! The resolver thread fills the tables from `/proc`, the cgroup tree and the list of users, so
//! that the reader never does I/O. It is asked through a bounded queue, works at a bounded rate,
//! and answers through another queue.

mod cgroups;
pub(crate) mod proc;
mod users;

pub(crate) use cgroups::Cgroups;

use std::{
    collections::HashSet,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{clock, plan::Needs, process::Seen, waker::Waker};

/// Most open questions.
const MOST_REQUESTS: usize = 4_096;
/// Most users and cgroups that are shown before they are asked for, each.
const MOST_SEED: usize = 1_000;
/// Most answers that the reader has not taken yet. The resolver waits then.
const MOST_ANSWERS: usize = 4_096;
/// The reader is woken after this many processes that it is shown: it may have nothing else to do.
const WAKE_EVERY: usize = 256;
/// Length of a window of the rate limit, and most questions answered in it (5,000 in a second).
const WINDOW: Duration = Duration::from_millis(20);
const MOST_IN_WINDOW: u32 = 100;

/// Something that a table does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A process.
    Process(u32),
    /// All that there is for these tables: at the start, and all processes after life events were
    /// lost.
    Seed(Needs),
    /// A cgroup that was there at this time (monotonic).
    Cgroup(CgroupId, u64),
    /// A user.
    User(u32),
}

/// The hierarchies of v1 and v2 number their cgroups on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CgroupId {
    /// Of the v2 hierarchy.
    V2(u64),
    /// Of the v1 memory hierarchy.
    V1(u64),
}

/// What the resolver found.
#[derive(Debug)]
pub enum Answer {
    /// A process.
    Process(Seen),
    /// There is no such process.
    NoProcess(u32),
    /// All that was there for the tables was shown.
    Seeded {
        /// All processes that there were at some time after `began`, if they were asked for.
        pids: Option<HashSet<u32>>,
        /// When the look round began (monotonic).
        began: u64,
    },
    /// The path of a cgroup below its mount, if there is such a cgroup.
    Cgroup(CgroupId, Option<Box<[u8]>>),
    /// The name of a user, if it has one.
    User(u32, Option<Box<[u8]>>),
}

/// Both ends of the resolver, and its thread. The thread ends when the reader's ends are dropped.
pub struct Resolver {
    /// Where it is asked.
    pub requests: Sender<Request>,
    /// Where it answers.
    pub answers: Receiver<Answer>,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

impl Resolver {
    /// Starts the thread. It wakes the reader by `waker` when the tables are seeded.
    pub fn start(waker: Waker) -> std::io::Result<Self> {
        let (requests, asked) = bounded(MOST_REQUESTS);
        let (answer, answers) = bounded(MOST_ANSWERS);
        let thread = thread::Builder::new().name("resolver".into()).spawn(move || {
            let (cgroups, users) = (Cgroups::default(), users::Users::default());
            Work { answer, waker, cgroups, users }.run(&asked);
        })?;
        Ok(Self { requests, answers, thread })
    }
}

struct Work {
    answer: Sender<Answer>,
    waker: Waker,
    cgroups: Cgroups,
    users: users::Users,
}

/// The reader is gone.
struct Closed;

impl Work {
    fn run(mut self, asked: &Receiver<Request>) {
        let mut window = (Instant::now(), 0);
        for request in asked {
            if self.answer(request).is_err() {
                return;
            }
            window.1 += 1;
            if window.1 >= MOST_IN_WINDOW {
                thread::sleep(WINDOW.saturating_sub(window.0.elapsed()));
                window = (Instant::now(), 0);
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<(), Closed> {
        match request {
            Request::Process(pid) => {
                self.send(proc::look_at(pid).map_or(Answer::NoProcess(pid), Answer::Process))
            }
            Request::Seed(needs) => self.seed(needs),
            Request::Cgroup(id, time) => {
                let path = self.cgroups.path(id, time);
                self.send(Answer::Cgroup(id, path))
            }
            Request::User(id) => {
                let name = self.users.name(id);
                self.send(Answer::User(id, name))
            }
        }
    }

    fn seed(&mut self, needs: Needs) -> Result<(), Closed> {
        let began = clock::monotonic_ns();
        if needs.users {
            for (id, name) in self.users.all().take(MOST_SEED) {
                send(&self.answer, Answer::User(id, Some(name)))?;
            }
        }
        if needs.cgroups {
            for (id, path) in self.cgroups.all().take(MOST_SEED) {
                send(&self.answer, Answer::Cgroup(id, Some(path)))?;
            }
        }
        let mut pids = HashSet::new();
        for pid in proc::pids().filter(|_| needs.processes) {
            if let Some(seen) = proc::look_at(pid) {
                pids.insert(pid);
                self.send(Answer::Process(seen))?;
                if pids.len().is_multiple_of(WAKE_EVERY) {
                    self.waker.wake();
                }
            }
        }
        self.send(Answer::Seeded { pids: needs.processes.then_some(pids), began })?;
        self.waker.wake();
        Ok(())
    }

    fn send(&self, answer: Answer) -> Result<(), Closed> {
        send(&self.answer, answer)
    }
}

fn send(to: &Sender<Answer>, answer: Answer) -> Result<(), Closed> {
    to.send(answer).map_err(|_| Closed)
}
