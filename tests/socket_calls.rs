//! connect, accept, listen and `tcp_close` on the running kernel, with exact counts. Needs root:
//! elsewhere each test says why it is skipped, except in CI, where it fails.

mod kernel;
#[path = "kernel/sockets.rs"]
mod sockets;

use std::{
    fs,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use kernel::{
    Event, alone, sees_uring,
    vm::{release, rounds},
    ways,
};
use sockets::{ECONNREFUSED, EINPROGRESS, load, loopback, python, recording};
use tipstaff_events::catalogue::{accept, connect, listen, tcp_close};
use tipstaff_runtime::queue::Cause;

const ENOENT: i64 = 2;
const EBADF: i64 = 9;
const EAGAIN: i64 = 11;
const EFAULT: i64 = 14;
const ENOTSOCK: i64 = 88;

#[test]
fn closed_connections_count_what_was_sent_both_ways() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let load = load();
    for round in 0..rounds(20) {
        let (pid, ports) = python(
            &mut recording,
            "
print(port)
def receive(end, size):
    while size: size -= len(end.recv(min(size, 65536)))
for sent, answered, first in ((0, 0, 'client'), (1000, 77, 'client'), (123, 0, 'server'), (300000, 5, 'server'), (1, 200000, 'client')):
    client = socket.create_connection(('127.0.0.1', port))
    server, _ = listening.accept()
    if os.fork() == 0:
        client.sendall(b'x' * sent)
        os._exit(0)
    receive(server, sent)
    os.wait()
    if os.fork() == 0:
        server.sendall(b'y' * answered)
        os._exit(0)
    receive(client, answered)
    os.wait()
    for end in (client, server) if first == 'client' else (server, client):
        end.close()
        select.select([], [], [], 0.02)
",
        );
        // The last acknowledgement may still be under way when the process has ended.
        let end = Instant::now() + kernel::here::PATIENCE;
        let mut closes = recording.of_process(tcp_close::KIND, pid);
        while closes.len() < 10 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            closes = recording.of_process(tcp_close::KIND, pid);
        }
        // Others have connections that nobody accepts.
        let mut unowned = recording.of_process(tcp_close::KIND, 0);
        unowned.retain(|event| {
            let ends = [event.number("port"), event.number("local_port")];
            ends.contains(&ports[0].cast_unsigned())
        });
        assert_eq!((closes.len(), unowned.len()), (10, 0), "round {round}: {unowned:?}");
        for (sent, answered) in [(0, 0), (1000, 77), (123, 0), (300_000, 5), (1, 200_000)] {
            for (direction, sent, received) in
                [("outgoing", sent, answered), ("incoming", answered, sent)]
            {
                let found = closes
                    .iter()
                    .filter(|event| {
                        event.name("direction") == direction
                            && event.number("bytes_sent") == sent
                            && event.number("bytes_received") == received
                    })
                    .count();
                assert_eq!(found, 1, "round {round}: {direction} {sent} {received}: {closes:?}");
            }
        }
        for event in &closes {
            assert!(!event.is_absent("start"));
            assert!(!event.is_absent("duration") && event.number("duration") > 0);
            assert_eq!((event.ip("address"), event.name("family")), (loopback(), "inet"));
            assert!(event.number("port") > 0 && event.number("local_port") > 0);
        }
    }
    drop(load);
    assert_eq!(recording.lost(), []);
}

#[test]
fn other_families_and_protocols_are_told_apart() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a socket");
    let (pid, _) = python(
        &mut recording,
        &format!(
            "
def attempt(family, kind, address):
    client = socket.socket(family, kind)
    client.connect_ex(address)
    return client
unix = socket.socket(socket.AF_UNIX)
unix.bind({path:?})
unix.listen(3)
named = attempt(socket.AF_UNIX, socket.SOCK_STREAM, {path:?})
unix.accept()[0].close()
abstract = socket.socket(socket.AF_UNIX)
abstract.bind(f'\\0tipstaff {{os.getpid()}}')
abstract.listen(4)
nameless = attempt(socket.AF_UNIX, socket.SOCK_STREAM, f'\\0tipstaff {{os.getpid()}}')
attempt(socket.AF_UNIX, socket.SOCK_STREAM, '/missing')
attempt(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', 53))
six = socket.socket(socket.AF_INET6)
six.bind(('::1', 0))
six.listen(5)
attempt(socket.AF_INET6, socket.SOCK_STREAM, six.getsockname())
attempt(socket.AF_INET6, socket.SOCK_STREAM, ('::ffff:127.0.0.1', port))
"
        ),
    );
    let path = path.to_str().unwrap().as_bytes();
    let abstract_path = format!("@tipstaff {pid}").into_bytes();
    let connects = recording.of_process(connect::KIND, pid);
    let said: Vec<_> = connects
        .iter()
        .map(|event| {
            (
                event.name("family"),
                event.name("protocol"),
                event.name("outcome"),
                event.result(),
                event.text("unix_path").to_vec(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("unix", "unix", "none", 0, path.to_vec()),
            ("unix", "unix", "none", 0, abstract_path.clone()),
            ("unix", "unix", "none", -ENOENT, b"/missing".to_vec()),
            ("inet", "udp", "none", 0, Vec::new()),
            ("inet6", "tcp", "established", 0, Vec::new()),
            ("inet6", "tcp", "established", 0, Vec::new()),
        ]
    );
    assert_eq!(connects[3].ip("address"), loopback());
    assert_eq!((connects[3].number("port"), connects[3].is_absent("latency")), (53, true));
    assert_eq!(connects[4].ip("address"), Ipv6Addr::LOCALHOST);
    assert_eq!(connects[5].ip("address"), loopback());
    assert!(
        connects[..3].iter().all(|event| event.is_absent("address") && event.is_absent("port"))
    );

    let listens = recording.of_process(listen::KIND, pid);
    let said: Vec<_> = listens
        .iter()
        .map(|event| (event.name("family"), event.number("backlog"), event.text("unix_path")))
        .collect();
    assert_eq!(
        said,
        [("inet", 64, &b""[..]), ("unix", 3, path), ("unix", 4, &abstract_path), ("inet6", 5, b"")]
    );
    let accepts = recording.of_process(accept::KIND, pid);
    let [accepted] = &accepts[..] else { panic!("{accepts:?}") };
    assert_eq!((accepted.name("family"), accepted.text("unix_path")), ("unix", path));
}

#[test]
fn failed_calls_say_why_and_what_was_asked_for() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let (pid, ports) = python(
        &mut recording,
        "
import ctypes
print(port)
libc = ctypes.CDLL(None)
address = b'\\x02\\0\\0\\x50\\x7f\\0\\0\\1' + bytes(8)
file = os.open('/', os.O_RDONLY)
libc.connect(999, address, 16)
libc.connect(file, address, 16)
libc.listen(999, 1)
libc.listen(file, 1)
libc.accept(999, 0, 0)
listening.setblocking(False)
libc.accept(listening.fileno(), 0, 0)
",
    );
    let connects = recording.of_process(connect::KIND, pid);
    let said: Vec<_> = connects
        .iter()
        .map(|event| {
            (event.result(), event.name("family"), event.name("protocol"), event.number("port"))
        })
        .collect();
    assert_eq!(said, [(-EBADF, "inet", "-", 80), (-ENOTSOCK, "inet", "-", 80)]);
    let listens = recording.of_process(listen::KIND, pid);
    let said: Vec<_> = listens.iter().map(|event| (event.result(), event.name("family"))).collect();
    assert_eq!(said, [(0, "inet"), (-EBADF, "-"), (-ENOTSOCK, "-")]);
    let accepts = recording.of_process(accept::KIND, pid);
    let said: Vec<_> = accepts
        .iter()
        .map(|event| (event.result(), event.name("family"), event.is_absent("port")))
        .collect();
    assert_eq!(said, [(-EBADF, "-", true), (-EAGAIN, "inet", true)]);
    assert_eq!(accepts[1].number("local_port"), ports[0].cast_unsigned());
}

#[test]
fn calls_by_the_32_bit_table_are_decoded_with_it() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let (pid, results) = ways(&["compat", folder.path().to_str().unwrap()]);
    assert_eq!(results[4..6], [0, 0]);
    let (listens, connects, accepts) = (
        recording.of_process(listen::KIND, pid),
        recording.of_process(connect::KIND, pid),
        recording.of_process(accept::KIND, pid),
    );
    let ([listen], [connect], [accept]) = (&listens[..], &connects[..], &accepts[..]) else {
        panic!("{listens:?} {connects:?} {accepts:?}")
    };
    assert_eq!((listen.name("via"), listen.number("backlog"), listen.result()), ("compat", 5, 0));
    assert_eq!(
        (connect.name("via"), connect.name("outcome"), connect.number("port")),
        ("compat", "established", listen.number("port"))
    );
    assert_eq!(
        (accept.name("via"), accept.result(), accept.number("port")),
        ("compat", results[6], connect.number("local_port"))
    );
}

#[test]
fn operations_by_io_uring_are_seen() {
    let Some(_guard) = alone() else { return };
    if !sees_uring() {
        return;
    }
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    for _ in 0..rounds(20) {
        let (pid, results) = ways(&["uring", folder.path().to_str().unwrap(), &port.to_string()]);
        assert_eq!(results[5..7], [0, -ECONNREFUSED]);
        listening.accept().unwrap();
        let connects = recording.of_process(connect::KIND, pid);
        let said: Vec<_> = connects
            .iter()
            .map(|event| (event.name("via"), event.result(), event.name("outcome")))
            .collect();
        assert_eq!(
            said,
            [
                ("io_uring", 0, "established"),
                ("io_uring", -ECONNREFUSED, "refused"),
                ("syscall", 0, "established")
            ]
        );
        assert_eq!(
            (connects[0].number("port"), connects[0].ip("address")),
            (port.into(), loopback())
        );
        let accepts = recording.of_process(accept::KIND, pid);
        let [accept] = &accepts[..] else { panic!("{accepts:?}") };
        assert_eq!((accept.name("via"), accept.result()), ("io_uring", results[7]));
        assert_eq!(accept.number("port"), connects[2].number("local_port"));
    }
    assert_eq!(recording.lost(), []);
}

#[test]
fn operations_by_io_uring_whose_completions_find_no_room_are_seen() {
    let Some(_guard) = alone() else { return };
    if !sees_uring() {
        return;
    }
    let mut recording = recording();
    for same in ["0", "1"].repeat(rounds(10) as usize) {
        let (pid, said) = ways(&["sockets-full", "20", same]);
        let mut connects = recording.of_process(connect::KIND, pid);
        let mut refused = connects.clone();
        refused.retain(|event| event.name("via") == "io_uring");
        connects.retain(|event| event.name("via") == "syscall");
        let by_result = |events: &[Event]| {
            let mut results: Vec<i64> = events.iter().map(Event::result).collect();
            results.sort_unstable();
            results
        };
        let accepts = recording.of_process(accept::KIND, pid);
        assert_eq!(by_result(&accepts), said[..20], "same {same}");
        assert_eq!(by_result(&refused), said[20..], "same {same}");
        assert!(refused.iter().all(|event| event.name("outcome") == "refused"));
        let ports = |events: &[Event], field| {
            let mut ports: Vec<u64> = events.iter().map(|event| event.number(field)).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(ports(&accepts, "port"), ports(&connects, "local_port"));
    }
    assert_eq!(recording.lost(), []);
}

#[test]
fn calls_whose_arguments_cannot_be_read_are_counted_as_lost() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let (pid, results) = ways(&["unreadable"]);
    assert_eq!(results, [-EFAULT; 3]);
    for kind in [connect::KIND, accept::KIND, listen::KIND] {
        assert_eq!(recording.of_process(kind, pid).len(), 0);
    }
    let mut lost = recording.lost();
    lost.sort_unstable_by_key(|&(kind, ..)| kind);
    let once = |kind| (kind, Cause::ProgramMissed, 1);
    assert_eq!(lost, [connect::KIND, accept::KIND, listen::KIND].map(once));
}

/// Whether sockets of MPTCP can be made; says so if not.
fn has_mptcp() -> bool {
    let has = fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text == "1\n");
    if !has {
        eprintln!("skipped: this kernel has no MPTCP");
    }
    has
}

#[test]
fn a_connection_by_mptcp_is_one_connection() {
    let Some(_guard) = alone() else { return };
    if !has_mptcp() {
        return;
    }
    let mut recording = recording();
    for round in 0..rounds(20) {
        let (pid, said) = python(
            &mut recording,
            "
kept = []
for ours, theirs in ((262, 262), (262, 0), (0, 262)):
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, theirs)
    listening.bind(('127.0.0.1', 0))
    listening.listen(8)
    for blocking in (True, False):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, ours)
        client.setblocking(blocking)
        client.connect_ex(listening.getsockname())
        if not blocking: settle(client)
        client.setblocking(True)
        server = listening.accept()[0]
        print(listening.getsockname()[1], client.getsockname()[1])
        client.sendall(b'x' * 1000)
        size = 1000
        while size: size -= len(server.recv(size))
        server.sendall(b'y' * 77)
        size = 77
        while size: size -= len(client.recv(size))
        client.close()
        server.close()
    refused = socket.socket(socket.AF_INET, socket.SOCK_STREAM, ours)
    refused.connect_ex(('127.0.0.1', closed_port))
print(closed_port)
",
        );
        let (connections, closed_port) = (said[..12].chunks(2), said[12].cast_unsigned());
        let connects = recording.of_process(connect::KIND, pid);
        let refused = |event: &&Event| event.number("port") == closed_port;
        assert_eq!(connects.iter().filter(refused).count(), 3);
        for event in connects.iter().filter(refused) {
            assert_eq!((event.result(), event.name("outcome")), (-ECONNREFUSED, "refused"));
        }
        assert_eq!(connects.len(), 6 + 3, "round {round}: {connects:?}");
        // The last packets are handled after the sockets are closed.
        let end = Instant::now() + kernel::here::PATIENCE;
        let closes = loop {
            let mut closes = recording.of(tcp_close::KIND);
            closes.retain(|event| {
                let ports = [event.number("port"), event.number("local_port")];
                connections
                    .clone()
                    .any(|pair| pair.iter().all(|&port| ports.contains(&port.cast_unsigned())))
            });
            if closes.len() >= 12 || Instant::now() > end {
                break closes;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(closes.len(), 12, "round {round}: {closes:?}");
        for (number, pair) in connections.enumerate() {
            let &[port, local_port] = pair else { unreachable!() };
            let of_client = |event: &&Event| {
                event.number("port") == port.cast_unsigned()
                    && event.number("local_port") == local_port.cast_unsigned()
            };
            let of_server = |event: &&Event| {
                event.number("local_port") == port.cast_unsigned()
                    && event.number("port") == local_port.cast_unsigned()
            };
            let connects: Vec<_> = connects.iter().filter(of_client).collect();
            let [connect] = connects[..] else { panic!("round {round}, {number}: {connects:?}") };
            let result = if number % 2 == 0 { 0 } else { -EINPROGRESS };
            assert_eq!((connect.result(), connect.name("outcome")), (result, "established"));
            assert_eq!((connect.ip("address"), connect.name("protocol")), (loopback(), "tcp"));
            assert!(connect.number("latency") > 0);
            let ends: Vec<_> =
                closes.iter().filter(of_client).chain(closes.iter().filter(of_server)).collect();
            let said: Vec<_> = ends
                .iter()
                .map(|event| {
                    let direction = event.name("direction");
                    let bytes = (event.number("bytes_sent"), event.number("bytes_received"));
                    (event.number("pid"), direction, bytes)
                })
                .collect();
            let (pid, expected) = (u64::from(pid), [(1000, 77), (77, 1000)]);
            assert_eq!(
                said,
                [(pid, "outgoing", expected[0]), (pid, "incoming", expected[1])],
                "round {round}, {number}"
            );
        }
        let accepts = recording.of_process(accept::KIND, pid);
        assert_eq!(accepts.len(), 6);
    }
    assert_eq!(recording.lost(), []);
}

#[test]
fn one_request_that_accepts_many_gives_as_many_events() {
    let Some(_guard) = alone() else { return };
    if release() < (6, 18) {
        eprintln!("skipped: such requests are not seen here, as coverage says");
        return;
    }
    let mut recording = recording();
    for _ in 0..rounds(20) {
        let (pid, results) = ways(&["accept-many", "20"]);
        let accepts = recording.of_process(accept::KIND, pid);
        let connects = recording.of_process(connect::KIND, pid);
        let said: Vec<_> = accepts
            .iter()
            .map(|event| (event.name("via"), event.result(), event.number("port")))
            .collect();
        let expected: Vec<_> = results
            .iter()
            .zip(&connects)
            .map(|(&descriptor, connect)| ("io_uring", descriptor, connect.number("local_port")))
            .collect();
        // The request's own signals interrupt connect, which then is started again.
        assert_eq!((said, connects.len()), (expected, 20));
    }
    assert_eq!(recording.lost(), []);
}
