//! A policy that asks for guardrails as a test tells it to: a table when it is given its settings, and
//! something more upon a program that runs.
#![forbid(unsafe_code)]

use tipstaff::{
    Counters, Event, On, Policy, Settings,
    guard::network::{self, Refused, Rule, Table},
};

#[derive(Event)]
#[event(kind = "exec")]
struct Exec<'a> {
    path: &'a str,
}

#[derive(Settings)]
struct Script {
    /// Where.
    scope: String,
    /// Table to be set at once; empty: none.
    #[setting(default = "")]
    table: String,
    /// Whether it only logs.
    #[setting(default = false)]
    log_only: bool,
    /// Path upon which something more is done.
    #[setting(default = "")]
    upon: String,
    /// What that is.
    #[setting(default = "")]
    then: String,
}

struct Guarded {
    script: Script,
    results: Counters<1>,
}

impl Policy for Guarded {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let guarded = Self {
            script: Script::read(settings)?,
            results: Counters::new("guarded_results_total", ["result"]),
        };
        let Script { scope, table, log_only, .. } = &guarded.script;
        if !table.is_empty() {
            let table = Table::from(table.clone());
            let set = if *log_only { table.set_log_only(scope) } else { table.set(scope) };
            guarded.result(set);
        }
        Ok(guarded)
    }
}

impl On<Exec<'_>> for Guarded {
    fn on(&mut self, _time_ns: u64, exec: Exec<'_>) {
        if exec.path != self.script.upon {
            return;
        }
        let scope = &self.script.scope;
        match self.script.then.as_str() {
            "deny" => self.result(network::deny(scope, &Rule::to("any").tcp(), None)),
            "clear" => self.result(network::clear(scope)),
            "flood" => {
                for port in 1..=200 {
                    let table = Table::allow_all().deny(&Rule::to("192.0.2.1").port(port));
                    self.result(table.set(scope));
                }
            }
            // More often than a cgroup takes programs.
            "flicker" => {
                for _ in 0..80 {
                    self.result(network::clear(scope));
                    self.result(Table::from(self.script.table.clone()).set(scope));
                }
                self.result(network::deny(scope, &Rule::to("any").tcp(), None));
            }
            "set and panic" => {
                self.result(Table::deny_all("never").set(scope));
                panic!("as told");
            }
            other => panic!("told to {other:?}"),
        }
    }
}

impl Guarded {
    fn result<T>(&self, result: Result<T, Refused>) {
        let text = result.map_or_else(|refused| refused.0, |_| "ok".to_owned());
        self.results.add([&text], 1);
    }
}

tipstaff::export!(Guarded: Exec<'_>; settings = Script);
