//! Tipstaff and bpftrace, each asked the same while another process works.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
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

/// This program as the process that works: it prints one number. Our own calls are hidden.
pub fn run(argument: &str) -> f64 {
    let program = env::current_exe().expect("a path");
    let output = Command::new(program).arg(argument).output().expect("a child");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// While bpftrace runs this, on classic tracepoints as it has them, in a mount namespace of its own with
/// tracefs.
pub fn with_bpftrace<T>(script: &str, work: impl FnOnce() -> T) -> T {
    // It says when it is attached.
    let script = format!("{script} interval:ms:100 {{ printf(\"on\\n\"); }}");
    let mut child: Child = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tracefs none /sys/kernel/tracing 2>/dev/null; exec bpftrace -e \"$0\"")
        .arg(script)
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
    let result = work();
    kill_process(Pid::from_child(&child), Signal::KILL).expect("our child");
    child.wait().expect("our child");
    result
}

/// While these fields of an aggregated kind are collected, once a second.
pub fn with_tipstaff<T>(kind: &str, fields: &[&str], work: impl FnOnce() -> T) -> T {
    let kinds = Kinds::built_in();
    let kind = kinds.named(kind).expect("in the catalogue");
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
    let result = work();
    drop(probes);
    reader.stop();
    result
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
