//! One running copy of a policy, and how it is called.

use std::time::Duration;

use wasmtime::{
    Engine, Store,
    component::{Component, InstancePre, Linker},
};

use super::{
    Limits,
    bindings::{
        exports::tipstaff::policy::policy::{Guest, GuestIndices},
        ticks::exports::tipstaff::policy::ticks,
    },
    error::CallError,
    host::{PolicyOutcome, State},
    limits::HOST_CALL_BYTES,
    ticker::Clocked,
};

/// A compiled component with its imports resolved: what an instance is made from in microseconds.
#[derive(Clone)]
pub struct Program {
    clocked: Clocked,
    pre: InstancePre<State>,
    policy: GuestIndices,
    ticks: Option<ticks::GuestIndices>,
}

impl Program {
    /// Resolves the imports of a component, which must be a policy.
    pub fn new(
        clocked: &Clocked,
        linker: &Linker<State>,
        component: &Component,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        Ok(Self {
            clocked: clocked.clone(),
            policy: GuestIndices::new(&pre)?,
            // An error says that it is not exported.
            ticks: ticks::GuestIndices::new(&pre).ok(),
            pre,
        })
    }

    /// Whether the policy exports `ticks`.
    pub const fn has_ticks(&self) -> bool {
        self.ticks.is_some()
    }

    fn engine(&self) -> &Engine {
        self.clocked.engine()
    }
}

/// A running copy. Any error of a call is the end of it: drop it then.
pub struct Instance {
    store: Store<State>,
    clocked: Clocked,
    policy: Guest,
    ticks: Option<ticks::Guest>,
}

impl Instance {
    /// Makes an instance. The guest's start function runs, under the limits of a call.
    pub fn new(
        program: &Program,
        outcome: PolicyOutcome,
        limits: &Limits,
    ) -> Result<Self, CallError> {
        let mut store = Store::new(program.engine(), State::new(outcome, limits));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(HOST_CALL_BYTES);
        store.epoch_deadline_callback(|context| context.data().deadline.check());
        store.set_epoch_deadline(1);
        let ticking = program.clocked.ticking();
        let start = |store: &mut Store<State>| {
            let instance = program.pre.instantiate(&mut *store)?;
            let policy = program.policy.load(&mut *store, &instance)?;
            let ticks = program
                .ticks
                .as_ref()
                .map(|ticks| ticks.load(&mut *store, &instance))
                .transpose()?;
            Ok((policy, ticks))
        };
        let (policy, ticks) =
            start(&mut store).map_err(|error| CallError::new("instantiate", &error))?;
        drop(ticking);
        Ok(Self { store, clocked: program.clocked.clone(), policy, ticks })
    }

    /// Gives the settings; the manifest in force, or what the policy has against them.
    pub fn configure(
        &mut self,
        settings: &[(String, String)],
    ) -> Result<Result<String, String>, CallError> {
        self.call("configure", |policy, _, store| policy.call_configure(store, settings))
    }

    /// Hands over rows.
    pub fn on_batch(&mut self, rows: &[u8]) -> Result<(), CallError> {
        self.call("on-batch", |policy, _, store| policy.call_on_batch(store, rows))
    }

    /// Says that it is time, if the policy wants to know.
    pub fn on_tick(&mut self, now_ns: u64) -> Result<(), CallError> {
        self.call("on-tick", |_, ticks, store| {
            ticks.map_or(Ok(()), |ticks| ticks.call_on_tick(store, now_ns))
        })
    }

    /// Processor time of the last call.
    pub fn cpu(&self) -> Duration {
        self.store.data().deadline.cpu()
    }

    fn call<R>(
        &mut self,
        function: &'static str,
        call: impl FnOnce(&Guest, Option<&ticks::Guest>, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        self.store.data_mut().deadline.restart();
        self.store.set_epoch_deadline(1);
        let _ticking = self.clocked.ticking();
        call(&self.policy, self.ticks.as_ref(), &mut self.store)
            .map_err(|error| CallError::new(function, &error))
    }
}
