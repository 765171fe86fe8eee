//! What becomes of attempts to connect, on the running kernel, with exact counts. Needs root:
//! elsewhere each test says why it is skipped, except in CI, where it fails.

mod kernel;
#[path = "kernel/sockets.rs"]
mod sockets;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
};

use kernel::{
    Event, Recording, alone,
    vm::{emulated, rounds},
};
use sockets::{ECONNREFUSED, EINPROGRESS, load, loopback, python, recording};
use tipstaff_events::catalogue::{accept, connect, listen};
use tipstaff_runtime::{probe::RingSizes, queue::Cause};

const EINTR: i64 = 4;
const EACCES: i64 = 13;
const EINVAL: i64 = 22;
const ENETUNREACH: i64 = 101;
const ECONNRESET: i64 = 104;
const ETIMEDOUT: i64 = 110;
const EHOSTUNREACH: i64 = 113;
const EALREADY: i64 = 114;

/// Python that makes a network namespace of its own, in which hosts do what they should.
const WIRE: &str = include_str!("kernel/wire.py");

/// Whether such a namespace can be made; says so if not.
fn has_wire() -> bool {
    let has = Path::new("/dev/net/tun").exists();
    if !has {
        assert!(emulated(), "/dev/net/tun is missing: modprobe tun");
        eprintln!("skipped: this kernel image came without its module tun");
    }
    has
}

/// Runs a script in such a namespace. Its pid, and the numbers that it printed.
fn on_wire(recording: &mut Recording, script: &str) -> (u32, Vec<i64>) {
    recording.run(&mut kernel::python(&format!("{WIRE}{script}")))
}

/// What an attempt is called that ended with this error.
fn outcome_by(error: i64) -> &'static str {
    match error {
        0 => "established",
        ECONNREFUSED => "refused",
        ETIMEDOUT => "timed_out",
        EHOSTUNREACH | ENETUNREACH => "unreachable",
        ECONNRESET => "reset",
        EACCES | EINVAL => "none",
        other => panic!("no attempt should end with {other}"),
    }
}

#[test]
fn each_connect_has_its_result_and_outcome_blocking_or_not_while_others_connect() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let load = load();
    for round in 0..rounds(20) {
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
        let connects = recording.of_process(connect::KIND, pid);
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
                        && event.result() == expected
                        && event.name("outcome") == outcome
                })
                .count();
            assert_eq!(seen, 25, "round {round}: {target} {expected} {outcome}");
        }
        assert_eq!(connects.len(), 100);
        for event in &connects {
            assert_eq!((event.ip("address"), event.ip("local_address")), (loopback(), loopback()));
            assert_eq!(
                (event.name("family"), event.name("protocol"), event.name("via")),
                ("inet", "tcp", "syscall")
            );
            assert!(event.number("latency") > 0 && event.number("local_port") > 0);
            assert!(event.is_absent("unix_path"));
        }
        let accepts = recording.of_process(accept::KIND, pid);
        assert_eq!(accepts.len(), 50);
        for event in &accepts {
            assert!(event.result() > 2 && event.number("local_port") == port.cast_unsigned());
            let from = |connect: &&Event| {
                connect.number("local_port") == event.number("port")
                    && connect.number("port") == event.number("local_port")
            };
            assert_eq!(connects.iter().filter(from).count(), 1);
        }
        let listens = recording.of_process(listen::KIND, pid);
        let [listen] = &listens[..] else { panic!("{listens:?}") };
        assert_eq!(
            (listen.number("port"), listen.number("backlog"), listen.result()),
            (port.cast_unsigned(), 64, 0)
        );
        assert_eq!(listen.ip("address"), loopback());
    }
    drop(load);
    assert_eq!(recording.lost(), []);
}

#[test]
fn who_asks_how_an_attempt_ended_is_no_second_attempt() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    for _ in 0..rounds(20) {
        let (pid, said) = python(
            &mut recording,
            "
print(port, closed_port)
for attempt in range(5):
    for target in (port, closed_port):
        client = socket.socket()
        client.setblocking(False)
        for _ in range(4):
            print(client.connect_ex(('127.0.0.1', target)))
            settle(client)
    listening.accept()[0].close()
",
        );
        let (ports, said) = said.split_at(2);
        let connects = recording.of_process(connect::KIND, pid);
        for (nth, target) in ports.iter().enumerate() {
            let events: Vec<_> = connects
                .iter()
                .filter(|event| event.number("port") == target.cast_unsigned())
                .map(|event| (event.result(), event.name("outcome")))
                .collect();
            let results = said.chunks(4).skip(nth).step_by(2).flatten().copied();
            let expected: Vec<_> = results
                .map(|error| match error {
                    EINPROGRESS => (-error, ["established", "refused"][nth]),
                    _ => (-error, "none"),
                })
                .collect();
            assert_eq!(events, expected);
        }
        let begun = said.iter().filter(|&&error| error == EINPROGRESS).count();
        // After a failure the next call is a new attempt.
        assert_eq!(begun, 5 + 2 * 5);
    }
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
    let connects = recording.of_process(connect::KIND, pid);
    assert_eq!(connects.len(), 5);
    let outcomes: Vec<_> = connects.iter().map(|event| event.name("outcome")).collect();
    assert!(outcomes.contains(&"aborted") && outcomes.contains(&"established"), "{outcomes:?}");
    assert!(connects.iter().all(|event| event.result() == -EINPROGRESS));
}

#[test]
fn each_way_to_fail_has_the_outcome_that_the_program_saw() {
    let Some(_guard) = alone() else { return };
    if !has_wire() {
        return;
    }
    let mut recording = recording();
    let (pid, numbers) = on_wire(
        &mut recording,
        "
threading.Thread(target=serve, daemon=True).start()
listening = socket.create_server(('10.9.0.1', 0), backlog=64)
open_port = listening.getsockname()[1]
said = []
def attempt(host, port, blocking):
    client = socket.socket()
    # One more SYN after a second, and two seconds of waiting for its answer.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    client.bind(('', 0))
    local_port = client.getsockname()[1]
    client.setblocking(blocking)
    first = last = client.connect_ex((host, port))
    if first == errno.EINPROGRESS:
        select.select([], [client], [], 30)
        last = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    said.append((local_port, port, first, last))
    client.close()
hosts = (SILENT, REFUSES, NO_HOST, NO_NET, RESETS, '10.8.0.1', '10.8.0.2', '10.8.0.3')
tries = [(host, 1000) for host in hosts] + [('10.9.0.1', open_port), ('127.0.0.1', 1)]
threads = [
    threading.Thread(target=attempt, args=(*place, blocking))
    for place in tries for blocking in (True, False) for _ in range(5)
]
for thread in threads: thread.start()
for thread in threads: thread.join()
for four in said: print(*four)
",
    );
    let mut connects = recording.of_process(connect::KIND, pid);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    assert_eq!(numbers.len(), 4 * 100);
    for said in numbers.chunks_exact(4) {
        let &[local_port, port, first, last] = said else { unreachable!() };
        let outcome = outcome_by(last);
        let same = |event: &Event| {
            event.number("port") == port.cast_unsigned()
                && event.result() == -first
                && event.name("outcome") == outcome
        };
        // An attempt without a packet has no local port in its event.
        let at = connects
            .iter()
            .position(|event| {
                same(event) && event.number("local_port") == local_port.cast_unsigned()
            })
            .or_else(|| {
                connects.iter().position(|event| same(event) && event.is_absent("local_port"))
            });
        let at = at.unwrap_or_else(|| panic!("{local_port} {port} {first} {last}: {connects:?}"));
        let event = connects.swap_remove(at);
        let by_route = [EHOSTUNREACH, EACCES, EINVAL].contains(&first);
        assert_eq!(event.is_absent("latency"), by_route && event.is_absent("local_port"));
        if outcome == "timed_out" {
            assert!(event.number("latency") > 2_000_000_000, "two SYNs went unanswered");
        }
        *seen.entry(outcome).or_default() += 1;
    }
    assert_eq!(connects.len(), 0, "more events than attempts: {connects:?}");
    let expected = [
        ("established", 10),
        ("none", 20),
        ("refused", 20),
        ("reset", 10),
        ("timed_out", 10),
        ("unreachable", 30),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
    assert_eq!(recording.lost(), []);
}

#[test]
fn an_attempt_whose_process_is_killed_in_the_call_is_aborted() {
    let Some(_guard) = alone() else { return };
    if !has_wire() {
        return;
    }
    let mut recording = recording();
    let (_, pids) = on_wire(
        &mut recording,
        "
pids = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        socket.socket().connect((SILENT, 1000))
        os._exit(1)
    pids.append(pid)
def under_way():
    return sum(line.split()[3] == '02' for line in open('/proc/self/net/tcp') if ':' in line)
while under_way() < len(pids): time.sleep(0.01)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
print(*pids)
",
    );
    assert_eq!(pids.len(), 20);
    for pid in pids {
        let connects = recording.of_process(connect::KIND, u32::try_from(pid).unwrap());
        let [event] = &connects[..] else { panic!("{connects:?}") };
        assert!(event.number("latency") > 0);
        assert_eq!(
            (event.name("outcome"), event.number("port"), event.result()),
            ("aborted", 1000, -EINTR)
        );
    }
    assert_eq!(recording.lost(), []);
}

#[test]
fn an_attempt_by_sending_has_an_outcome_and_no_result() {
    let Some(_guard) = alone() else { return };
    if !has_wire() {
        return;
    }
    let mut recording = recording();
    let (pid, said) = on_wire(
        &mut recording,
        "
threading.Thread(target=serve, daemon=True).start()
listening = socket.create_server(('10.9.0.1', 1001))
MSG_FASTOPEN = 0x20000000
for place in ((REFUSES, 1000), (NO_HOST, 1000), (RESETS, 1000), ('10.9.0.1', 1001)) * 5:
    client = socket.socket()
    try:
        client.sendto(b'hello', MSG_FASTOPEN, place)
        print(0)
    except OSError as error:
        print(error.errno)
    client.close()
",
    );
    let mut expected: Vec<_> = said.iter().map(|&error| outcome_by(error)).collect();
    let connects = recording.of_process(connect::KIND, pid);
    assert!(connects.iter().all(|event| event.is_absent("result")));
    let mut seen: Vec<_> = connects.iter().map(|event| event.name("outcome")).collect();
    // Those that were established come when they are closed.
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(said, [ECONNREFUSED, EHOSTUNREACH, ECONNRESET, 0].repeat(5));
    assert_eq!(seen, expected);
    assert_eq!(recording.lost(), []);
}

/// Attempts that can be under way, as in the catalogue.
const ROOM: u64 = 8192;

/// TCP connections that processes of this network namespace have begun.
fn begun() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let place = names.split(' ').position(|name| name == "ActiveOpens").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

#[test]
fn delivered_and_lost_are_what_was_attempted_when_there_is_no_room_for_more() {
    let Some(_guard) = alone() else { return };
    if !has_wire() {
        return;
    }
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[connect::KIND]);
    // What others attempt meanwhile takes room too, and may be lost; what we do is elsewhere.
    let before = begun();
    let more = 800;
    let (pid, _) = on_wire(
        &mut recording,
        &format!(
            "
import ctypes, resource, struct
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
for _ in range({ROOM} + {more}):
    client = socket.socket()
    client.setblocking(False)
    assert client.connect_ex((SILENT, 1000)) == errno.EINPROGRESS
    # Only learns that the first is under way.
    assert client.connect_ex((SILENT, 1000)) == errno.EALREADY
    kept.append(client)
# A call that waits for one of those that found no room, and is interrupted, is no loss.
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
kept[-1].setblocking(True)
address = struct.pack('!2xH4s8x', 1000, socket.inet_aton(SILENT))
address = struct.pack('=H', socket.AF_INET) + address[2:]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.connect(kept[-1].fileno(), address, 16) == -1 and ctypes.get_errno() == errno.EINTR
signal.setitimer(signal.ITIMER_REAL, 0)
# What the call itself says comes out, with room or without.
for _ in range(50):
    assert socket.socket().connect_ex(('127.0.0.1', 1)) == errno.ECONNREFUSED
"
        ),
    );
    let others = begun() - before;
    let connects = recording.of_process(connect::KIND, pid);
    let count = |result: i64, outcome: &str| {
        let same = |event: &&Event| event.result() == result && event.name("outcome") == outcome;
        connects.iter().filter(same).count() as u64
    };
    let aborted = count(-EINPROGRESS, "aborted");
    assert_eq!(count(-EALREADY, "pending"), ROOM + more);
    assert_eq!(count(-EINTR, "pending"), 1);
    assert_eq!(count(-ECONNREFUSED, "refused"), 50);
    assert_eq!(connects.len() as u64, aborted + ROOM + more + 1 + 50);
    let lost = recording.lost();
    let [(connect::KIND, Cause::MapFull, not_kept)] = lost[..] else { panic!("{lost:?}") };
    let (all, attempted) = (aborted + not_kept, ROOM + more);
    assert!((attempted..=attempted + others).contains(&all), "{all} of {attempted}, {others}");
    assert!(aborted <= ROOM && not_kept >= more);

    // Now there is room again.
    let (pid, _) = python(
        &mut recording,
        "
for _ in range(100):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(('127.0.0.1', port))
    settle(client)
    listening.accept()[0].close()
",
    );
    let connects = recording.of_process(connect::KIND, pid);
    assert_eq!(connects.len(), 100);
    assert!(connects.iter().all(|event| event.name("outcome") == "established"));
    assert_eq!(recording.lost(), lost);
}

#[test]
fn what_curl_says_of_a_port_is_the_outcome() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let open_port = listening.local_addr().unwrap().port();
    // Bound and not listening: nobody else gets it.
    let (_, closed) = python(&mut recording, "print(closed_port)");
    let closed_port = u16::try_from(closed[0]).unwrap();
    std::thread::spawn(move || {
        for mut client in listening.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    for (port, code, outcome) in [(open_port, 0, "established"), (closed_port, 7, "refused")] {
        for _ in 0..10 {
            let url = format!("http://127.0.0.1:{port}/");
            let mut curl = Command::new("curl");
            let mut curl = curl.args(["-q", "-s", "--noproxy", "*", &url]).spawn().unwrap();
            assert_eq!(curl.wait().unwrap().code(), Some(code));
            let mut connects = recording.of_process(connect::KIND, curl.id());
            connects.retain(|event| event.number("port") == u64::from(port));
            let [event] = &connects[..] else { panic!("{connects:?}") };
            assert_eq!((event.name("outcome"), event.result()), (outcome, -EINPROGRESS));
        }
    }
}
