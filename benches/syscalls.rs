//! What counting system calls costs who makes them, against the same question asked of bpftrace.
//!
//! A child calls `getppid` two million times, alone and while it is counted in one way or another, in
//! turn. What counts is its processor time per call.

use std::{
    env,
    hint::black_box,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use tipstaff_runtime::{
    decode::subscription,
    kind::Kinds,
    outcome::AgentMetrics,
    plan::{self, bind},
    probe::{Probes, RingSizes},
    queue::Queue,
    reader::{Reader, Subscriber},
    source::Rings,
};

/// Calls per run.
const CALLS: u64 = 2_000_000;
/// Rounds, of which the median counts.
const ROUNDS: usize = 9;

/// The one-liner, on classic tracepoints as bpftrace has them, in a mount namespace of its own with
/// tracefs. It says when it is attached.
const BPFTRACE: &str = "mount -t tracefs none /sys/kernel/tracing 2>/dev/null; exec bpftrace -e '
    tracepoint:raw_syscalls:sys_enter { @[pid]=count(); } interval:ms:100 { printf(\"on\\n\"); }'";

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
        alone.push(run());
        bpftraced.push(with_bpftrace());
        for ((_, fields), times) in WAYS.iter().zip(&mut counted) {
            times.push(with_tipstaff(fields));
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

/// Another process makes the calls, as our own are hidden.
fn run() -> f64 {
    let program = env::current_exe().expect("a path");
    let output = Command::new(program).arg("--calls").output().expect("a child");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn with_bpftrace() -> f64 {
    let mut child: Child = Command::new("unshare")
        .args(["--mount", "sh", "-c", BPFTRACE])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while line.trim() != "on" {
        line.clear();
        let read = lines.read_line(&mut line).expect("a line");
        assert!(read > 0, "bpftrace does not run: it must be installed, and this be root");
    }
    let time = run();
    kill_process(Pid::from_child(&child), Signal::KILL).expect("our child");
    child.wait().expect("our child");
    time
}

fn with_tipstaff(fields: &[&str]) -> f64 {
    let kinds = Kinds::built_in();
    let kind = kinds.named("syscall_stats").expect("in the catalogue");
    let asked = subscription(kind, fields.iter().copied());
    let plan = Arc::new(bind("bench", &[asked], &kinds, &[]).expect("bound"));
    let mut probes = Probes::open(RingSizes::default()).expect("root, and a kernel with BTF");
    probes.apply(&plan::union([&*plan].into_iter())).expect("attached");
    let queue = Arc::new(Queue::new(1 << 30, || {}));
    let subscriber = Subscriber { plan, queue, latency: Duration::from_millis(20) };
    let rings = Rings::new(&probes).expect("rings");
    let metrics = Arc::new(AgentMetrics::default());
    let reader = Reader::start(rings, &kinds, metrics, vec![subscriber]).expect("a thread");
    thread::sleep(Duration::from_millis(200));
    let time = run();
    drop(probes);
    reader.stop();
    time
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("after the start")
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
