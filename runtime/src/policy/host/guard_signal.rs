//! `tipstaff:policy/guard-signal`: what a policy asks for waits in the instance until the call in which
//! it was asked for has ended well. Nothing here signals anybody, see [`crate::guard`].

use super::State;
use crate::{
    guard::SignalWish,
    policy::bindings::guard_signal::tipstaff::policy::guard_signal::{self, Process},
};

impl State {
    fn ask_signal(&mut self, wish: SignalWish<'_>) -> Result<(), String> {
        let asked = self.outcome.desk.signal(&mut self.signals, wish);
        asked.map_err(|refusal| self.told(refusal))
    }
}

impl guard_signal::Host for State {
    fn send(
        &mut self,
        to: Process,
        signal: String,
        time: u64,
    ) -> wasmtime::Result<Result<(), String>> {
        let Process { pid, start } = to;
        Ok(self.ask_signal(SignalWish { pid, start, signal: &signal, tree: false, time }))
    }

    fn send_to_tree(
        &mut self,
        root: Process,
        signal: String,
        time: u64,
    ) -> wasmtime::Result<Result<(), String>> {
        let Process { pid, start } = root;
        Ok(self.ask_signal(SignalWish { pid, start, signal: &signal, tree: true, time }))
    }
}
