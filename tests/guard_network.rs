//! A network guard on cgroups of the test: what its table denies fails with `EPERM` in programs that we
//! did not write, whichever way they take into the kernel; what it allows, and all outside, is as it was;
//! and every denial is counted.

mod kernel;

#[path = "guard_network/limits.rs"]
mod limits;
#[path = "guard_network/scopes.rs"]
mod scopes;
#[path = "guard_network/tables.rs"]
mod tables;
#[path = "guard_network/ways.rs"]
mod ways;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use kernel::{Event, PYTHON, Recording, cgroup::Cgroup};
use tipstaff_events::catalogue::denied;
use tipstaff_runtime::{
    guard::{GuardMode, Table},
    probe::{Counted, NetworkGuard, RingSizes, RuleCount},
};

/// What a denied call gets.
const EPERM: i32 = 1;
/// What a connect gets that is under way.
const EINPROGRESS: i32 = 115;

fn table(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A cgroup with a guard, all of whose denials are told.
struct Guarded {
    guard: NetworkGuard,
    recording: Recording,
    cgroup: Cgroup,
}

impl Guarded {
    fn new(mode: GuardMode, text: &str) -> Self {
        let cgroup = Cgroup::new();
        let mut recording = Recording::open(RingSizes::default());
        recording.want(&[denied::KIND]);
        let mut guard = recording.probes.guard_network(cgroup.path(), 7, mode).unwrap();
        guard.install(&table(text)).unwrap();
        Self { guard, recording, cgroup }
    }

    fn events(&mut self) -> Vec<Event> {
        self.recording.of(denied::KIND)
    }

    fn denied(&self) -> u64 {
        sum(&self.guard, |count| count.denied)
    }
}

/// Of all that the guard counted.
fn sum(guard: &NetworkGuard, number: impl Fn(&RuleCount) -> u64) -> u64 {
    guard.counts().unwrap().iter().map(number).sum()
}

fn count(guard: &NetworkGuard, by: Counted) -> RuleCount {
    *guard.counts().unwrap().iter().find(|count| count.by == by).unwrap()
}

/// Does what each line of its input says, and prints the errno, 0 for none.
const CALLS: &str = r#"
import socket, sys
def run(how, kind, address, port, local=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind, protocol = {
        "tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0),
        "mptcp": (socket.SOCK_STREAM, 262), "udplite": (socket.SOCK_DGRAM, 136),
    }[kind]
    try:
        with socket.socket(family, kind, protocol) as s:
            if local: s.bind((local, 0))
            if how == "connect": s.connect((address, port))
            elif how == "sendto": s.sendto(b"x", (address, port))
            elif how == "sendmsg": s.sendmsg([b"x"], [], 0, (address, port))
            elif how == "bind": s.bind((address, port))
            elif how == "fastopen": s.sendto(b"x", socket.MSG_FASTOPEN, (address, port))
            elif how == "nonblocking":
                s.setblocking(False)
                s.connect((address, port))
            else: raise KeyError(how)
    except OSError as error:
        return error.errno
    return 0
for line in sys.stdin:
    how, kind, address, port, *local = line.split()
    print(run(how, kind, address, int(port), *local), flush=True)
"#;

/// A program in a cgroup that makes the calls that it is asked for.
struct Caller {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Caller {
    fn new(cgroup: &Cgroup) -> Self {
        let mut command = cgroup.command(PYTHON);
        command.args(["-I", "-S", "-c", CALLS]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The errno of `HOW PROTOCOL ADDRESS PORT [LOCAL ADDRESS]`.
    fn call(&mut self, line: &str) -> i32 {
        self.calls(&[line.to_owned()])[0]
    }

    /// That of each; some hundred at most.
    fn calls(&mut self, lines: &[String]) -> Vec<i32> {
        writeln!(self.input, "{}", lines.join("\n")).unwrap();
        lines
            .iter()
            .map(|line| {
                let mut answer = String::new();
                self.output.read_line(&mut answer).unwrap();
                answer.trim().parse().unwrap_or_else(|_| panic!("{line}: {answer:?}"))
            })
            .collect()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
