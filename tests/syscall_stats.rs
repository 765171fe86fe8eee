//! Counts of system calls, against what `strace` says and against programs of known calls.

mod kernel;
#[path = "kernel/sums.rs"]
mod sums;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use kernel::alone;
use sums::{Agent, Member, Rows, name, run_calls, short_lives};
use tipstaff_runtime::{queue::Queue, reader::Subscriber};

const KIND: &str = "syscall_stats";

/// What strace wrote of each process: number of calls by name and error.
fn told_by_strace(folder: &Path) -> BTreeMap<u32, BTreeMap<(String, i32), u64>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let pid: u32 = path.extension().unwrap().to_str().unwrap().parse().unwrap();
        let calls: &mut BTreeMap<_, u64> = all.entry(pid).or_default();
        for line in String::from_utf8_lossy(&fs::read(&path).unwrap()).lines() {
            let is_call = line.starts_with(|c: char| c.is_ascii_lowercase());
            let (true, Some((name, rest))) = (is_call, line.split_once('(')) else { continue };
            if name.starts_with("exit") && !kernel::sees_ends() {
                continue;
            }
            let (_, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("{line}"));
            let word = result.split_whitespace().nth(1).unwrap_or("");
            let is_end = name.starts_with("exit");
            let errno = match word {
                // strace does not learn what the call of a process that is killed returns.
                "" if result.trim() == "?" && !is_end => 4,
                word if word.starts_with("ERESTART") => 4,
                word if word.starts_with('E') => errno(word),
                _ => 0,
            };
            *calls.entry((name.to_owned(), errno)).or_default() += 1;
        }
    }
    all
}

fn errno(name: &str) -> i32 {
    use rustix::io::Errno;
    let known = [
        ("EPERM", Errno::PERM),
        ("ENOENT", Errno::NOENT),
        ("EINTR", Errno::INTR),
        ("ENXIO", Errno::NXIO),
        ("EBADF", Errno::BADF),
        ("ECHILD", Errno::CHILD),
        ("EAGAIN", Errno::AGAIN),
        ("EACCES", Errno::ACCESS),
        ("EEXIST", Errno::EXIST),
        ("ENOTDIR", Errno::NOTDIR),
        ("EINVAL", Errno::INVAL),
        ("ENOTTY", Errno::NOTTY),
        ("ESPIPE", Errno::SPIPE),
        ("ENOSYS", Errno::NOSYS),
        ("ENODATA", Errno::NODATA),
        ("ETIMEDOUT", Errno::TIMEDOUT),
    ];
    let found = known.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("{name}")).1.raw_os_error()
}

/// Threads, errors, signals that interrupt, children, a program that is replaced by another, and one
/// that is killed.
const SCRIPT: &str = r#"
import os, signal, subprocess, threading, time
print(os.getpid(), flush=True)
def work():
    for n in range(300):
        try: os.close(10000 + n % 3)
        except OSError: pass
        os.getppid()
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.05)
for path in ["/", "/nowhere", "/etc/passwd/x"]:
    try: os.stat(path)
    except OSError: pass
subprocess.run(["/bin/ls", "/nowhere"], stderr=subprocess.DEVNULL)
subprocess.run(["/bin/sh", "-c", "exec /bin/true"])
child = subprocess.Popen(["/bin/sleep", "100"])
def sleeps():
    with open(f"/proc/{child.pid}/stat") as stat, open(f"/proc/{child.pid}/syscall") as call:
        return " S " in stat.read() and call.read().startswith("230 ")
while not sleeps():
    time.sleep(0.01)
child.kill()
child.wait()
if os.fork() == 0:
    os._exit(3)
os.wait()
"#;

#[test]
fn each_process_has_the_calls_and_errors_that_strace_counts() {
    let Some(_guard) = alone() else { return };
    let load = short_lives();
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["pid", "call", "errno", "count"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("strace")
        .args(["-ff", "-qq", "-o"])
        .arg(folder.path().join("log"))
        // Of the first process strace does not see the beginning.
        .args(["/bin/sh", "-c", "echo $$; /usr/bin/python3 -I -S -c \"$0\"; exit 7", SCRIPT])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let pids: Vec<u32> = said.lines().map(|pid| pid.parse().unwrap()).collect();
    let [first, python] = pids[..] else { panic!("{said}") };
    let (rows, lost) = agent.end(&member);
    drop(load);
    assert_eq!(lost, 0);
    let told = told_by_strace(folder.path());
    let mut compared = 0;
    // Threads have files of their own; a process is what has rows.
    let mut by_process: BTreeMap<u32, BTreeMap<(String, i32), u64>> = BTreeMap::new();
    let is_process = |pid: &u32| rows.count(&[("pid", &pid.to_string())]) > 0;
    for (&thread, calls) in &told {
        let process = if is_process(&thread) { thread } else { python };
        let all = by_process.entry(process).or_default();
        for (call, count) in calls {
            *all.entry(call.clone()).or_default() += count;
        }
    }
    by_process.remove(&first);
    assert!(by_process.len() >= 5, "{by_process:?}");
    for (pid, calls) in by_process {
        let pid = pid.to_string();
        let mut found: BTreeMap<(String, i32), u64> = BTreeMap::new();
        for row in rows.with(&[("pid", &pid)]) {
            let key = (row["call"].clone(), row["errno"].parse().unwrap());
            *found.entry(key).or_default() += row["count"].parse::<u64>().unwrap();
        }
        assert_eq!(found, calls, "process {pid}");
        compared += calls.values().sum::<u64>();
    }
    assert!(compared > 3_000, "{compared}");
}

/// Runs `calls` with these arguments again and again, until it is told that it is enough; how often.
fn runs_of(arguments: [&'static str; 3]) -> (Arc<AtomicBool>, JoinHandle<u64>) {
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let runner = thread::spawn(move || {
        let mut runs = 0;
        while runs == 0 || !told.load(Ordering::Relaxed) {
            run_calls(&arguments);
            runs += 1;
        }
        runs
    });
    (enough, runner)
}

#[test]
fn millions_of_calls_are_counted_while_subscribers_come_and_go_and_processes_end() {
    let Some(_guard) = alone() else { return };
    let load = short_lives();
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["comm", "call", "count"]);
    let other = agent.plan(&["comm", "errno", "count", "timed", "latency", "latency_histogram"]);
    agent.want(&[&plan]);
    let member = agent.join(Arc::clone(&plan));
    let (enough, runner) = runs_of(["getppid", "2", "1000000"]);
    let comm = name();
    let of_runs = [("comm", comm.as_str())];
    let mut parts: Vec<Rows> = Vec::new();
    while parts.iter().filter(|part| part.count(&of_runs) > 0).count() < 3 {
        agent.want(&[&plan, &other]);
        let guest = agent.join(Arc::clone(&other));
        thread::sleep(Duration::from_millis(130));
        parts.push(agent.leave(&guest).0);
        agent.want(&[&plan]);
        thread::sleep(Duration::from_millis(30));
    }
    enough.store(true, Ordering::Relaxed);
    let runs = runner.join().unwrap();
    let (rows, lost) = agent.end(&member);
    drop(load);
    assert_eq!(lost, 0);
    assert_eq!(rows.count(&[("comm", &comm), ("call", "getppid")]), runs * 2_000_000);
    // A reading may come between two numbers of the same call, on each processor; the next one has the rest.
    let between = 2 * thread::available_parallelism().unwrap().get() as u64;
    for part in &parts {
        let timed = part.sum("timed", &of_runs);
        let in_histogram: u64 = part.histogram("latency_histogram", &of_runs).iter().sum();
        assert!(in_histogram.abs_diff(timed) <= between, "{in_histogram} of {timed}");
        assert!(timed == 0 || part.sum("latency", &of_runs) / timed > 10);
    }
}

#[test]
fn each_call_has_its_latency_once_it_is_asked_for() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start(KIND);
    let fields = ["timed", "latency", "latency_least", "latency_greatest", "latency_histogram"];
    let keys = ["pid", "call", "count"];
    let plan = agent.plan(&keys.into_iter().chain(fields).collect::<Vec<_>>());
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let quick = run_calls(&["getppid", "2", "100000"]);
    let sleeper = Command::new("/bin/sleep").arg("0.25").spawn().unwrap();
    let slow = sleeper.id().to_string();
    assert!(sleeper.wait_with_output().unwrap().status.success());
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    let of_quick = [("pid", quick.as_str()), ("call", "getppid")];
    assert_eq!(rows.count(&of_quick), 200_000);
    assert_eq!(rows.sum("timed", &of_quick), 200_000);
    assert_eq!(rows.histogram("latency_histogram", &of_quick).iter().sum::<u64>(), 200_000);
    assert!(rows.sum("latency", &of_quick) > 200_000 * 10);
    let of_slow = [("pid", slow.as_str()), ("call", "clock_nanosleep")];
    assert_eq!((rows.count(&of_slow), rows.sum("timed", &of_slow)), (1, 1));
    let slept = rows.sum("latency", &of_slow);
    assert!((250_000_000..20_000_000_000).contains(&slept), "{slept}");
    // One call: the sum, the shortest and the longest are the same.
    for field in ["latency_least", "latency_greatest"] {
        assert_eq!(rows.sum(field, &of_slow), slept, "{field}");
    }
}

#[test]
fn one_that_takes_the_place_of_another_gets_exactly_what_the_other_does_not() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["comm", "call", "count"]);
    agent.want(&[&plan]);
    let mut member = agent.join(Arc::clone(&plan));
    let (enough, runner) = runs_of(["getppid", "2", "500000"]);
    let mut total = 0;
    for _ in 0..20 {
        let queue = Arc::new(Queue::new(usize::MAX, || {}));
        agent.probes.aggregates().read_now();
        let subscriber = Subscriber {
            plan: Arc::clone(&plan),
            queue: Arc::clone(&queue),
            latency: Duration::from_millis(1),
        };
        let id = agent.reader.replace(member.id, subscriber);
        let before = std::mem::replace(&mut member, Member { id, queue, plan: Arc::clone(&plan) });
        total += before.rows(&agent.kinds).0.count(&[("comm", &name()), ("call", "getppid")]);
        thread::sleep(Duration::from_millis(7));
    }
    enough.store(true, Ordering::Relaxed);
    let runs = runner.join().unwrap();
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    total += rows.count(&[("comm", &name()), ("call", "getppid")]);
    assert_eq!(total, runs * 1_000_000);
}

#[test]
fn calls_by_the_32_bit_table_have_their_own_names() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&["pid", "call", "abi", "errno", "count"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let pid = run_calls(&["int80", "5000"]);
    let (rows, _) = agent.end(&member);
    // 64 is getppid there, and semget in the 64-bit table.
    let of_pid = [("pid", pid.as_str()), ("abi", "i386"), ("call", "getppid"), ("errno", "0")];
    assert_eq!(rows.count(&of_pid), 5000);
    assert_eq!(rows.count(&[("pid", &pid), ("call", "semget")]), 0);
}

#[test]
fn what_nobody_wants_is_not_in_the_kernel() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start(KIND);
    let idle = kernel::bpf_descriptors();
    assert!(kernel::program_ids().is_empty());
    let plan = agent.plan(&["pid", "count"]);
    agent.want(&[&plan]);
    let counting = kernel::program_ids();
    // Where calls return, where processes begin and move, and where threads end.
    let ends = usize::from(kernel::sees_ends());
    assert_eq!(counting.len(), 3 + ends);
    let timed = agent.plan(&["pid", "errno", "latency"]);
    agent.want(&[&plan, &timed]);
    let (all, maps) = (kernel::program_ids(), kernel::map_ids());
    assert!(all.is_superset(&counting), "what runs is not loaded anew");
    assert_eq!(all.len(), 6 + ends);
    agent.want(&[&plan]);
    assert_eq!(kernel::program_ids(), counting);
    agent.leave_nothing(&idle, &all, &maps);
}

/// The policy in a whole agent, with the program's calls and errors, until the agent ends.
#[test]
fn the_shipped_policy_says_how_many_calls_a_program_made() {
    let Some(_guard) = alone() else { return };
    let settings = "limits.series = 50_000\nsettings.processes = 5_000\n";
    let said = sums::run_policy("syscall-profile", settings, || {
        run_calls(&["getppid", "3", "50000"]);
        run_calls(&["numbers", "1", "2000", "2003", "7"]);
    });
    let value = |metric: &str, call: &str, errno: Option<&str>| -> u64 {
        said.iter()
            .filter(|line| line["name"] == metric && line["labels"]["call"] == call)
            .filter(|line| line["labels"]["process"] == name().as_str())
            .filter(|line| errno.is_none_or(|errno| line["labels"]["errno"] == errno))
            .map(|line| line["value"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(value("syscalls_total", "getppid", None), 150_000, "{said:?}");
    assert_eq!(value("syscall_errors_total", "getppid", None), 0);
    assert_eq!(value("syscall_errors_total", "syscall_2001", Some("ENOSYS")), 7);
    assert_eq!(value("syscalls_timed_total", "getppid", None), 150_000);
    assert!(value("syscall_latency_nanoseconds_total", "getppid", None) > 1_500_000);
}
