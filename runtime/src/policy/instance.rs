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
        hand_over::exports::tipstaff::policy::hand_over,
        ticks::exports::tipstaff::policy::ticks,
    },
    error::CallError,
    host::{PolicyOutcome, State},
    ticker::Clocked,
};

/// A compiled component with its imports resolved: what an instance is made from in microseconds.
#[derive(Clone)]
pub struct Program {
    clocked: Clocked,
    pre: InstancePre<State>,
    policy: GuestIndices,
    ticks: Option<ticks::GuestIndices>,
    hand_over: Option<hand_over::GuestIndices>,
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
            hand_over: hand_over::GuestIndices::new(&pre).ok(),
            pre,
        })
    }

    /// Whether the policy exports `ticks`.
    pub const fn has_ticks(&self) -> bool {
        self.ticks.is_some()
    }

    /// Whether the policy exports `hand-over`.
    pub const fn has_hand_over(&self) -> bool {
        self.hand_over.is_some()
    }

    fn engine(&self) -> &Engine {
        self.clocked.engine()
    }
}

/// A running copy. Any error of a call is the end of it: drop it then.
pub struct Instance {
    store: Store<State>,
    clocked: Clocked,
    exports: Exports,
    cpu_per_call: Duration,
    host_call: usize,
    /// Whether it runs, and is not only made ready.
    runs: bool,
}

/// What can be called.
struct Exports {
    policy: Guest,
    ticks: Option<ticks::Guest>,
    hand_over: Option<hand_over::Guest>,
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
        store.set_hostcall_fuel(limits.host_call);
        store.epoch_deadline_callback(|context| context.data().deadline.check());
        store.set_epoch_deadline(1);
        let ticking = program.clocked.ticking();
        let Program { clocked: _, pre, policy, ticks, hand_over } = program;
        let start = |store: &mut Store<State>| {
            let instance = pre.instantiate(&mut *store)?;
            Ok(Exports {
                policy: policy.load(&mut *store, &instance)?,
                ticks: ticks
                    .as_ref()
                    .map(|ticks| ticks.load(&mut *store, &instance))
                    .transpose()?,
                hand_over: hand_over
                    .as_ref()
                    .map(|hand_over| hand_over.load(&mut *store, &instance))
                    .transpose()?,
            })
        };
        let exports = start(&mut store).map_err(|error| CallError::new("instantiate", &error))?;
        drop(ticking);
        let Limits { cpu_per_call, host_call, .. } = *limits;
        let clocked = program.clocked.clone();
        Ok(Self { store, clocked, exports, cpu_per_call, host_call, runs: false })
    }

    /// Gives the settings; the manifest in force, or what the policy has against them.
    pub fn configure(
        &mut self,
        settings: &[(String, String)],
    ) -> Result<Result<String, String>, CallError> {
        let configured =
            self.call("configure", |exports, store| exports.policy.call_configure(store, settings));
        // From now on it is called again and again.
        self.store.data_mut().deadline.limit_to(self.cpu_per_call, "cpu_per_call");
        configured
    }

    /// Hands over rows.
    pub fn on_batch(&mut self, rows: &[u8]) -> Result<(), CallError> {
        self.call("on-batch", |exports, store| exports.policy.call_on_batch(store, rows))
    }

    /// Says that it is time, if the policy wants to know.
    pub fn on_tick(&mut self, now_ns: u64) -> Result<(), CallError> {
        self.call("on-tick", |exports, store| {
            exports.ticks.as_ref().map_or(Ok(()), |ticks| ticks.call_on_tick(store, now_ns))
        })
    }

    /// The state for the instance that replaces this one, of at most so many bytes; nothing if the
    /// policy hands none over.
    pub fn save(&mut self, most: usize) -> Result<Option<Vec<u8>>, CallError> {
        self.store.set_hostcall_fuel(most);
        let saved = self.call("save", |exports, store| {
            exports.hand_over.as_ref().map(|hand_over| hand_over.call_save(store)).transpose()
        });
        self.store.set_hostcall_fuel(self.host_call);
        saved
    }

    /// Gives the state of another generation; what the policy has against it.
    pub fn restore(&mut self, state: &[u8]) -> Result<Result<(), String>, CallError> {
        self.call("restore", |exports, store| {
            exports
                .hand_over
                .as_ref()
                .map_or(Ok(Ok(())), |hand_over| hand_over.call_restore(store, state))
        })
    }

    /// From now on it runs: what it asked for while it was made ready is handed over, and then what it
    /// asks for in each call that ends well.
    pub fn runs(&mut self) {
        self.runs = true;
        self.store.data_mut().hand_in();
    }

    /// Processor time of the last call.
    pub fn cpu(&self) -> Duration {
        self.store.data().deadline.cpu()
    }

    fn call<R>(
        &mut self,
        function: &'static str,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        self.store.data_mut().deadline.restart();
        self.store.set_epoch_deadline(1);
        let _ticking = self.clocked.ticking();
        let result = call(&self.exports, &mut self.store)
            .map_err(|error| CallError::new(function, &error))?;
        if self.runs {
            self.store.data_mut().hand_in();
        }
        Ok(result)
    }
}
