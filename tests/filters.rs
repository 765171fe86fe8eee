//! Filters in the kernel: what is not wanted does not reach a ring, and what is wanted does, also
//! while filters change. Needs root: elsewhere each test says why it is skipped, except in CI, where
//! it fails.

mod kernel;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kernel::{Recording, alone, here::PATIENCE, vm::rounds};
use tipstaff_events::{
    catalogue::{connect, exec, unlink},
    filter::Filter,
    sample::{By, Sample},
};
use tipstaff_runtime::{
    enrich::{Lookup, Tables},
    kind::Kinds,
    predicate::{self, Predicate},
    probe::RingSizes,
    record,
};

fn condition(kind: &str, condition: &str) -> Predicate {
    Predicate::parse(condition, Kinds::built_in().named(kind).unwrap()).unwrap()
}

#[test]
fn only_what_passes_reaches_a_ring() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want_some(exec::KIND, &[&condition("exec", "path = /usr/bin/true and ppid != 0")]);
    let mut pids = Vec::new();
    for _ in 0..rounds(100) {
        pids.push(recording.run(&mut Command::new("/usr/bin/true")).0);
        recording.run(Command::new("/usr/bin/cat").arg("/dev/null"));
    }
    let execs = recording.of(exec::KIND);
    assert!(execs.iter().all(|exec| exec.text("path") == b"/usr/bin/true"));
    let seen =
        |pid: &u32| execs.iter().filter(|exec| exec.number("pid") == u64::from(*pid)).count();
    assert!(pids.iter().all(|pid| seen(pid) == 1));
    assert_eq!(recording.lost(), []);
}

/// What the program does: connects and their outcomes, and paths that are not there.
const ACTIVITY: &str = r"
import os, socket
for port in (1, 2, 80, 443):
    for _ in range(3):
        s = socket.socket()
        s.connect_ex(('127.0.0.1', port))
        s.close()
s = socket.socket(socket.AF_UNIX)
s.connect_ex('/run/nobody/is/here')
for name in ('/nowhere/a', '/nowhere/b', '/nowhere/with/a/longer/name/than/a/pattern', 'x'):
    for _ in range(5):
        try: os.unlink(name)
        except OSError: pass
";

#[test]
fn the_kernel_and_the_host_find_the_same() {
    let Some(_guard) = alone() else { return };
    let mut tables = Tables::new(None);
    for (kind, name, conditions) in [
        (
            connect::KIND,
            "connect",
            &[
                "port = 80",
                "port > 2 and port <= 443",
                "result < 0 and not (port = 1 or port = 2)",
                "address = 127.0.0.0/8",
                "address != 127.0.0.1",
                "family = unix",
                "unix_path ^= /run/nobody",
                "unix_path = /run/nobody/is/here",
                "outcome = refused and comm ^= pyth",
                "comm != python3",
                "not address = 127.0.0.1",
                "local_port > 1024 or port = 443",
            ][..],
        ),
        (
            unlink::KIND,
            "unlink",
            &[
                "path_given = /nowhere/b",
                "path_given ^= /nowhere/",
                "path_given != x",
                "path_given = /nowhere/with/a/longer/name/than/a/pattern",
                "result = -2 and path_given ^= /nowhere/w or path_given = x",
                "result >= 0",
            ][..],
        ),
    ] {
        let mut recording = Recording::open(RingSizes::default());
        recording.want(&[kind]);
        let pid = recording.run(&mut kernel::python(ACTIVITY)).0;
        let all = recording.of_process(kind, pid);
        assert!(all.len() >= 13, "{name}: {}", all.len());
        for condition in conditions {
            let wanted = self::condition(name, condition);
            let mut lookup = Lookup::new(&mut tables, None);
            let expected = all
                .iter()
                .filter(|event| wanted.holds(event.bytes(), &mut lookup).unwrap())
                .count();
            recording.want_some(kind, &[&wanted]);
            let pid = recording.run(&mut kernel::python(ACTIVITY)).0;
            let found = recording.of_process(kind, pid);
            let holds = found
                .iter()
                .filter(|event| wanted.holds(event.bytes(), &mut lookup).unwrap())
                .count();
            assert_eq!(holds, expected, "{name} where {condition}");
            if wanted.is_pushed_whole() {
                assert_eq!(found.len(), expected, "{name} where {condition}: more came through");
            } else {
                assert!(found.len() < all.len(), "{name} where {condition}: nothing was kept back");
            }
        }
        assert_eq!(recording.lost(), []);
    }
}

#[test]
fn what_is_wanted_all_the_time_is_never_kept_back_while_filters_change() {
    let Some(_guard) = alone() else { return };
    // Room for all of them: changing a filter takes its time.
    let mut recording = Recording::open(RingSizes { bulk: 64 << 20, ..RingSizes::default() });
    let all_the_time = condition("unlink", "path_given ^= /nowhere/always");
    recording.want_some(unlink::KIND, &[&all_the_time]);
    // Until its input ends.
    let script = "
import os, select, sys
times = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    for _ in range(200):
        try: os.unlink('/nowhere/always')
        except OSError: pass
        times += 1
print(times)";
    let mut command = kernel::python(script);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while recording.of_process(unlink::KIND, child.id()).is_empty() {
        assert!(Instant::now() < deadline, "it never began");
        std::thread::sleep(Duration::from_millis(1));
    }
    for changes in 0..rounds(50) {
        let other = condition("unlink", &format!("result = {changes} or path_given = /{changes}"));
        recording.want_some(unlink::KIND, &[&other, &all_the_time]);
        recording.drain();
    }
    drop(child.stdin.take());
    let pid = child.id();
    let times = kernel::numbers(child);
    let events = recording.of_process(unlink::KIND, pid);
    assert_eq!(times, [i64::try_from(events.len()).unwrap()]);
    assert_eq!(recording.lost(), []);
    let least = rounds(1_000) as usize;
    assert!(events.len() > least, "{} events while filters changed", events.len());
}

#[test]
fn of_many_events_one_in_so_many_reaches_a_ring() {
    const EVERY: u16 = 50;
    let Some(_guard) = alone() else { return };
    let times = rounds(100_000);
    let mut recording = Recording::open(RingSizes::default());
    // With a condition it is one in so many of those that are wanted.
    let wanted = condition("unlink", "path_given ^= /nowhere/wanted");
    let filter = predicate::filter([&wanted]).unwrap();
    let sample = Sample::new(EVERY, By::Event);
    let filter = Filter { sample: sample.number().into(), ..filter };
    recording.want_filtered(unlink::KIND, &filter);
    let script = format!(
        "import os\nfor i in range({times} * 2):\n try: os.unlink(('/nowhere/wanted', '/nowhere/else')[i % 2])\n except OSError: pass"
    );
    let pid = recording.run(&mut kernel::python(&script)).0;
    let events = recording.of_process(unlink::KIND, pid);
    assert!(events.iter().all(|event| event.text("path_given") == b"/nowhere/wanted"));
    assert!(events.iter().all(|event| record::sample(event.bytes()).unwrap() == sample));
    // Each CPU takes its own turns: at most one more or less on each.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let expected = times as usize / usize::from(EVERY);
    let found = events.len();
    assert!(found.abs_diff(expected) <= cpus, "{found}, expected {expected} on {cpus} CPUs");
    assert_eq!(recording.lost(), []);
}

#[test]
fn of_many_processes_all_events_of_one_in_so_many_reach_a_ring() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let sample = Sample::new(3, By::Process);
    let filter = Filter { sample: sample.number().into(), ..Filter::default() };
    recording.want_filtered(unlink::KIND, &filter);
    let mut taken = 0;
    for _ in 0..100 {
        let mut rm = Command::new("/usr/bin/rm");
        let pid = recording.run(rm.args(["-f", "/nowhere/a", "/nowhere/b", "/nowhere/c"])).0;
        let events = recording.of_process(unlink::KIND, pid).len();
        assert_eq!(events, if sample.takes(pid, 0) { 3 } else { 0 }, "{pid}");
        taken += usize::from(events > 0);
    }
    assert!((10..60).contains(&taken), "{taken} of 100");
    assert_eq!(recording.lost(), []);
}
