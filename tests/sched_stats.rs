//! What the scheduler did, against what /proc, perf and bpftrace say.

mod kernel;
#[path = "kernel/sums.rs"]
mod sums;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kernel::{Load, alone, here, python};
use rustix::process::{Pid, Signal, kill_process};
use sums::Agent;
use tipstaff_events::aggregate::BUCKETS;

const KIND: &str = "sched_stats";

/// Threads that sleep, yield, compute, and hand each other a lock; new ones, too, which end. Then waits.
const SWITCHES: &str = r"
import os, sys, threading, time
def sleeps():
    for _ in range(300): time.sleep(0.0003)
def yields():
    for _ in range(3000): os.sched_yield()
def computes():
    sum(n * n for n in range(400000))
print('here', flush=True)
sys.stdin.readline()
for _ in range(3):
    threads = [threading.Thread(target=f) for f in (sleeps, yields, computes, computes)]
    for t in threads: t.start()
    for t in threads: t.join()
print('done', flush=True)
sys.stdin.readline()
";

/// The number behind this key in a file of /proc.
fn number(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}

/// What /proc counted of the first thread of a process that does not run: switches of both sorts.
fn counted(pid: u32) -> (u64, u64) {
    let status = Path::new("/proc").join(pid.to_string()).join("task").join(pid.to_string());
    let status = status.join("status");
    (number(&status, "voluntary_ctxt_switches"), number(&status, "nonvoluntary_ctxt_switches"))
}

/// What /proc counted of all threads of a process.
fn counted_of_all(pid: u32) -> (u64, u64) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.fold((0, 0), |(voluntary, involuntary), thread| {
        let status = thread.unwrap().path().join("status");
        (
            voluntary + number(&status, "voluntary_ctxt_switches"),
            involuntary + number(&status, "nonvoluntary_ctxt_switches"),
        )
    })
}

/// Switches of process 1 since `before` which the kernel showed nobody, of which we `saw` so many: a
/// sandbox may hide its own first process from tracing (no tracer sees it then). What wakes a thread
/// while that one runs is not seen either, once for each of them at most.
fn hidden_switches(before: (u64, u64), saw: u64) -> u64 {
    let after = counted_of_all(1);
    (after.0 + after.1 - before.0 - before.1).saturating_sub(saw)
}

/// Stops a process, and waits until none of its threads runs.
fn stop(pid: u32) {
    let id = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    let end = Instant::now() + here::PATIENCE;
    let is_stopped = |thread: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        status.contains("State:\tT")
    };
    while !fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(is_stopped) {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    // The state is there a moment before the thread has left its processor; until then this says so.
    let runs = |thread: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(thread.unwrap().path().join("syscall")).unwrap().starts_with("running")
    };
    while fs::read_dir(format!("/proc/{pid}/task")).unwrap().any(runs) {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
}

fn go_on(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::CONT).unwrap();
}

/// Processes that leave no processor idle.
fn busy() -> [Load; 2] {
    [(); 2].map(|()| Load::start(Command::new("/bin/sh").args(["-c", "while :; do :; done"])))
}

fn line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

/// Threads that do not end while they are counted: those of a pool.
const POOL: &str = r"
import os, sys, threading, time
start, over = threading.Barrier(7), threading.Barrier(7)
def work(number):
    start.wait()
    for n in range(400):
        if number % 3 == 0: time.sleep(0.0002)
        elif number % 3 == 1: os.sched_yield()
        else: sum(range(3000))
    over.wait()
    threading.Event().wait()
for n in range(6): threading.Thread(target=work, args=(n,), daemon=True).start()
time.sleep(0.1)
print('here', flush=True)
sys.stdin.readline()
start.wait()
over.wait()
print('done', flush=True)
sys.stdin.readline()
";

#[test]
fn switches_of_a_process_are_those_that_proc_counts() {
    let Some(_guard) = alone() else { return };
    let load = busy();
    let mut child = python(POOL).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    assert_eq!(line(&mut child), "here\n");
    stop(pid);
    let before = counted_of_all(pid);
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["pid", "comm", "voluntary", "involuntary"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    go_on(pid);
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"go\n").unwrap();
    assert_eq!(line(&mut child), "done\n");
    stop(pid);
    let (rows, lost) = agent.leave(&member);
    let after = counted_of_all(pid);
    go_on(pid);
    drop(input);
    assert!(child.wait().unwrap().success());
    drop(load);
    agent.end(&member);
    assert_eq!(lost, 0);
    let text = pid.to_string();
    let of_pid = [("pid", text.as_str()), ("comm", "python3")];
    let found = (rows.sum("voluntary", &of_pid), rows.sum("involuntary", &of_pid));
    assert_eq!(found, (after.0 - before.0, after.1 - before.1));
    assert!(found.0 > 800 && found.1 > 0, "{found:?}");
}

/// Moves from one processor to the other, and says how often that had happened before, and after.
const MIGRATES: &str = r"
import os
def moved():
    for line in open('/proc/self/sched'):
        if 'se.nr_migrations' in line: print(line.split()[-1])
moved()
both = sorted(os.sched_getaffinity(0))[:2]
for n in range(500): os.sched_setaffinity(0, {both[n % 2]})
moved()
";

#[test]
fn migrations_of_a_process_are_those_that_the_kernel_and_perf_count() {
    let Some(_guard) = alone() else { return };
    if thread::available_parallelism().unwrap().get() < 2 || !Path::new("/proc/self/sched").exists()
    {
        eprintln!("skipped: there is one processor, or no /proc/PID/sched");
        return;
    }
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["pid", "migrations"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let told = tempfile::NamedTempFile::new().unwrap();
    let has_perf = Command::new("perf").arg("--version").output().is_ok();
    let mut command = python(MIGRATES);
    if has_perf {
        command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", "cpu-migrations", "-o"]).arg(told.path());
        command.args(["--", kernel::PYTHON, "-I", "-S", "-c", MIGRATES]);
    } else {
        without("perf");
    }
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let parent = child.id();
    let output = child.wait_with_output().unwrap();
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    let &[before, kernels] = &said[..] else { panic!("{said:?}") };
    assert!(kernels - before >= 499, "{said:?}");
    let is_it = |row: &&std::collections::BTreeMap<String, String>| {
        !has_perf && row["pid"] == parent.to_string()
            || has_perf && row["pid"] != parent.to_string()
    };
    // Of all processes that were there it has by far the most.
    let mut by_pid = std::collections::BTreeMap::<&str, u64>::new();
    for row in rows.0.iter().filter(is_it) {
        *by_pid.entry(&row["pid"]).or_default() += row["migrations"].parse::<u64>().unwrap();
    }
    assert!(by_pid.values().any(|&found| found == kernels), "{kernels}: {by_pid:?}");
    if has_perf {
        let text = fs::read_to_string(told.path()).unwrap();
        let line = text.lines().find(|line| line.contains("cpu-migrations")).unwrap();
        let perfs: u64 = line.split(',').next().unwrap().parse().unwrap();
        // It begins with the program, which may have been moved before, and does not yet say so then.
        assert!((kernels - before..=kernels).contains(&perfs), "{perfs} of {said:?}");
    }
}

#[test]
fn waits_of_a_process_are_those_that_proc_measures() {
    let Some(_guard) = alone() else { return };
    let load = busy();
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&[
        "pid",
        "voluntary",
        "involuntary",
        "runs",
        "queued",
        "blocked",
        "uninterruptible",
        "queued_histogram",
    ]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let script = "import sys, time\nfor _ in range(200): time.sleep(0.002); sum(range(20000))\n\
                  print('done', flush=True)\nsys.stdin.readline()";
    let (begin, first_before) = (Instant::now(), counted_of_all(1));
    let mut child = python(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(line(&mut child), "done\n");
    // Compared while it does not run.
    stop(child.id());
    let (rows, lost) = agent.leave(&member);
    let told = fs::read_to_string(format!("/proc/{}/schedstat", child.id())).unwrap();
    let took = u64::try_from(begin.elapsed().as_nanos()).unwrap();
    go_on(child.id());
    let pid = child.id().to_string();
    assert!(child.wait_with_output().unwrap().status.success());
    agent.end(&member);
    drop(load);
    assert_eq!(lost, 0);
    let told: Vec<u64> = told.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let &[_, delay, slices] = &told[..] else { panic!("{told:?}") };
    let of_pid = [("pid", pid.as_str())];
    let (runs, queued) = (rows.sum("runs", &of_pid), rows.sum("queued", &of_pid));
    let of_first = [("pid", "1")];
    let saw = rows.sum("voluntary", &of_first) + rows.sum("involuntary", &of_first);
    let hidden = hidden_switches(first_before, saw);
    assert!((runs..=runs + hidden).contains(&slices), "{runs} of {slices}, {hidden} hidden");
    assert!(queued.abs_diff(delay) < delay / 10 + 20_000_000, "{queued} and {delay}");
    assert_eq!(rows.histogram("queued_histogram", &of_pid).iter().sum::<u64>(), runs);
    let blocked = rows.sum("blocked", &of_pid);
    // A run that was not seen is a wait that was not seen.
    let least = (200 - (slices - runs)) * 2_000_000;
    assert!((least..took).contains(&blocked), "{blocked} of {took}");
    assert!(rows.sum("uninterruptible", &of_pid) <= blocked);
}

/// Says that there is no comparison with this program.
fn without(program: &str) {
    if kernel::vm::emulated() {
        eprintln!(
            "skipped the comparison with {program}: with its libraries it is too large for the VMs"
        );
    } else {
        here::skip(&format!("the comparison with {program}"), "it is not installed");
    }
}

/// bpftrace's own runqlat.bt, in nanoseconds, of one program.
fn runqlat(comm: &str) -> String {
    format!(
        "tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new \
         {{ @qtime[args->pid] = nsecs; }} \
         tracepoint:sched:sched_switch {{ \
         if (args->prev_state == 0) {{ @qtime[args->prev_pid] = nsecs; }} \
         $ns = @qtime[args->next_pid]; \
         if ($ns && args->next_comm == \"{comm}\") {{ @all = hist(nsecs - $ns); }} \
         delete(@qtime[args->next_pid]); }} \
         interval:ms:100 {{ printf(\"on\\n\"); }} END {{ clear(@qtime); }}"
    )
}

#[test]
fn waits_are_distributed_as_bpftrace_says() {
    let Some(_guard) = alone() else { return };
    if Command::new("bpftrace").arg("--version").output().is_err() {
        without("bpftrace");
        return;
    }
    let comm = format!("rq{}", std::process::id());
    let mut tracer = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tracefs none /sys/kernel/tracing 2>/dev/null; exec bpftrace -f json -e \"$0\"")
        .arg(runqlat(&comm))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(tracer.stdout.take().unwrap());
    let mut first = String::new();
    while !first.contains("on\\n") {
        first.clear();
        assert!(said.read_line(&mut first).unwrap() > 0, "bpftrace does not run");
    }
    let load = busy();
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["pid", "runs", "queued_histogram"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let script = format!(
        "import time\nopen('/proc/self/comm', 'w').write('{comm}')\n\
         for n in range(3000): time.sleep(0.0002); sum(range(n % 7 * 100))"
    );
    let child = python(&script).spawn().unwrap();
    let pid = child.id().to_string();
    assert!(child.wait_with_output().unwrap().status.success());
    kill_process(Pid::from_child(&tracer), Signal::INT).unwrap();
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    tracer.wait().unwrap();
    let (rows, lost) = agent.end(&member);
    drop(load);
    assert_eq!(lost, 0);
    let mut theirs = [0_u64; BUCKETS];
    for line in text.lines().filter(|line| line.contains("\"hist\"")) {
        let said: serde_json::Value = serde_json::from_str(line).unwrap();
        for bucket in said["data"]["@all"].as_array().unwrap() {
            let from = bucket["min"].as_u64().unwrap_or(0).max(1);
            theirs[from.ilog2() as usize] += bucket["count"].as_u64().unwrap();
        }
    }
    let ours = rows.histogram("queued_histogram", &[("pid", &pid)]);
    let sum = |buckets: &[u64]| buckets.iter().sum::<u64>();
    // Theirs begins with the name.
    assert!(sum(&ours).abs_diff(sum(&theirs)) <= 100, "{ours:?} {theirs:?}");
    assert!(sum(&theirs) > 2_900, "{theirs:?} of {text}");
    // The clock is read at another moment: what is near the end of a range may be in the next one.
    for end in 1..BUCKETS {
        let (ours, theirs) = (sum(&ours[..end]), sum(&theirs[..end]));
        assert!(ours.abs_diff(theirs) <= 600, "below 2^{end} ns: {ours} and {theirs}");
    }
}

#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start(KIND);
    let idle = kernel::bpf_descriptors();
    let plan = agent.plan(&["pid", "comm", "voluntary", "involuntary", "runs"]);
    agent.want(&[&plan]);
    let (programs, maps) = (kernel::program_ids(), kernel::map_ids());
    assert_eq!(programs.len(), 6);
    let member = agent.join(plan);
    let mut child = python(SWITCHES).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    assert_eq!(line(&mut child), "here\n");
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"go\n").unwrap();
    assert_eq!(line(&mut child), "done\n");
    stop(pid);
    let first = counted(pid);
    go_on(pid);
    drop(input);
    assert!(child.wait().unwrap().success());
    let (rows, lost) = agent.leave(&member);
    assert_eq!(lost, 0);
    let text = pid.to_string();
    let of_pid = [("pid", text.as_str()), ("comm", "python3")];
    assert!(rows.sum("voluntary", &of_pid) > first.0 + 3 * 300, "{first:?}");
    assert!(rows.sum("runs", &of_pid) > 3 * 300);
    agent.want(&[]);
    assert_eq!(kernel::bpf_descriptors(), idle);
    agent.end(&member);
    kernel::assert_gone(&programs, &maps);
}

#[test]
fn the_shipped_policy_says_how_long_a_program_was_off_the_processor() {
    let Some(_guard) = alone() else { return };
    let comm = format!("sl{}", std::process::id());
    // A process has the name of the file that it runs.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(&comm);
    std::os::unix::fs::symlink(kernel::PYTHON, &program).unwrap();
    let script = "import time\nfor _ in range(200): time.sleep(0.001)";
    let settings = "limits.series = 50_000\nsettings.processes = 5_000\n";
    let first_before = counted_of_all(1);
    let said = sums::run_policy("sched-latency", settings, || {
        let mut python = Command::new(&program);
        assert!(python.args(["-I", "-S", "-c", script]).status().unwrap().success());
    });
    let value = |metric| sums::value(&said, metric, &[("process", &comm)]);
    assert!(value("sched_switches_total") >= 200, "{said:?}");
    let first = fs::read_to_string("/proc/1/comm").unwrap();
    let saw = sums::value(&said, "sched_switches_total", &[("process", first.trim_end())]);
    let least = 200 - hidden_switches(first_before, saw);
    assert!(value("sched_runs_total") >= least, "{least} {said:?}");
    assert!(value("sched_blocked_nanoseconds_total") >= least * 1_000_000, "{least} {said:?}");
    let all = sums::value(&said, "sched_queued_up_to_total", &[("up_to", "+Inf")]);
    assert_eq!(all, sums::value(&said, "sched_runs_total", &[]));
    assert_eq!(sums::value(&said, "sched_lost_total", &[]), 0);
}
