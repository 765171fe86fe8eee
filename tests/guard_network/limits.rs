//! What a guard does not see: docs/guardrails.md says so, and this keeps it true.

use std::{
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
};

use tipstaff_runtime::guard::GuardMode;

use super::{
    Caller, EPERM, Guarded,
    kernel::{self, PYTHON, alone, cgroup::Cgroup},
    table,
};

#[test]
fn raw_and_packet_sockets_are_not_seen() {
    const SCRIPT: &str = r#"
import socket
def attempt(call, *kind):
    with socket.socket(*kind) as s:
        try:
            call(s)
            return 0
        except OSError as error:
            return error.errno
packet = b"\x00\x09\x00\x09\x00\x08\x00\x00"
raw = socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP
print(attempt(lambda s: s.sendto(packet, ("127.0.0.7", 0)), *raw))
print(attempt(lambda s: s.connect(("127.0.0.7", 0)), *raw))
header = b"\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x7f\0\0\x01\x7f\0\0\x07"
frame = lambda s: s.sendto(header + packet, ("lo", 0x0800))
print(attempt(frame, socket.AF_PACKET, socket.SOCK_DGRAM, 0))
"#;
    let Some(_alone) = alone() else { return };
    let guarded =
        Guarded::new(GuardMode::Enforce, "default allow\ndeny connect,send any 127.0.0.7");
    let mut command = guarded.cgroup.command(PYTHON);
    let child = command.args(["-I", "-S", "-c", SCRIPT]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(kernel::numbers(child), [0, 0, 0]);
    assert_eq!(guarded.denied(), 0);
}

#[test]
fn listening_without_bind_is_not_seen() {
    const SCRIPT: &str = r#"
import socket
with socket.socket() as bound:
    try: bound.bind(("0.0.0.0", 0))
    except OSError as error: print(error.errno)
with socket.socket() as listener, socket.socket() as client:
    listener.listen()
    client.connect(("127.0.0.1", listener.getsockname()[1]))
    print(int(listener.accept()[1] == client.getsockname()))
"#;
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny bind");
    let mut command = guarded.cgroup.command(PYTHON);
    let child = command.args(["-I", "-S", "-c", SCRIPT]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(kernel::numbers(child), [i64::from(EPERM), 1]);
    assert_eq!(guarded.denied(), 1);
}

/// Runs a script in the cgroup, in a network of its own that is the loopback device with one address,
/// 192.0.2.1, and lets everybody send echo requests.
fn in_own_network(cgroup: &Cgroup, script: &str) -> Vec<i64> {
    const MAKE: &str = "ip link set lo up && ip addr flush dev lo &&
        ip addr add 192.0.2.1/24 broadcast 192.0.2.255 dev lo &&
        echo 0 0 > /proc/sys/net/ipv4/ping_group_range && exec \"$@\"";
    let mut command = cgroup.command("unshare");
    command.args(["--net", "sh", "-c", MAKE, "sh", PYTHON, "-I", "-S", "-c", script]);
    kernel::numbers(command.stdout(Stdio::piped()).spawn().unwrap())
}

#[test]
fn sending_by_a_ping_socket_is_not_seen() {
    /// The errno of a datagram, and whether the request is answered.
    const SCRIPT: &str = r#"
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    try: s.sendto(b"x", ("192.0.2.1", 9))
    except OSError as error: print(error.errno)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
    s.settimeout(60)
    s.sendto(b"\x08\0\0\0\0\0\0\1what is to get out", ("192.0.2.1", 0))
    print(int(s.recv(100).endswith(b"what is to get out")))
"#;
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default deny");
    assert_eq!(in_own_network(&guarded.cgroup, SCRIPT), [i64::from(EPERM), 1]);
    assert_eq!(guarded.denied(), 1);
}

#[test]
fn no_address_may_be_one_of_the_hosts_own_that_the_program_cannot_see() {
    /// The errno of a connect, and the last bytes of what two others have reached.
    const SCRIPT: &str = r#"
import socket
def new(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def reached(s):
    s.connect(("0.0.0.0", 9))
    return s.getpeername()[0].replace("192.0.2.", "")
try: new().connect(("192.0.2.1", 9))
except OSError as error: print(error.errno)
device = new()
device.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
print(reached(device))
again = new()
again.bind(("192.0.2.255", 0))
again.connect(("192.0.2.2", 9))
print(reached(again))
"#;
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny connect any 192.0.2.1");
    assert_eq!(in_own_network(&guarded.cgroup, SCRIPT), [i64::from(EPERM), 1, 1]);
    assert_eq!(guarded.denied(), 1);
}

#[test]
fn helpers_outside_act_outside_and_sockets_that_are_handed_over_stay_where_they_were_made() {
    /// Listens by the name of its argument, connects a socket that it is handed and one of its own, says what
    /// became of it, and hands over another one.
    const HELPER: &str = r#"
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("\0" + sys.argv[1])
listener.listen()
client, _ = listener.accept()
_, handed, _, _ = socket.recv_fds(client, 1, 1)
answer = bytes([attempt(socket.socket(fileno=handed[0])), attempt(new())])
socket.send_fds(client, [answer], [new().detach()])
"#;
    const INSIDE: &str = r#"
helper = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
while helper.connect_ex("\0" + sys.argv[1]) != 0: time.sleep(0.01)
socket.send_fds(helper, [b"x"], [new().detach()])
answer, handed, _, _ = socket.recv_fds(helper, 2, 1)
print(*answer, attempt(socket.socket(fileno=handed[0])), attempt(new()))
"#;
    const BOTH: &str = r#"
import signal, socket, sys, time
signal.alarm(60)
def new(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def attempt(s):
    try:
        s.connect(("127.0.0.7", 9))
        return 0
    except OSError as error:
        return error.errno
"#;
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default deny");
    let outside = Cgroup::new();
    let name = format!("tipstaff-test-{}", std::process::id());
    // Both as the same user, who may do nothing else.
    let spawn = |cgroup: &Cgroup, script: &str| {
        let mut command = cgroup.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PYTHON, "-I", "-S"]);
        command.args(["-c", &format!("{BOTH}{script}"), &name]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let helper = spawn(&outside, HELPER);
    let inside = kernel::numbers(spawn(&guarded.cgroup, INSIDE));
    assert_eq!(kernel::numbers(helper), [0_i64; 0]);
    let eperm = i64::from(EPERM);
    assert_eq!(inside, [eperm, 0, 0, eperm]);
    assert_eq!(guarded.denied(), 2);
}

#[test]
fn root_can_take_programs_off() {
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default deny");
    let mut inside = Caller::new(&guarded.cgroup);
    assert_eq!(inside.call("connect udp 127.0.0.7 9"), EPERM);
    for link in guarded.guard.links() {
        let path = format!("/proc/self/fdinfo/{}", link.as_raw_fd());
        let text = std::fs::read_to_string(path).unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix("link_id:")).unwrap().trim();
        let output = Command::new("bpftool").args(["link", "detach", "id", id]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(inside.call("connect udp 127.0.0.7 9"), 0);
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
