//! What a budget costs each event: of cgroups, set and not set, and measuring how long programs run. In
//! turn, medians.

use std::{
    env, fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};
use tipstaff_events::catalogue::unlink;
use tipstaff_runtime::{
    plan::{Union, Wanted},
    probe::{Probes, RingSizes},
    source::{Rings, Source as _},
};

/// Rounds, of which the median counts.
const ROUNDS: usize = 15;
/// Calls of a round.
const CALLS: u32 = 300_000;

/// What is attached while the calls are made.
struct Case {
    name: &'static str,
    /// Whether anything is.
    attached: bool,
    per_second: Option<u32>,
    measured: bool,
}

const fn case(name: &'static str, per_second: Option<u32>, measured: bool) -> Case {
    Case { name, attached: true, per_second, measured }
}

const CASES: [Case; 5] = [
    Case { attached: false, ..case("nothing attached", None, false) },
    case("no budget", None, false),
    case("a budget that lasts", Some(1_000_000), false),
    case("a budget that is spent", Some(1), false),
    case("no budget, run time measured", None, true),
];

fn main() {
    if env::args().nth(1).as_deref() == Some("--unlinks") {
        return unlinks();
    }
    let mut probes = Probes::open(RingSizes::default()).expect("root, and a kernel with BTF");
    let mut rings = Rings::new(&probes).expect("rings");
    let mut times: Vec<Vec<f64>> = CASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (case, times) in CASES.iter().zip(&mut times) {
            probes.budget_cgroups(case.per_second).expect("a map");
            probes.measure(case.measured);
            let wanted =
                if case.attached { Wanted::from([(unlink::KIND, 0)]) } else { Wanted::new() };
            let union = Union { bounded: [unlink::KIND].into(), ..wanted.into() };
            probes.apply(&union).expect("attached");
            times.push(while_drained(&mut rings));
        }
    }
    for (case, mut times) in CASES.iter().zip(times) {
        times.sort_unstable_by(f64::total_cmp);
        println!(
            "{:30} {:6.0} ns per unlink of a file that is not there",
            case.name,
            times[ROUNDS / 2]
        );
    }
}

/// Nanoseconds that a call takes another process while the rings are drained.
fn while_drained(rings: &mut Rings) -> f64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                rings.drain(usize::MAX, &mut |_| {});
                thread::sleep(Duration::from_millis(1));
            }
        });
        let program = env::current_exe().expect("a path");
        let output = Command::new(program).arg("--unlinks").output().expect("a child");
        done.store(true, Ordering::Relaxed);
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    })
}

/// Makes the calls, on a processor of its own, and prints how long one takes.
fn unlinks() {
    let mut last = CpuSet::new();
    let cpus = thread::available_parallelism().expect("known").get();
    last.set(cpus - 1);
    sched_setaffinity(None, &last).expect("allowed");
    let began = Instant::now();
    for _ in 0..CALLS {
        fs::remove_file("/nowhere").expect_err("not there");
    }
    println!("{}", began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
}
