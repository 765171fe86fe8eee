//! A policy that asks for rules about files and programs as a test tells it to: when it is given its settings, or
//! upon a program that runs.
#![forbid(unsafe_code)]

use tipstaff::{
    Counters, Event, On, Policy, Settings,
    guard::{Refused, exec, file},
};

#[derive(Event)]
#[event(kind = "exec")]
struct Exec<'a> {
    path: &'a str,
}

#[derive(Settings)]
struct Script {
    /// Table about files; empty: none.
    #[setting(default = "")]
    files: String,
    /// Table about programs; empty: none.
    #[setting(default = "")]
    programs: String,
    /// Path of a program upon which everything is allowed again.
    #[setting(default = "")]
    upon: String,
}

struct Confined {
    script: Script,
    results: Counters<1>,
}

impl Policy for Confined {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let confined = Self {
            script: Script::read(settings)?,
            results: Counters::new("confined_results_total", ["result"]),
        };
        let Script { files, programs, .. } = &confined.script;
        if !files.is_empty() {
            confined.result(file::Table::from(files.clone()).set());
        }
        if !programs.is_empty() {
            confined.result(exec::Table::from(programs.clone()).set());
        }
        Ok(confined)
    }
}

impl On<Exec<'_>> for Confined {
    fn on(&mut self, _time_ns: u64, exec: Exec<'_>) {
        if exec.path == self.script.upon {
            self.result(file::Table::allow_all().set());
        }
    }
}

impl Confined {
    fn result(&self, result: Result<(), Refused>) {
        let text = result.map_or_else(|refused| refused.0, |()| "ok".to_owned());
        self.results.add([&text], 1);
    }
}

tipstaff::export!(Confined: Exec<'_>; settings = Script);
