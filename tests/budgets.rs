//! Budgets in a whole agent: what is left out is told to policies, in the log and in metrics, and
//! what remains adds up.

#[path = "support/cgroup.rs"]
mod cgroup;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::process::{Child, Command};

use cgroup::Cgroup;
use support::{agent::Agent, can_probe, fixture, scrape, series, until};

/// Has Python, in a cgroup, remove so many files that do not exist.
fn removes(mut command: Command, times: u64) -> Child {
    let script = format!(
        "import os\nfor i in range({times}):\n try: os.unlink('{}' + str(i))\n except OSError: pass",
        files()
    );
    command.args(["-I", "-S", "-c", &script]).spawn().expect("python runs")
}

/// Where these files would be.
fn files() -> String {
    format!("/nowhere/budgets/{}/", std::process::id())
}

/// What others do at the same time is not counted.
fn filter() -> String {
    format!("[policy.weighed.filter]\nunlink = \"path_given ^= {}\"\n", files())
}

#[test]
fn a_cgroup_that_is_too_loud_is_named_and_what_is_left_out_of_it_is_counted() {
    const TIMES: u64 = 30_000;
    if !can_probe("a_cgroup_that_is_too_loud_is_named_and_what_is_left_out_of_it_is_counted") {
        return;
    }
    let cgroup = Cgroup::new();
    let budget = "events_per_cgroup = 500\n";
    let mut agent = Agent::start_as(budget, &[&fixture("weighed")], &filter());
    assert!(removes(cgroup.command("/usr/bin/python3"), TIMES).wait().unwrap().success());
    let lost = until("all events are told", || {
        let seen = scrape(&agent.metrics);
        let rows = series(&seen, "weighed_rows_total", &[])?;
        let lost = series(&seen, "weighed_lost_total", &[])?;
        (rows + lost >= TIMES).then(|| {
            assert_eq!(rows + lost, TIMES);
            lost
        })
    });
    let labels = [r#"kind="unlink""#, r#"cause="cgroup_budget""#];
    until("the metric agrees", || {
        (agent.value("tipstaff_events_lost_total", &labels) == lost).then_some(())
    });
    let name = cgroup.path().file_name().unwrap().to_str().unwrap();
    let labels = [&format!("cgroup=\"{}\"", cgroup.id()), &format!("path=\"/{name}\"")];
    let labels = [labels[0].as_str(), labels[1].as_str(), r#"per_second="500""#];
    until("the event agrees", || {
        (agent.value("weighed_left_out_total", &labels) == lost).then_some(())
    });
    let log = agent.tipstaff.wait_for_log("makes more events than its budget");
    assert!(log.contains(&format!("/{name}")), "{log}");
    // Taken back while it runs: all is seen.
    agent.reword(budget, "");
    let rows = agent.value("weighed_rows_total", &[]);
    assert!(removes(cgroup.command("/usr/bin/python3"), TIMES).wait().unwrap().success());
    until("all events are rows", || {
        (agent.value("weighed_rows_total", &[]) == rows + TIMES).then_some(())
    });
    assert_eq!(agent.value("weighed_lost_total", &[]), lost);
}
