//! connect, accept, listen and `tcp_close` on the running kernel, with exact counts. Needs root:
//! elsewhere each test says why it is skipped, except in CI, where it fails.

mod kernel;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kernel::{Event, Recording, alone, ways};
use tipstaff_events::{
    Type,
    catalogue::{accept, connect, listen, tcp_close},
};
use tipstaff_runtime::probe::RingSizes;

const PYTHON: &str = "/usr/bin/python3";
const ENOENT: i64 = 2;
const EBADF: i64 = 9;
const EAGAIN: i64 = 11;
const ENOTSOCK: i64 = 88;
const ECONNREFUSED: i64 = 111;
const EINPROGRESS: i64 = 115;

/// Python that all scripts begin with: a listening socket on loopback, and a port that is closed.
const PRELUDE: &str = "
import os, select, socket
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen(64)
port = listening.getsockname()[1]
closed = socket.socket()
closed.bind(('127.0.0.1', 0))
closed_port = closed.getsockname()[1]
def settle(client):
    select.select([], [client], [], 10)
";

/// Connects to a loopback port of its own all the time until it is dropped.
struct Load(Child);

impl Load {
    fn start() -> Self {
        let script = PRELUDE.to_owned()
            + "
while True:
    client = socket.create_connection(('127.0.0.1', port))
    listening.accept()[0].close()
    client.close()
    client = socket.socket()
    client.connect_ex(('127.0.0.1', closed_port))
    client.close()
";
        Self(Command::new(PYTHON).args(["-I", "-S", "-c", &script]).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn recording() -> Recording {
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[connect::KIND, accept::KIND, listen::KIND, tcp_close::KIND]);
    recording
}

/// Runs the prelude and a script while it drains the rings. The pid, and the numbers it printed.
fn python(recording: &mut Recording, script: &str) -> (u64, Vec<i64>) {
    let script = PRELUDE.to_owned() + script;
    let mut command = Command::new(PYTHON);
    command.args(["-I", "-S", "-c", &script]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        recording.drain();
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let numbers = String::from_utf8(output.stdout).unwrap();
    (pid.into(), numbers.split_whitespace().map(|number| number.parse().unwrap()).collect())
}

fn of(recording: &mut Recording, kind: u16, pid: u64) -> Vec<Event> {
    recording.of(kind).into_iter().filter(|event| event.number("pid") == pid).collect()
}

fn result(event: &Event) -> i64 {
    i64::from(i32::try_from(event.number("result").cast_signed() << 32 >> 32).unwrap())
}

/// A named value, or `-` where it is absent.
fn name(event: &Event, field: &str) -> &'static str {
    if event.is_absent(field) {
        return "-";
    }
    let Type::Name(names) = event.field(field).ty else { panic!("{field} has no names") };
    names[usize::try_from(event.number(field)).unwrap()]
}

fn address(event: &Event, field: &str) -> Ipv6Addr {
    Ipv6Addr::from(event.address(field))
}

fn loopback() -> Ipv6Addr {
    Ipv4Addr::LOCALHOST.to_ipv6_mapped()
}

#[test]
fn each_connect_has_its_result_and_outcome_blocking_or_not_while_others_connect() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let load = Load::start();
    for round in 0..20 {
        let (pid, ports) = python(
            &mut recording,
            "
print(port, closed_port)
kept = []
for attempt in range(25):
    for target in (port, closed_port):
        for blocking in (True, False):
            client = socket.socket()
            client.setblocking(blocking)
            client.connect_ex(('127.0.0.1', target))
            if not blocking: settle(client)
            kept.append(client)
            if target == port: kept.append(listening.accept()[0])
",
        );
        let [port, closed_port] = ports[..] else { panic!("{ports:?}") };
        let connects = of(&mut recording, connect::KIND, pid);
        for (target, expected, outcome) in [
            (port, 0, "established"),
            (port, -EINPROGRESS, "established"),
            (closed_port, -ECONNREFUSED, "refused"),
            (closed_port, -EINPROGRESS, "refused"),
        ] {
            let seen = connects
                .iter()
                .filter(|event| {
                    event.number("port") == target.cast_unsigned()
                        && result(event) == expected
                        && name(event, "outcome") == outcome
                })
                .count();
            assert_eq!(seen, 25, "round {round}: {target} {expected} {outcome}");
        }
        assert_eq!(connects.len(), 100);
        for event in &connects {
            assert_eq!(
                (address(event, "address"), address(event, "local_address")),
                (loopback(), loopback())
            );
            assert_eq!(
                (name(event, "family"), name(event, "protocol"), name(event, "via")),
                ("inet", "tcp", "syscall")
            );
            assert!(event.number("latency") > 0 && event.number("local_port") > 0);
            assert!(event.is_absent("unix_path"));
        }
        let accepts = of(&mut recording, accept::KIND, pid);
        assert_eq!(accepts.len(), 50);
        for event in &accepts {
            assert!(result(event) > 2 && event.number("local_port") == port.cast_unsigned());
            let from = |connect: &&Event| {
                connect.number("local_port") == event.number("port")
                    && connect.number("port") == event.number("local_port")
            };
            assert_eq!(connects.iter().filter(from).count(), 1);
        }
        let listens = of(&mut recording, listen::KIND, pid);
        let [listen] = &listens[..] else { panic!("{listens:?}") };
        assert_eq!(
            (listen.number("port"), listen.number("backlog"), result(listen)),
            (port.cast_unsigned(), 64, 0)
        );
        assert_eq!(address(listen, "address"), loopback());
    }
    drop(load);
    assert_eq!(recording.lost(), []);
}

#[test]
fn an_attempt_that_is_given_up_is_aborted() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    // A full backlog drops further SYNs, so that the attempt stays under way.
    let (pid, _) = python(
        &mut recording,
        "
full = socket.socket()
full.bind(('127.0.0.1', 0))
full.listen(0)
kept = []
for attempt in range(5):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(full.getsockname())
    kept.append(client)
select.select([], [], [], 0.05)
for client in kept: client.close()
",
    );
    let connects = of(&mut recording, connect::KIND, pid);
    assert_eq!(connects.len(), 5);
    let outcomes: Vec<_> = connects.iter().map(|event| name(event, "outcome")).collect();
    assert!(outcomes.contains(&"aborted") && outcomes.contains(&"established"), "{outcomes:?}");
    assert!(connects.iter().all(|event| result(event) == -EINPROGRESS));
}

#[test]
fn closed_connections_count_what_was_sent_both_ways() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let load = Load::start();
    for round in 0..20 {
        let (pid, _) = python(
            &mut recording,
            "
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
        let end = Instant::now() + Duration::from_secs(5);
        let mut closes = of(&mut recording, tcp_close::KIND, pid);
        while closes.len() < 10 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            closes = of(&mut recording, tcp_close::KIND, pid);
        }
        let unowned = of(&mut recording, tcp_close::KIND, 0);
        assert_eq!((closes.len(), unowned.len()), (10, 0), "round {round}: {unowned:?}");
        for (sent, answered) in [(0, 0), (1000, 77), (123, 0), (300_000, 5), (1, 200_000)] {
            for (direction, sent, received) in
                [("outgoing", sent, answered), ("incoming", answered, sent)]
            {
                let found = closes
                    .iter()
                    .filter(|event| {
                        name(event, "direction") == direction
                            && event.number("bytes_sent") == sent
                            && event.number("bytes_received") == received
                    })
                    .count();
                assert_eq!(found, 1, "round {round}: {direction} {sent} {received}: {closes:?}");
            }
        }
        for event in &closes {
            assert!(!event.is_absent("duration") && event.number("duration") > 0);
            assert_eq!((address(event, "address"), name(event, "family")), (loopback(), "inet"));
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
    let connects = of(&mut recording, connect::KIND, pid);
    let said: Vec<_> = connects
        .iter()
        .map(|event| {
            (
                name(event, "family"),
                name(event, "protocol"),
                name(event, "outcome"),
                result(event),
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
    assert_eq!(address(&connects[3], "address"), loopback());
    assert_eq!((connects[3].number("port"), connects[3].is_absent("latency")), (53, true));
    assert_eq!(address(&connects[4], "address"), Ipv6Addr::LOCALHOST);
    assert_eq!(address(&connects[5], "address"), loopback());
    assert!(
        connects[..3].iter().all(|event| event.is_absent("address") && event.is_absent("port"))
    );

    let listens = of(&mut recording, listen::KIND, pid);
    let said: Vec<_> = listens
        .iter()
        .map(|event| (name(event, "family"), event.number("backlog"), event.text("unix_path")))
        .collect();
    assert_eq!(
        said,
        [("inet", 64, &b""[..]), ("unix", 3, path), ("unix", 4, &abstract_path), ("inet6", 5, b"")]
    );
    let accepts = of(&mut recording, accept::KIND, pid);
    let [accepted] = &accepts[..] else { panic!("{accepts:?}") };
    assert_eq!((name(accepted, "family"), accepted.text("unix_path")), ("unix", path));
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
    let connects = of(&mut recording, connect::KIND, pid);
    let said: Vec<_> = connects
        .iter()
        .map(|event| {
            (result(event), name(event, "family"), name(event, "protocol"), event.number("port"))
        })
        .collect();
    assert_eq!(said, [(-EBADF, "inet", "-", 80), (-ENOTSOCK, "inet", "-", 80)]);
    let listens = of(&mut recording, listen::KIND, pid);
    let said: Vec<_> = listens.iter().map(|event| (result(event), name(event, "family"))).collect();
    assert_eq!(said, [(0, "inet"), (-EBADF, "-"), (-ENOTSOCK, "-")]);
    let accepts = of(&mut recording, accept::KIND, pid);
    let said: Vec<_> = accepts
        .iter()
        .map(|event| (result(event), name(event, "family"), event.is_absent("port")))
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
    let pid = pid.into();
    let (listens, connects, accepts) = (
        of(&mut recording, listen::KIND, pid),
        of(&mut recording, connect::KIND, pid),
        of(&mut recording, accept::KIND, pid),
    );
    let ([listen], [connect], [accept]) = (&listens[..], &connects[..], &accepts[..]) else {
        panic!("{listens:?} {connects:?} {accepts:?}")
    };
    assert_eq!((name(listen, "via"), listen.number("backlog"), result(listen)), ("compat", 5, 0));
    assert_eq!(
        (name(connect, "via"), name(connect, "outcome"), connect.number("port")),
        ("compat", "established", listen.number("port"))
    );
    assert_eq!(
        (name(accept, "via"), result(accept), accept.number("port")),
        ("compat", results[6], connect.number("local_port"))
    );
}

#[test]
fn operations_by_io_uring_are_seen() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    for _ in 0..20 {
        let (pid, results) = ways(&["uring", folder.path().to_str().unwrap(), &port.to_string()]);
        assert_eq!(results[5..7], [0, -ECONNREFUSED]);
        listening.accept().unwrap();
        let connects = of(&mut recording, connect::KIND, pid.into());
        let said: Vec<_> = connects
            .iter()
            .map(|event| (name(event, "via"), result(event), name(event, "outcome")))
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
            (connects[0].number("port"), address(&connects[0], "address")),
            (port.into(), loopback())
        );
        let accepts = of(&mut recording, accept::KIND, pid.into());
        let [accept] = &accepts[..] else { panic!("{accepts:?}") };
        assert_eq!((name(accept, "via"), result(accept)), ("io_uring", results[7]));
        assert_eq!(accept.number("port"), connects[2].number("local_port"));
    }
    assert_eq!(recording.lost(), []);
}

#[test]
fn one_request_that_accepts_many_gives_as_many_events() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    for _ in 0..20 {
        let (pid, results) = ways(&["accept-many", "20"]);
        let accepts = of(&mut recording, accept::KIND, pid.into());
        let connects = of(&mut recording, connect::KIND, pid.into());
        let said: Vec<_> = accepts
            .iter()
            .map(|event| (name(event, "via"), result(event), event.number("port")))
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
