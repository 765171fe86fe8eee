//! What counting system calls costs who makes them, against the same question asked of bpftrace.
//!
//! A child calls `getppid` two million times, alone and while it is counted in one way or another, in
//! turn. What counts is its processor time per call.

mod beside;

use std::{env, hint::black_box};

use beside::{median, run, with_bpftrace, with_tipstaff};
use rustix::time::{ClockId, clock_gettime};

/// Calls per run.
const CALLS: u64 = 2_000_000;
/// Rounds, of which the median counts.
const ROUNDS: usize = 9;

/// The one-liner.
const BPFTRACE: &str = "tracepoint:raw_syscalls:sys_enter { @[pid]=count(); }";

/// What is asked of Tipstaff.
const WAYS: [(&str, &[&str]); 4] = [
    ("by process", &["pid", "count"]),
    ("by process and call", &["pid", "call", "count"]),
    ("by process, call and error", &["pid", "call", "errno", "count"]),
    ("the same with latencies", &["pid", "call", "errno", "count", "timed", "latency"]),
];

fn main() {
    if env::args().any(|argument| argument == "--calls") {
        produce();
        return;
    }
    let mut alone = Vec::new();
    let mut bpftraced = Vec::new();
    let mut counted: [Vec<f64>; WAYS.len()] = Default::default();
    for _ in 0..ROUNDS {
        alone.push(run("--calls"));
        bpftraced.push(with_bpftrace(BPFTRACE, || run("--calls")));
        for ((_, fields), times) in WAYS.iter().zip(&mut counted) {
            times.push(with_tipstaff("syscall_stats", fields, || run("--calls")));
        }
    }
    let alone = median(alone);
    let bpftraced = median(bpftraced) - alone;
    println!("getppid alone: {alone:.0} ns\n");
    println!("| who counts | adds, ns per call | against bpftrace |");
    println!("|---|---|---|");
    println!("| bpftrace `sys_enter {{ @[pid]=count(); }}` | {bpftraced:.0} | 1.00 |");
    for ((way, _), times) in WAYS.iter().zip(counted) {
        let added = median(times) - alone;
        println!("| tipstaff, {way} | {added:.0} | {:.2} |", added / bpftraced);
    }
}

/// Makes the calls and prints what one of them took.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit")]
fn produce() {
    let start = cpu_ns();
    for _ in 0..CALLS {
        black_box(rustix::process::getppid());
    }
    println!("{}", (cpu_ns() - start) as f64 / CALLS as f64);
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("after the start")
}
