//! What a guard does not see: docs/guardrails.md says so, and this keeps it true.

use std::process::Stdio;

use tipstaff_runtime::guard::GuardMode;

use super::{
    Caller, EPERM, Guarded,
    kernel::{self, PYTHON, alone, cgroup::Cgroup},
    table,
};

#[test]
fn raw_sockets_are_not_seen() {
    const SCRIPT: &str = r#"
import socket
def attempt(call):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as s:
        try:
            call(s)
            return 0
        except OSError as error:
            return error.errno
packet = b"\x00\x09\x00\x09\x00\x08\x00\x00"
print(attempt(lambda s: s.sendto(packet, ("127.0.0.7", 0))), attempt(lambda s: s.connect(("127.0.0.7", 0))))
"#;
    let Some(_alone) = alone() else { return };
    let guarded =
        Guarded::new(GuardMode::Enforce, "default allow\ndeny connect,send any 127.0.0.7");
    let mut command = guarded.cgroup.command(PYTHON);
    let child = command.args(["-I", "-S", "-c", SCRIPT]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(kernel::numbers(child), [0, 0]);
    assert_eq!(guarded.denied(), 0);
}

#[test]
fn a_connect_of_udp_lite_is_not_seen_but_sending_is() {
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default deny");
    let other = Cgroup::new();
    if Caller::new(&other).call("connect udplite 127.0.0.7 9") != 0 {
        eprintln!("skipped: no UDP-Lite here");
        return;
    }
    let mut inside = Caller::new(&guarded.cgroup);
    assert_eq!(inside.call("connect udplite 127.0.0.7 9"), 0);
    assert_eq!(inside.call("sendto udplite 127.0.0.7 9"), EPERM);
    assert_eq!(guarded.denied(), 1);
}

#[test]
fn a_socket_belongs_to_the_cgroup_that_made_it() {
    /// Makes two sockets and connects one, moves into the cgroup of its first argument, and prints what
    /// becomes of sending by the one, connecting the other, and connecting a new one.
    const SCRIPT: &str = r#"
import os, socket, sys
def attempt(call):
    try:
        call()
        return 0
    except OSError as error:
        return error.errno
connected, fresh = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
connected.connect(("127.0.0.7", 9))
open(sys.argv[1], "w").write(str(os.getpid()))
print(attempt(lambda: connected.send(b"x")), attempt(lambda: fresh.connect(("127.0.0.7", 10))))
new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(attempt(lambda: new.connect(("127.0.0.7", 9))))
"#;
    let Some(_alone) = alone() else { return };
    let guarded =
        Guarded::new(GuardMode::Enforce, "default allow\ndeny connect,send any 127.0.0.7");
    let outside = Cgroup::new();
    let run = |from: &Cgroup, to: &Cgroup| {
        let mut command = from.command(PYTHON);
        command.args(["-I", "-S", "-c", SCRIPT]).arg(to.path().join("cgroup.procs"));
        kernel::numbers(command.stdout(Stdio::piped()).spawn().unwrap())
    };
    assert_eq!(run(&outside, &guarded.cgroup), [0, 0, i64::from(EPERM)]);
}

#[test]
fn who_may_write_to_other_cgroups_leaves_the_scope_with_new_sockets() {
    const SCRIPT: &str = r#"
import os, socket, sys
def attempt(s):
    try:
        s.connect(("127.0.0.7", 9))
        return 0
    except OSError as error:
        return error.errno
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
open(sys.argv[1], "w").write(str(os.getpid()))
print(attempt(old), attempt(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
"#;
    const OPEN: &str = r#"
import sys
try: open(sys.argv[1], "w")
except OSError as error: print(error.errno)
"#;
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny connect any 127.0.0.7");
    let outside = Cgroup::new();
    let to = outside.path().join("cgroup.procs");
    let mut command = guarded.cgroup.command(PYTHON);
    command.args(["-I", "-S", "-c", SCRIPT]).arg(&to);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(kernel::numbers(child), [i64::from(EPERM), 0]);
    // Without privileges there is no way out.
    let mut command = guarded.cgroup.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PYTHON, "-I", "-S", "-c"]);
    command.arg(OPEN);
    let child = command.arg(&to).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(kernel::numbers(child), [13]);
}

#[test]
fn another_network_namespace_is_no_way_out() {
    const SCRIPT: &str = r#"
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    try:
        s.connect(("127.0.0.7", 9))
        print(0)
    except OSError as error:
        print(error.errno)
"#;
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default deny");
    let run = || {
        let mut command = guarded.cgroup.command("unshare");
        command.args(["--net", PYTHON, "-I", "-S", "-c", SCRIPT]);
        kernel::numbers(command.stdout(Stdio::piped()).spawn().unwrap())
    };
    assert_eq!(run(), [i64::from(EPERM)]);
    // Its loopback is down: what the guard allows, the namespace does not.
    guarded.guard.install(&table("default allow")).unwrap();
    let mut command = guarded.cgroup.command("unshare");
    command.args(["--net", PYTHON, "-I", "-S", "-c", SCRIPT]);
    let numbers = kernel::numbers(command.stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(numbers, [101]); // ENETUNREACH
    let mut inside = Caller::new(&guarded.cgroup);
    assert_eq!(inside.call("connect udp 127.0.0.7 9"), 0);
}
