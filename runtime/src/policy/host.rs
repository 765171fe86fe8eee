//! What the host offers to guests: one file per interface, and the state that belongs to an
//! instance. Whatever comes from a guest is hostile: numbers are clamped, texts cut, rates limited.

mod alerts;
mod guard_network;
mod guard_paths;
mod guard_signal;
mod kept;
mod log;
mod metrics;
mod state;
pub mod wasi;

use wasmtime::component::{HasSelf, Linker, ResourceTable};

use super::{
    Limits,
    bindings::{
        Author, guard_exec::AuthorGuardExec, guard_file::AuthorGuardFile,
        guard_network::AuthorGuardNetwork, guard_signal::AuthorGuardSignal,
    },
    deadline::Deadline,
    limiter::Limiter,
};
use crate::guard::{Ask, SignalAsk, paths::PathAsk};

pub use kept::{Outcome, PolicyOutcome};

/// What belongs to one instance.
pub struct State {
    /// How much memory it has.
    pub limiter: Limiter,
    /// When the call that runs has to end.
    pub deadline: Deadline,
    outcome: PolicyOutcome,
    /// Actions that were asked for in the call that runs.
    waiting: Vec<Ask>,
    /// Signals likewise.
    signals: Vec<SignalAsk>,
    waiting_paths: Vec<PathAsk>,
    handles: ResourceTable,
    stdout: wasi::Lines,
    stderr: wasi::Lines,
}

impl State {
    /// The state of a new instance.
    pub fn new(outcome: PolicyOutcome, limits: &Limits) -> Self {
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(limits.handles);
        Self {
            limiter: Limiter::new(limits),
            deadline: Deadline::new(limits.start_up, "start_up"),
            outcome,
            waiting: Vec::new(),
            signals: Vec::new(),
            waiting_paths: Vec::new(),
            handles,
            stdout: wasi::Lines::default(),
            stderr: wasi::Lines::default(),
        }
    }

    /// Hands over the actions that were asked for: the call has ended well, and the instance runs.
    pub fn hand_in(&mut self) {
        // They are what is urgent: a table takes milliseconds.
        self.outcome.desk.hand_in_signals(&mut self.signals);
        self.outcome.desk.hand_in(&mut self.waiting);
        self.outcome.desk.hand_in_paths(&mut self.waiting_paths);
    }
}

/// All interfaces. What needs a grant is refused before where it is not granted.
pub fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    Author::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    AuthorGuardNetwork::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    AuthorGuardSignal::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    AuthorGuardFile::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    AuthorGuardExec::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}
