//! How long a call may run.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

/// The time that a call has: processor time of the thread that runs it, and wall time.
#[derive(Debug)]
pub struct Deadline {
    limit: Duration,
    /// Key of `limit` in `[limits]`.
    key: &'static str,
    wall_limit: Duration,
    cpu: Duration,
    wall: Instant,
}

/// A call ran for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it ran for {ran:?}, its limit for a call is {limit:?} (`{key}`)")]
pub struct TooLong {
    /// Processor time, or wall time where that limit was reached first.
    pub ran: Duration,
    /// Processor time allowed.
    pub limit: Duration,
    /// Key of the limit in `[limits]`.
    pub key: &'static str,
}

impl Deadline {
    /// A deadline for calls that may take `limit`, and ten times that in wall time. It counts from now.
    pub fn new(limit: Duration, key: &'static str) -> Self {
        Self::with_wall(limit, key, limit * 10)
    }

    /// A deadline with a limit of its own on wall time, for a thread that seldom gets to run.
    pub fn with_wall(limit: Duration, key: &'static str, wall_limit: Duration) -> Self {
        Self { limit, key, wall_limit, cpu: thread_cpu(), wall: Instant::now() }
    }

    /// Calls have another limit from now on; the one that ran last keeps its time.
    pub fn limit_to(&mut self, limit: Duration, key: &'static str) {
        let Self { cpu, wall, .. } = *self;
        *self = Self { cpu, wall, limit, key, wall_limit: limit * 10 };
    }

    /// A call begins.
    pub fn restart(&mut self) {
        *self = Self::with_wall(self.limit, self.key, self.wall_limit);
    }

    /// Processor time of this thread since the call began.
    pub fn cpu(&self) -> Duration {
        thread_cpu().saturating_sub(self.cpu)
    }

    /// To be called at each epoch while a guest runs.
    pub fn check(&self) -> wasmtime::Result<UpdateDeadline> {
        let (cpu, wall) = (self.cpu(), self.wall.elapsed());
        if cpu > self.limit {
            return Err(TooLong { ran: cpu, limit: self.limit, key: self.key }.into());
        }
        if wall > self.wall_limit {
            return Err(TooLong { ran: wall, limit: self.limit, key: self.key }.into());
        }
        Ok(UpdateDeadline::Continue(1))
    }
}

/// Processor time of the calling thread.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
