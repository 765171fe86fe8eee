//! Budgets in a whole agent: what is left out is told to policies, in the log and in metrics, and
//! what remains adds up.

#[path = "support/cgroup.rs"]
mod cgroup;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use cgroup::Cgroup;
use support::{agent::Agent, can_probe, fixture, scrape, series, until, vm::emulated};

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

/// Removes files that do not exist, many thousands a second, until it is told to stop; how many.
fn busy(stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut number, files) = (0, format!("/tally/{}", std::process::id()));
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..600 {
                std::fs::remove_file(format!("{files}/{number}")).unwrap_err();
                number += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        number
    })
}

#[test]
fn an_agent_that_uses_too_much_takes_fewer_events_and_all_of_them_again_later() {
    if !can_probe("an_agent_that_uses_too_much_takes_fewer_events_and_all_of_them_again_later") {
        return;
    }
    let files = format!("/tally/{}/", std::process::id());
    let weighed = format!("[policy.weighed.filter]\nunlink = \"path_given ^= {files}\"\n");
    let policies = [fixture("weighed"), fixture("tally")];
    // An emulated processor takes some 20 times as long for the same.
    let percent = if emulated() { 30 } else { 3 };
    let budget = format!("cpu_percent = {percent}\n");
    let mut agent = Agent::start_as(&budget, &[&policies[0], &policies[1]], &weighed);
    let stop = Arc::new(AtomicBool::new(false));
    let load = busy(&stop);
    let of_unlink = [r#"kind="unlink""#];
    until("one in two is taken", || {
        (agent.value("tipstaff_budget_sample", &of_unlink) >= 2).then_some(())
    });
    // So that rows of that weight are among them.
    thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let made = load.join().unwrap();
    // Who does not ask for the weight is told what is missing, exactly.
    until("all events are told", || {
        let seen = scrape(&agent.metrics);
        let events = series(&seen, "tally_events_total", &[])?;
        let lost = series(&seen, "tally_lost_total", &[])?;
        (events + lost >= made).then(|| assert_eq!(events + lost, made))
    });
    // Of who does, rows stand for what is missing.
    let weight = until("all rows are told", || {
        let seen = scrape(&agent.metrics);
        let rows = series(&seen, "tipstaff_rows_total", &[r#"policy="weighed""#])?;
        let told = series(&seen, "weighed_rows_total", &[])?;
        (rows >= told && told >= series(&seen, "tally_events_total", &[])?)
            .then(|| series(&seen, "weighed_weight_total", &[]).unwrap_or(0))
    });
    let (rows, lost) =
        (agent.value("weighed_rows_total", &[]), agent.value("weighed_lost_total", &[]));
    assert!(rows < made, "{rows} of {made}");
    assert!(lost == 0 && weight.abs_diff(made) < made / 100, "{weight} and {lost} of {made}");
    let allowed = format!("allowed=\"{}\"", percent * 10);
    let labels = [r#"event="unlink""#, &allowed, r#"every="2""#];
    until("the step is told", || (agent.value("weighed_steps_total", &labels) >= 1).then_some(()));
    agent.tipstaff.wait_for_log("because of `cpu_percent` in [agent]");
    until("all are taken again", || {
        (agent.value("tipstaff_budget_sample", &of_unlink) == 1).then_some(())
    });
    let labels = [r#"event="unlink""#, r#"every="1""#, r#"over="false""#];
    until("that is told", || (agent.value("weighed_steps_total", &labels) >= 1).then_some(()));
    until("all of some are rows", || {
        let before = agent.value("tally_events_total", &[]);
        for number in 0..16 {
            std::fs::remove_file(format!("{files}{number}")).unwrap_err();
        }
        thread::sleep(Duration::from_millis(300));
        (agent.value("tally_events_total", &[]) == before + 16).then_some(())
    });
    // Nothing is measured where nobody asks for it.
    agent.reword(&budget, "");
    assert_eq!(agent.value("tipstaff_agent_cpu_share", &[]), 0);
}
