//! Counts executions as a tracepoint from the configuration shows them: a kind `run` that the
//! catalogue does not have.
#![forbid(unsafe_code)]

use tipstaff::{Counters, Event, On, Policy};

#[derive(Event)]
#[event(kind = "run")]
struct Run<'a> {
    filename: &'a str,
    /// The common field, from the header.
    pid: u32,
    old_pid: i32,
}

struct TallyTracepoint(Counters<1>);

impl Policy for TallyTracepoint {
    fn configure(_: &[(String, String)]) -> Result<Self, String> {
        Ok(Self(Counters::new("tally_runs_total", ["filename"])))
    }
}

impl On<Run<'_>> for TallyTracepoint {
    fn on(&mut self, _time_ns: u64, run: Run<'_>) {
        // A process of one thread keeps its number.
        if i64::from(run.old_pid) == i64::from(run.pid) {
            self.0.add([run.filename], 1);
        }
    }
}

tipstaff::export!(TallyTracepoint: Run<'_>);
