//! Policies built from source, given rows made by hand: what they compute, and what becomes of
//! those that misbehave.

mod court;

use std::time::{Duration, Instant};

use court::{Court, batch, eventually};
use tipstaff_runtime::{
    outcome::{PolicyLabels, Severity},
    policy::{Life, Limits, Refusal, Running},
    queue::Batch,
};

#[test]
fn a_policy_counts_its_rows_and_ticks_and_stops_after_the_last_batch() {
    let court = Court::new();
    let policy = court.run("", &Limits::default());
    assert_eq!(policy.manifest().subscriptions[0].fields.len(), 3);
    let exports = court.load_fixture().exports;
    assert_eq!(exports.len(), 3, "the worlds of the optional exports are merged: {exports:?}");
    for n in 0..100 {
        policy.queue().push(&batch(n * 10, &["/bin/true", "/bin/é", "/bin/true"]));
    }
    let queue = std::sync::Arc::clone(policy.queue());
    eventually("a tick", || court.count("ticks", None) >= 2);
    queue.push(&batch(2000, &["/bin/last"]));
    assert!(policy.stop(court::PATIENCE));
    assert_eq!(court.count("rows", Some(("path", "/bin/true"))), 200);
    assert_eq!(court.count("rows", Some(("path", "/bin/é"))), 100);
    assert_eq!(court.count("rows", Some(("path", "/bin/last"))), 1);
    assert_eq!(court.count("args_bytes", None), 301);
}

#[test]
fn what_the_queue_dropped_comes_as_a_gap_before_the_next_batch() {
    let court = Court::new();
    let limits = Limits { queue: 1, ..Limits::default() };
    let policy = court.run("upon = \"slow\"\npath = \"/slow\"", &limits);
    let queue = policy.queue();
    // Until the policy is busy with one batch and the queue holds another.
    let mut pushed = 0;
    while queue.dropped() == 0 {
        queue.push(&batch(pushed, &["/slow", "/bin/true"]));
        pushed += 2;
    }
    let dropped = queue.dropped();
    eventually("an empty queue", || policy.numbers().rows + dropped == pushed);
    queue.push(&batch(pushed, &["/bin/true"]));
    assert!(policy.stop(court::PATIENCE));
    assert_eq!(court.count("lost", Some(("cause", "4"))), dropped);
    assert_eq!(policy.numbers().rows + dropped, pushed + 1);
}

#[test]
fn an_alert_keeps_its_labels_and_is_limited() {
    let court = Court::new();
    let limits = Limits { alerts_per_minute: 0, alerts_burst: 3, ..Limits::default() };
    let policy = court.run("upon = \"alert\"", &limits);
    policy.queue().push(&batch(5, &["/a", "/b", "/c", "/d"]));
    assert!(policy.stop(court::PATIENCE));
    let alerts: Vec<_> = court.alerts.try_iter().collect();
    assert_eq!(
        alerts.iter().map(|alert| alert.message.as_str()).collect::<Vec<_>>(),
        ["/a", "/b", "/c"]
    );
    assert_eq!(alerts[1].labels, [("time".to_owned(), "6".to_owned())]);
    assert_eq!((alerts[0].severity, alerts[0].policy.as_str()), (Severity::Warning, "fixture"));
}

/// Runs the fixture with this behaviour upon `/bad`: its instance is lost and another one goes on.
fn is_lost_and_restarted(upon: &str) {
    let court = Court::new();
    let limits = Limits { memory: 4 << 20, ..Limits::default() };
    let policy = court.run(&format!("upon = \"{upon}\"\npath = \"/bad\""), &limits);
    policy.queue().push(&batch(0, &["/good"]));
    policy.queue().push(&batch(10, &["/good", "/bad", "/good"]));
    policy.queue().push(&batch(20, &["/good"]));
    eventually("the last batch", || policy.numbers().batches == 2);
    assert_eq!(policy.numbers().traps, 1, "{upon}");
    assert_eq!(policy.numbers().rows, 2);
    assert_eq!(policy.life(), Life::Running);
    assert!(policy.stop(court::PATIENCE));
    // The counter goes on, and what it says agrees with what is said to be lost.
    assert_eq!(court.count("rows", Some(("path", "/good"))), 2);
    assert_eq!(
        court.count("lost", Some(("cause", "6"))),
        3,
        "the next instance is told of the whole batch"
    );
}

#[test]
fn a_panic_costs_the_instance() {
    is_lost_and_restarted("panic");
}

#[test]
fn an_endless_loop_costs_the_instance() {
    is_lost_and_restarted("loop");
}

#[test]
fn growing_beyond_the_limit_costs_the_instance() {
    is_lost_and_restarted("grow");
}

#[test]
fn endless_recursion_costs_the_instance() {
    is_lost_and_restarted("recurse");
}

#[test]
fn a_metric_with_other_labels_costs_the_instance() {
    is_lost_and_restarted("other labels");
}

#[test]
fn a_malformed_metric_name_costs_the_instance() {
    is_lost_and_restarted("bad name");
}

#[test]
fn leaking_handles_costs_the_instance() {
    is_lost_and_restarted("leak");
}

#[test]
fn passing_too_much_to_the_host_costs_the_instance() {
    is_lost_and_restarted("big");
}

#[test]
fn too_many_lost_instances_end_in_quarantine_and_the_queue_stays_empty() {
    let court = Court::new();
    let policy = court.run("upon = \"panic\"", &Limits::default());
    for n in 0..10 {
        policy.queue().push(&batch(n, &["/a"]));
    }
    eventually("quarantine", || policy.life() == Life::Quarantined);
    assert_eq!(policy.numbers().traps, 5);
    policy.queue().push(&batch(99, &["/a"]));
    eventually("an empty queue", || policy.queue().is_empty());
    assert_eq!(policy.numbers().rows, 0);
    assert!(policy.stop(court::PATIENCE));
}

#[test]
fn a_slow_policy_does_not_hold_a_healthy_one() {
    let court = Court::new();
    let loaded = court.load_fixture();
    let start = |settings: &str| {
        let limits = Limits { cpu_per_call: Duration::from_secs(5), ..Limits::default() };
        court.pool.start(court.configure(&loaded, settings, &limits).unwrap()).unwrap()
    };
    // Both bear the same name, which is the agent's business to refuse, not the pool's.
    let (lame, healthy) = (start("upon = \"loop\"\npath = \"/slow\""), start(""));
    lame.queue().push(&batch(0, &["/slow"]));
    for n in 0..50 {
        healthy.queue().push(&batch(n, &["/a"]));
        eventually("the batch", || healthy.queue().is_empty());
    }
    assert_eq!(lame.numbers().traps, 0, "it is still in its call");
    drop(healthy);
    drop(lame);
}

#[test]
fn policies_that_always_have_something_to_do_share_a_worker_whatever_a_call_takes() {
    let court = Court::with_workers(1);
    let loaded = court.load_fixture();
    let start = || {
        let limits = Limits {
            cpu_per_call: Duration::from_mins(1),
            cpu_percent: 10_000,
            queue: usize::MAX,
            ..Limits::default()
        };
        let settings = "upon = \"slow\"\npath = \"/slow\"";
        court.pool.start(court.configure(&loaded, settings, &limits).unwrap()).unwrap()
    };
    // Both bear the same name, which is the agent's business to refuse, not the pool's: so what
    // they used is told apart by what waits.
    let (hog, modest) = (start(), start());
    let (large, small) = (batch(0, &["/slow"; 20]), batch(0, &["/slow"; 2]));
    let (hogs, modests) = (100, 1000);
    for _ in 0..modests {
        modest.queue().push(&small);
    }
    for _ in 0..hogs {
        hog.queue().push(&large);
    }
    let done =
        |policy: &Running, of: &Batch, all: usize| all - policy.queue().bytes() / of.bytes.len();
    eventually("a part of the work", || done(&modest, &small, modests) >= 100);
    let (theirs, ours) = (done(&hog, &large, hogs) * 20, done(&modest, &small, modests) * 2);
    // A turn of the hog is one batch of 20, and one may be under way.
    assert!(theirs <= ours + 2 * 20 + 20, "{theirs} rows of the hog, {ours} of the other");
    assert!(ours < 2 * modests, "the load did not last");
    for policy in [&hog, &modest] {
        let _ = policy.stop(Duration::ZERO);
    }
}

#[test]
fn a_policy_gets_its_share_of_a_core_and_no_more() {
    let court = Court::new();
    let limits = Limits { cpu_percent: 5, queue: usize::MAX, ..Limits::default() };
    let policy = court.run("upon = \"slow\"\npath = \"/slow\"", &limits);
    let begin = Instant::now();
    let (one, all) = (batch(0, &["/slow"]), 100_000);
    for _ in 0..all {
        policy.queue().push(&one);
    }
    let labels = PolicyLabels { policy: "fixture".into() };
    let throttled = court.outcome.counts.throttled.get_or_create_owned(&labels);
    eventually("a second of waiting", || throttled.get() > 1.0);
    let used = policy.numbers().cpu_seconds;
    // Saved at first, earned since, and one call too many each time that it waits is paid back.
    let earned = 0.05 * (1.0 + begin.elapsed().as_secs_f64()) + 0.05;
    assert!(used <= earned, "{used} s used, {earned} s earned");
    assert!(!policy.queue().is_empty());
    let _ = policy.stop(Duration::ZERO);
}

#[test]
fn a_replaced_policy_gets_no_second_burst_of_alerts() {
    let court = Court::new();
    let limits = Limits { alerts_per_minute: 0, alerts_burst: 3, ..Limits::default() };
    let settings = "upon = \"alert\"";
    let loaded = court.load_fixture();
    let mut policy = court.run(settings, &limits);
    policy.queue().push(&batch(5, &["/a", "/b"]));
    eventually("the alerts", || policy.numbers().rows == 2);
    let next = policy.prepare(court.configure(&loaded, settings, &limits).unwrap(), true).unwrap();
    policy.replace(next);
    policy.queue().push(&batch(7, &["/c", "/d", "/e"]));
    assert!(policy.stop(court::PATIENCE));
    let alerts: Vec<_> = court.alerts.try_iter().map(|alert| alert.message).collect();
    assert_eq!(alerts, ["/a", "/b", "/c"]);
}

#[test]
fn settings_that_the_policy_refuses_are_a_load_error() {
    let court = Court::new();
    let loaded = court.load_fixture();
    let refusal =
        |settings: &str| court.configure(&loaded, settings, &Limits::default()).err().unwrap();
    let error = refusal("upon = \"refuse\"");
    assert!(
        error.to_string().ends_with(
            "fixture.wasm: the policy `fixture` refuses its settings: setting `upon` is refused"
        ),
        "{error}"
    );
    let error = refusal("upon = \"panic in configure\"");
    assert!(matches!(error.reason, Refusal::Call(_)), "{error}");
    assert!(error.to_string().contains("`configure` failed: the guest trapped: "), "{error}");
    assert!(error.to_string().contains("(in "), "the guest's functions are named: {error}");
}

#[test]
fn too_small_a_memory_is_refused_with_the_key_that_changes_it() {
    let court = Court::new();
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let error = court.configure(&court.load_fixture(), "", &limits).err().unwrap();
    assert!(error.to_string().contains("raise `memory` in [policy.fixture.limits]"), "{error}");
}
