//! `tipstaff:policy/guard-network`: what a policy asks for waits in the instance until the call in which
//! it was asked for has ended well. Nothing here touches the machine, see [`crate::guard`].

use std::time::Duration;

use super::State;
use crate::{
    guard::{Refusal, Wish},
    policy::bindings::guard_network::tipstaff::policy::guard_network,
};

impl State {
    fn ask(&mut self, scope: &str, wish: Wish<'_>) -> Result<u32, String> {
        let asked = self.outcome.desk.ask(&mut self.waiting, scope, wish);
        asked.map_err(|refusal| self.told(refusal))
    }

    /// What the policy is told, with the limit counted that was reached.
    pub(super) fn told(&self, Refusal { reason, limit }: Refusal) -> String {
        if let Some(key) = limit {
            self.outcome.limit_reached(key);
        }
        reason
    }
}

impl guard_network::Host for State {
    fn set_table(&mut self, scope: String, table: String) -> wasmtime::Result<Result<u32, String>> {
        Ok(self.ask(&scope, Wish::Set { table: &table, log_only: false }))
    }

    fn set_log_only(
        &mut self,
        scope: String,
        table: String,
    ) -> wasmtime::Result<Result<u32, String>> {
        Ok(self.ask(&scope, Wish::Set { table: &table, log_only: true }))
    }

    fn add(
        &mut self,
        scope: String,
        rule: String,
        ttl: u64,
    ) -> wasmtime::Result<Result<u32, String>> {
        let ttl = (ttl > 0).then(|| Duration::from_nanos(ttl));
        Ok(self.ask(&scope, Wish::Add { rule: &rule, ttl }))
    }

    fn clear(&mut self, scope: String) -> wasmtime::Result<Result<(), String>> {
        Ok(self.ask(&scope, Wish::Clear).map(drop))
    }
}
