//! Signals to processes. They come after the fact: what an event tells of has happened by then.
//!
//! ```no_run
//! use tipstaff::{Event, On, Policy, guard::signal::{Process, Signal}};
//!
//! #[derive(Event)]
//! #[event(kind = "exec", urgent)]
//! struct Exec<'a> {
//!     pid: u32,
//!     start: u64,
//!     path: &'a str,
//! }
//!
//! # struct Reaper;
//! # impl Policy for Reaper {
//! #     fn configure(_: &[(String, String)]) -> Result<Self, String> { Ok(Self) }
//! # }
//! impl On<Exec<'_>> for Reaper {
//!     fn on(&mut self, time_ns: u64, exec: Exec<'_>) {
//!         if exec.path == "/usr/bin/miner" {
//!             let process = Process { pid: exec.pid, start: exec.start };
//!             // Refused in observe mode: there is still something to watch.
//!             let _ = process.send(Signal::Kill, time_ns);
//!         }
//!     }
//! }
//! ```
//!
//! What is asked for is done when the call in which it was asked for has ended well. What became of it is
//! told to the operator (`tipstaff explain`).

use crate::bindings::guard_signal::tipstaff::policy::guard_signal;

pub use super::Refused;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Asks it to end.
    Term,
    /// Ends it.
    Kill,
    /// What Ctrl-C sends.
    Int,
    /// What a terminal that goes sends.
    Hup,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Int => "INT",
            Self::Hup => "HUP",
        }
    }
}

/// A process, as events name it. A number alone is none: it may be another process's by now, which is
/// never signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number: `pid`, `child_pid`.
    pub pid: u32,
    /// Its start: `start`, `child_start`, `proc.start`.
    pub start: u64,
}

impl Process {
    /// Sends a signal to it. `time_ns` is that of the event upon which it is sent, from which the decision
    /// says how long it took; 0: none.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn send(self, signal: Signal, time_ns: u64) -> Result<(), Refused> {
        guard_signal::send(self.binding(), signal.name(), time_ns).map_err(Refused)
    }

    /// The same to it and all that descend from it and whose parents have not ended. With
    /// [`Signal::Kill`] they are stopped first, so that none gets away by a fork.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn send_to_tree(self, signal: Signal, time_ns: u64) -> Result<(), Refused> {
        guard_signal::send_to_tree(self.binding(), signal.name(), time_ns).map_err(Refused)
    }

    const fn binding(self) -> guard_signal::Process {
        guard_signal::Process { pid: self.pid, start: self.start }
    }
}
