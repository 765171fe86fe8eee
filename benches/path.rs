//! What an event costs the host: draining the ring and doing nothing, against the whole path of
//! draining, projection, batch, and the call of a trivial policy, by the number of events in a batch.
//!
//! A ring is filled with real records (six numbers asked for of the tracepoint of `getppid`, 80
//! bytes each), then drained one way or another, in turn. What counts is the processor time of this
//! process from the first record to the last row that the policy took, all threads together.

use std::{hint::black_box, process::Command, sync::Arc, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tipstaff_runtime::{
    feed::{Member, MemberId},
    intake::Intake,
    kind::Kinds,
    outcome::{AgentMetrics, Alerts, Metrics},
    plan,
    policy::{Compiler, Limits, Outcome, Pool, Workshop},
    probe::{Probes, RingSizes},
    source::{Item, Rings, Source as _},
};

/// Events in the ring per run.
const EVENTS: u64 = 200_000;
/// Runs of each way, of which the median counts.
const RUNS: usize = 11;
/// Events per batch; the last one is more than a batch holds.
const BATCHES: [u64; 4] = [1, 16, 256, 4096];
/// Items taken from the ring at a time, as the reader does.
const MOST: usize = 4096;

fn main() {
    if std::env::args().any(|argument| argument == "--produce") {
        for _ in 0..EVENTS {
            black_box(rustix::process::getppid());
        }
        return;
    }
    let sizes = RingSizes { bulk: 64 << 20, ..RingSizes::default() };
    let mut probes = Probes::open(sizes).expect("root, and a kernel with BTF");
    let kind = probes.tracepoint("syscalls:sys_enter_getppid", "getppid").expect("a tracepoint");
    let kinds = Kinds::with(vec![kind]);

    let directory = tempfile::tempdir().expect("a directory");
    let compiler = Compiler::new(directory.path(), Workshop::Here).expect("a compiler");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies/tests/trivial.wasm");
    let loaded = compiler.load(file.as_ref()).expect("run tools/build-policies.sh tests");
    let counts = Arc::new(AgentMetrics::default());
    let (alerts, _sink) = Alerts::new(1, Arc::clone(&counts));
    let outcome = Outcome::new(Metrics::new(Duration::from_mins(10)), alerts, counts);
    let pool = Pool::new(1, outcome.clone()).expect("threads");
    let limits = Limits { queue: 1 << 30, cpu_percent: 10_000, ..Limits::default() };
    let configured = loaded.configure(Vec::new(), &limits, &outcome).expect("configured");
    let plan =
        plan::bind("trivial", &configured.manifest.subscriptions, &kinds, &[]).expect("bound");
    let plan = Arc::new(plan);
    let policy = pool.start(configured).expect("started");

    probes.apply(&plan.wanted.clone().into()).expect("attached");
    let mut rings = Rings::new(&probes).expect("rings");
    let mut drains = Vec::new();
    let mut paths: [Vec<f64>; BATCHES.len()] = Default::default();
    for _ in 0..RUNS {
        produce();
        drains.push(drain(&mut rings));
        for (batch, times) in BATCHES.iter().zip(&mut paths) {
            produce();
            let mut intake = Intake::new(None);
            let member = Member { id: MemberId(0), queue: Arc::clone(policy.queue()) };
            intake.join(&plan, u64::MAX / 2, member, 0, false);
            let before = policy.numbers().rows;
            let start = cpu_ns();
            let events = through(&mut rings, &mut intake, *batch);
            while policy.numbers().rows < before + events {
                thread::sleep(Duration::from_millis(1));
            }
            times.push(per_event(cpu_ns() - start, events));
        }
    }
    let drained = median(drains);
    println!("| way | events per batch | ns per event | against draining |");
    println!("|---|---|---|---|");
    println!("| drain only | | {drained:.1} | 1.00 |");
    for (batch, times) in BATCHES.iter().zip(paths) {
        let time = median(times);
        println!("| whole path | {batch} | {time:.1} | {:.2} |", time / drained);
    }
}

/// Fills the ring. Our own events are hidden, so another process makes them.
fn produce() {
    let program = std::env::current_exe().expect("a path");
    let status = Command::new(program).arg("--produce").status().expect("a child");
    assert!(status.success());
}

/// Drains the ring and does nothing; returns the processor time per event.
fn drain(rings: &mut Rings) -> f64 {
    let mut events = 0;
    let start = cpu_ns();
    while rings
        .drain(MOST, &mut |item| {
            if let Item::Record(record) = item {
                black_box(record);
                events += 1;
            }
        })
        .items
        > 0
    {}
    per_event(cpu_ns() - start, events)
}

/// Drains the ring into batches of that many events; returns the number of events.
fn through(rings: &mut Rings, intake: &mut Intake, batch: u64) -> u64 {
    let (mut events, mut open) = (0, 0);
    while rings
        .drain(MOST, &mut |item| {
            intake.take(item);
            events += 1;
            open += 1;
            if open == batch {
                intake.flush();
                open = 0;
            }
        })
        .items
        > 0
    {}
    intake.flush();
    events
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("after the start")
}

/// The number of events is what the run counted: other processes may call `getppid`, too.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a second fit")]
fn per_event(ns: u64, events: u64) -> f64 {
    assert!(events >= EVENTS, "the ring holds all of them");
    ns as f64 / events as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
