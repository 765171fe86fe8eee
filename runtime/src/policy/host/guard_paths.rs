//! `tipstaff:policy/guard-file` and `guard-exec`: what a policy asks for waits in the instance until the call in
//! which it was asked for has ended well. Nothing here touches the machine, see [`crate::guard::paths`].

use super::State;
use crate::{
    guard::{Grant, Refusal},
    policy::bindings::{
        guard_exec::tipstaff::policy::guard_exec, guard_file::tipstaff::policy::guard_file,
    },
};

impl State {
    fn ask_paths(&mut self, grant: Grant, scope: &str, table: &str) -> Result<(), String> {
        let asked = self.outcome.desk.ask_paths(&mut self.waiting_paths, grant, scope, table);
        asked.map_err(|Refusal { reason, limit }| {
            if let Some(key) = limit {
                self.outcome.limit_reached(key);
            }
            reason
        })
    }
}

impl guard_file::Host for State {
    fn set_table(&mut self, scope: String, table: String) -> wasmtime::Result<Result<(), String>> {
        Ok(self.ask_paths(Grant::File, &scope, &table))
    }
}

impl guard_exec::Host for State {
    fn set_table(&mut self, scope: String, table: String) -> wasmtime::Result<Result<(), String>> {
        Ok(self.ask_paths(Grant::Exec, &scope, &table))
    }
}
