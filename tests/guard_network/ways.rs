//! Programs and ways into the kernel.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tipstaff_events::guard::DEFAULT_IN_RECORD;
use tipstaff_runtime::guard::GuardMode;

use super::{
    Caller, EINPROGRESS, EPERM, Guarded,
    kernel::{self, PYTHON, alone, cgroup::Cgroup, here::ways_program},
};

/// A web server on that address, for as long as the test runs: its port.
fn web(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    port
}

/// A name server that knows nothing, but answers: its port, and how often it was asked.
fn names(address: &str) -> (u16, Arc<AtomicU64>) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut packet) {
            counter.fetch_add(1, Ordering::SeqCst);
            // The header and the question, which ends with the root's label, a type and a class.
            let end = 12 + packet[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
            packet[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
            let _ = socket.send_to(&packet[..end], from);
        }
    });
    (port, asked)
}

/// Runs a program in the cgroup: its exit code, and how many of its calls failed with `EPERM`, as strace
/// sees it.
fn traced(cgroup: &Cgroup, program: &[&str]) -> (i32, u64) {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut command = cgroup.command("strace");
    command.args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg,bind", "-o"]);
    let status = command.arg(trace.path()).args(program).stdout(Stdio::null()).status().unwrap();
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    (status.code().unwrap(), trace.matches("= -1 EPERM ").count() as u64)
}

#[test]
fn curl_fails_at_once_in_scope_and_works_outside() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(
        GuardMode::Enforce,
        "default allow\ndeny bind\ndeny connect tcp 127.0.0.7 # no site",
    );
    let port = web("127.0.0.7");
    let site = format!("http://127.0.0.7:{port}/");
    let other = format!("http://127.0.0.8:{}/", web("127.0.0.8"));
    let curl = |site| ["curl", "-s", "-o", "/dev/null", "--max-time", "60", site];
    let outside = Cgroup::new();
    assert_eq!(traced(&outside, &curl(&site)), (0, 0));
    assert_eq!(traced(&guarded.cgroup, &curl(&other)), (0, 0));
    assert_eq!(guarded.denied(), 0);
    // 7: could not connect; 28 would be a timeout.
    let (code, refused) = traced(&guarded.cgroup, &curl(&site));
    assert_eq!((code, refused), (7, 1));
    assert_eq!(guarded.denied(), refused);
    let events = guarded.events();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(&event.bytes()[40..45], b"curl\0");
    assert_eq!(
        event.address("address"),
        std::net::Ipv4Addr::new(127, 0, 0, 7).to_ipv6_mapped().octets()
    );
    assert_eq!(event.number("port"), u64::from(port));
    assert_eq!(event.number("rule"), 1);
    assert_eq!(event.number("guard"), 7);
    assert_eq!(event.number("scope"), guarded.cgroup.id());
    assert_eq!(event.number("cgroup"), guarded.cgroup.id());
    assert_eq!(
        ["operation", "family", "protocol", "verdict"].map(|field| event.name(field)),
        ["connect", "inet", "tcp", "denied"]
    );
}

#[test]
fn dig_asks_nobody_in_scope_and_is_answered_outside() {
    let Some(_alone) = alone() else { return };
    let guarded =
        Guarded::new(GuardMode::Enforce, "default allow\ndeny connect,send any 127.0.0.7");
    let (port, asked) = names("127.0.0.7");
    let port = port.to_string();
    for more in [&[][..], &["+tcp"]] {
        let mut dig = vec!["dig", "+tries=1", "+time=5", "@127.0.0.7", "-p", &port, "example.org"];
        dig.extend(more);
        let before = (guarded.denied(), asked.load(Ordering::SeqCst));
        if more.is_empty() {
            assert_eq!(traced(&Cgroup::new(), &dig), (0, 0));
            assert_eq!(asked.load(Ordering::SeqCst), before.1 + 1);
        }
        let (code, refused) = traced(&guarded.cgroup, &dig);
        assert_ne!(code, 0, "{dig:?}");
        assert!(refused > 0, "{dig:?}");
        assert_eq!(guarded.denied() - before.0, refused);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn every_call_that_names_an_address_is_denied_and_attributed() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(
        GuardMode::Enforce,
        "default allow\ndeny any any 127.0.0.7\ndeny any any ::1\ndeny bind any any 4000-4999",
    );
    let port = web("127.0.0.7");
    let six = TcpListener::bind("[::1]:0").unwrap();
    let port6 = six.local_addr().unwrap().port();
    let mut inside = Caller::new(&guarded.cgroup);
    let other = Cgroup::new();
    let mut outside = Caller::new(&other);
    let calls = [
        (format!("connect tcp 127.0.0.7 {port}"), "connect", "inet", "tcp", 0),
        (format!("nonblocking tcp 127.0.0.7 {port}"), "connect", "inet", "tcp", 0),
        (format!("fastopen tcp 127.0.0.7 {port}"), "connect", "inet", "tcp", 0),
        ("connect udp 127.0.0.7 9".into(), "connect", "inet", "udp", 0),
        ("sendto udp 127.0.0.7 9".into(), "send", "inet", "udp", 0),
        ("sendmsg udp 127.0.0.7 9".into(), "send", "inet", "udp", 0),
        ("bind tcp 127.0.0.7 0".into(), "bind", "inet", "tcp", 0),
        (format!("connect tcp ::1 {port6}"), "connect", "inet6", "tcp", 1),
        ("connect udp ::1 9".into(), "connect", "inet6", "udp", 1),
        ("sendto udp ::1 9".into(), "send", "inet6", "udp", 1),
        ("bind udp ::1 0".into(), "bind", "inet6", "udp", 1),
        (format!("connect tcp ::ffff:127.0.0.7 {port}"), "connect", "inet6", "tcp", 0),
        ("connect udp ::ffff:127.0.0.7 9".into(), "connect", "inet6", "udp", 0),
        // The kernel makes an IPv4 call of it.
        ("sendto udp ::ffff:127.0.0.7 9".into(), "send", "inet", "udp", 0),
        ("bind tcp 0.0.0.0 4001".into(), "bind", "inet", "tcp", 2),
        ("bind udp :: 4999".into(), "bind", "inet6", "udp", 2),
    ];
    for (line, ..) in &calls {
        let result = outside.call(line);
        assert!(result == 0 || result == EINPROGRESS, "{line}: {result}");
    }
    for (line, ..) in &calls {
        assert_eq!(inside.call(line), EPERM, "{line}");
    }
    for line in ["connect udp 127.0.0.8 9", "sendto udp 127.0.0.8 9", "bind tcp 0.0.0.0 0"] {
        assert_eq!(inside.call(line), 0, "{line}");
    }
    let events = guarded.events();
    assert_eq!(events.len(), calls.len());
    assert_eq!(guarded.denied(), calls.len() as u64);
    for (event, (line, operation, family, protocol, rule)) in events.iter().zip(calls) {
        assert_eq!(event.number("pid"), u64::from(inside.pid()), "{line}");
        assert_eq!(&event.bytes()[40..48], b"python3\0", "{line}");
        let told = ["operation", "family", "protocol"].map(|field| event.name(field));
        assert_eq!(told, [operation, family, protocol], "{line}");
        assert_eq!(event.number("rule"), rule, "{line}");
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(event.number("port").to_string(), words[3], "{line}");
        let address: std::net::IpAddr = words[2].parse().unwrap();
        let octets = match address {
            std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(address) => address.octets(),
        };
        assert_eq!(event.address("address"), octets, "{line}");
    }
}

#[test]
fn an_address_that_stands_for_another_is_decided_as_the_other() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(
        GuardMode::Enforce,
        "default allow\ndeny any any 127.0.0.0/30\ndeny any any ::1",
    );
    let mut inside = Caller::new(&guarded.cgroup);
    let other = Cgroup::new();
    let mut outside = Caller::new(&other);
    for (line, result, address) in [
        ("connect udp 0.0.0.0 9", EPERM, "::ffff:127.0.0.1"),
        ("sendto udp 0.0.0.0 9", EPERM, "::ffff:127.0.0.1"),
        ("connect udp :: 9", EPERM, "::1"),
        ("sendto udp :: 9", EPERM, "::1"),
        ("connect udp ::ffff:0.0.0.0 9", EPERM, "::ffff:127.0.0.1"),
        // Might be loopback, for all that the program can see.
        ("connect udp 0.0.0.0 9 127.0.0.8", EPERM, "::ffff:127.0.0.1"),
        ("connect udp ::ffff:0.0.0.0 9 ::ffff:127.0.0.8", EPERM, "::ffff:127.0.0.1"),
        // Is loopback: the kernel sends nothing from a broadcast address.
        ("connect udp 0.0.0.0 9 127.255.255.255", EPERM, "::ffff:127.0.0.1"),
        ("connect udp 0.0.0.0 9 255.255.255.255", EPERM, "::ffff:127.0.0.1"),
        ("sendto udp 0.0.0.0 9 127.255.255.255", EPERM, "::ffff:127.0.0.1"),
        ("sendto udp 0.0.0.0 9 127.0.0.8", 0, ""),
        ("connect udp :: 9 ::ffff:127.0.0.8", EPERM, "::ffff:127.0.0.1"),
    ] {
        let outside = outside.call(line);
        assert_eq!(outside, 0, "outside: {line}");
        assert_eq!(inside.call(line), result, "{line}");
        if result != 0 {
            let events = guarded.events();
            let address: std::net::Ipv6Addr = address.parse().unwrap();
            assert_eq!(events.last().unwrap().address("address"), address.octets(), "{line}");
        }
    }
    // Bound to an address of ours, 0.0.0.0 is that address.
    guarded.guard.install(&super::table("default allow\ndeny connect,send any 127.0.0.8")).unwrap();
    for line in [
        "connect udp 0.0.0.0 9 127.0.0.8",
        "connect udp ::ffff:0.0.0.0 9 ::ffff:127.0.0.8",
        "sendto udp 0.0.0.0 9 127.0.0.8",
    ] {
        assert_eq!(inside.call(line), EPERM, "{line}");
    }
    // By TCP, and a service that would have been reached.
    guarded.guard.install(&super::table("default allow\ndeny connect tcp 127.0.0.1")).unwrap();
    let line = format!("connect tcp 0.0.0.0 {} 127.255.255.255", web("127.0.0.1"));
    assert_eq!(outside.call(&line), 0);
    let before = guarded.denied();
    assert_eq!(inside.call(&line), EPERM);
    assert_eq!(guarded.denied() - before, 1, "one call that is about two addresses");
    // In audit, too, it is told once.
    guarded.guard.set_mode(GuardMode::Audit).unwrap();
    guarded.guard.install(&super::table("default deny")).unwrap();
    assert_eq!(inside.call("connect udp 0.0.0.0 9 127.0.0.8"), 0);
    // The bind, and the connect.
    assert_eq!(super::sum(&guarded.guard, |count| count.would_deny), 2);
    assert_eq!(inside.call("connect udp 0.0.0.0 9"), 0);
}

#[test]
fn the_32_bit_table_io_uring_and_sendmmsg_are_no_way_around() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default deny\nallow any any 127.0.0.8");
    let run = |arguments: &[&str]| {
        let mut command = guarded.cgroup.command(ways_program());
        let child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        (pid, kernel::numbers(child))
    };
    let (compat, results) = run(&["compat-connect", "127.0.0.7", "9"]);
    assert_eq!(results, [-1, -1]);
    assert_eq!(run(&["compat-connect", "127.0.0.8", "9"]).1, [0, 0]);
    let (uring, results) = run(&["uring-connect", "127.0.0.7", "9"]);
    assert_eq!(results, [-1, -1]);
    assert_eq!(run(&["uring-connect", "127.0.0.8", "9"]).1, [0, 0]);
    // What was sent before the one that is denied is what the call says.
    let (first, results) = run(&["sendmmsg", "127.0.0.7", "127.0.0.8", "9"]);
    assert_eq!(results, [-1]);
    let (second, results) = run(&["sendmmsg", "127.0.0.8", "127.0.0.7", "9"]);
    assert_eq!(results, [1]);
    let pids: Vec<u64> = guarded.events().iter().map(|event| event.number("pid")).collect();
    assert_eq!(pids, [compat, compat, uring, uring, first, second].map(u64::from));
    let events = guarded.events();
    assert!(events.iter().all(|event| event.number("rule") == u64::from(DEFAULT_IN_RECORD)));
    assert_eq!(guarded.denied(), 6);
}

#[test]
fn threads_children_and_daemons_stay_in_scope() {
    const SCRIPT: &str = r#"
import os, socket, threading
def attempt():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.7", 9))
        return 0
    except OSError as error:
        return error.errno
results = []
thread = threading.Thread(target=lambda: results.append(attempt()))
thread.start()
thread.join()
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, b"%d %d" % (attempt(), os.getpid()))
    os._exit(0)
os.wait()
os.close(write)
print(results[0], os.read(read, 100).decode())
"#;
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny connect any 127.0.0.7");
    let mut command = guarded.cgroup.command(PYTHON);
    let child = command.args(["-I", "-S", "-c", SCRIPT]).stdout(Stdio::piped()).spawn().unwrap();
    let pid = u64::from(child.id());
    let numbers = kernel::numbers(child);
    assert_eq!(numbers[..2], [i64::from(EPERM), i64::from(EPERM)]);
    let events = guarded.events();
    let told: Vec<u64> = events.iter().map(|event| event.number("pid")).collect();
    assert_eq!(told, [pid, numbers[2].cast_unsigned()]);
    assert_ne!(events[0].number("tid"), pid, "it was not the first thread");
}

#[test]
fn mptcp_is_decided_as_tcp() {
    let Some(_alone) = alone() else { return };
    let guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny connect tcp 127.0.0.7");
    let line = format!("connect mptcp 127.0.0.7 {}", web("127.0.0.7"));
    let other = Cgroup::new();
    if Caller::new(&other).call(&line) == 0 {
        assert_eq!(Caller::new(&guarded.cgroup).call(&line), EPERM);
        assert_eq!(guarded.denied(), 1);
    } else {
        eprintln!("skipped: no MPTCP here");
    }
}
