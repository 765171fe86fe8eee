//! A DNS guard on cgroups of the test, in a network of its own: dig, getent, curl and sockets of every
//! kind get their answers through the proxy, or are refused; what the DNS server itself logs is what the
//! events say, one to one; and nothing outside of the scope is touched.

mod dns;
mod kernel;

use std::{collections::BTreeMap, sync::MutexGuard, time::Duration};

use dns::{Client, Guarded, PRELUDE, Settings, World, sorted};
use kernel::{alone, cgroup::Cgroup};
use tipstaff_events::catalogue::{dns_answer, dns_query};
use tipstaff_runtime::dns::{Count, Limits, Verdict};

const EPERM: i64 = 1;

/// One test at a time; `None` (said why) where a DNS guard cannot be had.
fn able() -> Option<MutexGuard<'static, ()>> {
    if kernel::vm::release() < (5, 14) {
        eprintln!("skipped: a DNS guard needs Linux 5.14");
        return None;
    }
    alone()
}

#[test]
fn what_all_sorts_of_clients_ask_is_answered_and_told_as_the_server_logs_it() {
    let Some(_alone) = able() else { return };
    let world = World::new();
    let mut guarded = Guarded::new(&world, Settings::default());
    let server = "@127.0.0.53";
    for (arguments, expected) in [
        (&[server, "host.test"][..], "192.0.2.1"),
        (&[server, "HoSt.TesT."], "192.0.2.1"),
        (&[server, "+noedns", "host.test", "AAAA"], "2001:db8::1"),
        (&[server, "+tcp", "alias.test"], "host.test.\n192.0.2.1"),
        (&["@fd00::53", "host.test"], "192.0.2.1"),
        (&["@fd00::53", "+tcp", "host.test"], "192.0.2.1"),
        // Does not fit, and is asked for again by TCP.
        (&[server, "+noedns", "+short", "many.test"], "198.51.100.1"),
    ] {
        let mut dig = guarded.scope.command("dig");
        dig.args(["+short", "+tries=1", "+time=5"]).args(arguments);
        let output = guarded.run(&mut dig);
        assert!(output.contains(expected), "{arguments:?}: {output}");
    }
    for (database, expected) in [("hosts", "2001:db8::1"), ("ahosts", "192.0.2.1")] {
        let mut getent = guarded.with_resolver("127.0.0.53");
        getent.args(["getent", database, "host.test"]);
        assert!(guarded.run(&mut getent).contains(expected), "{database}");
    }
    let mut getent = guarded.with_resolver("fd00::53");
    getent.args(["getent", "ahosts", "host.test"]);
    assert!(guarded.run(&mut getent).contains("192.0.2.1"));

    let events = guarded.events(dns_query::KIND);
    let told: Vec<_> = events.iter().map(Client::question).collect();
    assert_eq!(sorted(told), sorted(world.logged()), "each query once");
    assert!(events.iter().all(|event| event.name("verdict") == "allow"));
    assert!(events.iter().all(|event| event.number("port") == 53));
    assert!(events.iter().all(|event| event.number("cgroup") == guarded.scope.id()));
    // dig four times by UDP and three by TCP, one for the answer that was cut; getent.
    let by_tcp = events.iter().filter(|event| event.name("protocol") == "tcp").count();
    assert_eq!(by_tcp, 3);
    let answers = guarded.events(dns_answer::KIND);
    assert_eq!(answers.len(), events.len());
    let cut = answers.iter().filter(|event| event.number("truncated") == 1).count();
    assert_eq!(cut, 1);
    let many = answers
        .iter()
        .find(|event| event.text("name") == b"many.test" && event.name("protocol") == "tcp")
        .unwrap();
    assert_eq!(many.number("address_count"), 60);
    let alias = answers.iter().find(|event| event.text("name") == b"alias.test").unwrap();
    assert_eq!(alias.text("addresses"), b"192.0.2.1\0");
    assert_eq!((alias.number("rcode"), alias.number("ttl")), (0, 30));
    // The judge has heard of every address before the client.
    let learned = guarded.judge.learned();
    assert_eq!(learned["alias.test"], ["192.0.2.1"]);
    assert_eq!(learned["host.test"], ["192.0.2.1", "2001:db8::1"]);
    let counts = guarded.counts();
    assert_eq!(counts.allowed.get(), events.len() as u64);
    assert_eq!(counts.answered.get(), events.len() as u64);
    assert_eq!([&counts.unknown, &counts.failed, &counts.unread].map(Count::get), [0; 3]);
    guarded.end();
}

#[test]
fn sockets_of_every_kind_see_the_server_and_never_the_proxy() {
    let Some(_alone) = able() else { return };
    let world = World::new();
    let mut guarded = Guarded::new(&world, Settings::default());
    let script = format!(
        "{PRELUDE}
expected = 0
def check(ok):
    global expected
    expected += 1
    print(int(ok))
# Connected.
for family, server in [(INET, '127.0.0.53'), (INET6, 'fd00::53'), (INET6, '::ffff:127.0.0.53')]:
    s = socket.socket(family, UDP)
    s.connect((server, 53))
    check(s.getpeername()[:2] == (server, 53))
    s.send(query(7, 'connected.host.test'))
    answer, source = s.recvfrom(4096)
    check(answer[:2] == id(7) and source[:2] == (server, 53))
# Not connected, with several servers at a time, bound or not.
for family, own, servers in [
    (INET, None, ['127.0.0.53', '127.0.0.54']),
    (INET, '127.0.0.9', ['127.0.0.53', '127.0.0.54']),
    (INET, '10.7.7.7', ['127.0.0.53', '127.0.0.54']),
    (INET6, None, ['fd00::53', 'fd00::54', '::ffff:127.0.0.53']),
    (INET6, '::', ['fd00::53', 'fd00::54']),
    (INET6, 'fd00::7', ['fd00::53', 'fd00::54']),
]:
    s = socket.socket(family, UDP)
    if own:
        s.bind((own, 0))
    for number, server in enumerate(servers):
        s.sendto(query(number, 'apart.host.test'), (server, 53))
    got = [s.recvfrom(4096) for _ in servers]
    check(sorted((a[:2], f[0], f[1]) for a, f in got)
        == sorted((id(n), server, 53) for n, server in enumerate(servers)))
# For IPv6 only.
s = socket.socket(INET6, UDP)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
s.sendto(query(9, 'only.host.test'), ('fd00::53', 53))
check(s.recvfrom(4096)[1][:2] == ('fd00::53', 53))
# sendmsg, sendmmsg by way of glibc is getent's.
s = socket.socket(INET, UDP)
s.sendmsg([query(3, 'message.host.test')], [], 0, ('127.0.0.53', 53))
check(s.recvmsg(4096)[3] == ('127.0.0.53', 53))
# TCP, several queries at once, and the client ends first.
for family, server in [(INET, '127.0.0.53'), (INET6, 'fd00::53')]:
    s = socket.socket(family, TCP)
    s.connect((server, 53))
    check(s.getpeername()[:2] == (server, 53))
    s.sendall(b''.join(framed(query(n, 'stream.host.test')) for n in range(5)))
    s.shutdown(socket.SHUT_WR)
    stream = s.makefile('rb')
    check(sorted(message(stream)[:2] for _ in range(5)) == [id(n) for n in range(5)])
    check(stream.read() == b'')
# A port that is not a DNS server's is not touched.
s = socket.socket(INET, UDP)
s.connect(('127.0.0.53', 54))
check(s.getpeername() == ('127.0.0.53', 54))
print(expected)
"
    );
    let (pid, numbers) = guarded.python(&script);
    let (expected, checks) = numbers.split_last().unwrap();
    assert_eq!(*expected, 21);
    assert!(checks.iter().all(|ok| *ok == 1), "{numbers:?}");
    let events = guarded.events(dns_query::KIND);
    let told: Vec<_> = events.iter().map(Client::question).collect();
    assert_eq!(told.len(), 3 + 13 + 1 + 1 + 10);
    assert_eq!(sorted(told), sorted(world.logged()));
    assert!(events.iter().all(|event| event.number("pid") == u64::from(pid)));
    assert!(events.iter().all(|event| event.comm() == "python3"));
    let servers = events.iter().fold(BTreeMap::new(), |mut servers, event| {
        *servers.entry(event.server()).or_insert(0) += 1;
        servers
    });
    let expected = [("127.0.0.53", 12), ("127.0.0.54", 3), ("fd00::53", 10), ("fd00::54", 3)];
    assert_eq!(servers, expected.map(|(server, count)| (server.to_owned(), count)).into());
    assert_eq!(guarded.calls().redirected, 3 + 13 + 1 + 1 + 2);
    guarded.end();
}

#[test]
fn a_refused_name_does_not_resolve_and_the_server_does_not_hear_of_it() {
    let Some(_alone) = able() else { return };
    let world = World::new();
    let mut guarded = Guarded::new(&world, Settings::default());
    let mut dig = guarded.scope.command("dig");
    dig.args(["@127.0.0.53", "+tries=1", "www.ReFused.test"]);
    assert!(guarded.run(&mut dig).contains("status: REFUSED"));
    let mut dig = guarded.scope.command("dig");
    dig.args(["@127.0.0.53", "+tcp", "+tries=1", "refused.test", "MX"]);
    assert!(guarded.run(&mut dig).contains("status: REFUSED"));
    let mut curl = guarded.with_resolver("127.0.0.53");
    curl.args(["curl", "--silent", "--max-time", "20", "http://refused.test/"]);
    assert_eq!(guarded.status(&mut curl), 6);
    let mut getent = guarded.with_resolver("127.0.0.53");
    getent.args(["getent", "ahosts", "refused.test"]);
    assert_eq!(guarded.status(&mut getent), 2);
    assert_eq!(world.logged(), []);
    let events = guarded.events(dns_query::KIND);
    assert!(events.iter().all(|event| event.name("verdict") == "refuse"));
    let asked: Vec<_> = events.iter().map(Client::question).collect();
    assert!(asked.contains(&("A".into(), "www.refused.test".into())), "{asked:?}");
    assert!(asked.contains(&("MX".into(), "refused.test".into())), "{asked:?}");
    assert_eq!(guarded.counts().refused.get(), events.len() as u64);
    assert!(guarded.events(dns_answer::KIND).is_empty());

    // An allowed name resolves: nothing listens there.
    let mut curl = guarded.with_resolver("127.0.0.53");
    curl.args(["curl", "--silent", "--max-time", "20", "http://near.test:9/"]);
    assert_eq!(guarded.status(&mut curl), 7);
    // Out of scope there is nothing of all that.
    let (told, logged) = (guarded.events(dns_query::KIND).len(), world.logged().len());
    let calls = guarded.calls();
    let outside = Cgroup::new();
    let mut dig = outside.command("dig");
    dig.args(["@127.0.0.53", "+short", "+tries=1", "refused.test"]);
    assert_eq!(guarded.run(&mut dig).trim(), "192.0.2.9");
    assert_eq!(world.logged().len(), logged + 1);
    assert_eq!(guarded.events(dns_query::KIND).len(), told);
    assert_eq!(guarded.calls(), calls);
    // A cgroup below the scope is in it.
    let below = guarded.scope.below("below");
    let mut dig = below.command("dig");
    dig.args(["@127.0.0.53", "+tries=1", "refused.test"]);
    assert!(guarded.run(&mut dig).contains("status: REFUSED"));
    guarded.end();
}

#[test]
fn a_judge_that_is_too_slow_is_not_waited_for() {
    let Some(_alone) = able() else { return };
    for (on_timeout, status, verdict) in [
        (Verdict::Refuse, "REFUSED", "refuse_on_timeout"),
        (Verdict::Allow, "NXDOMAIN", "allow_on_timeout"),
    ] {
        let world = World::new();
        let limits = Limits { on_timeout, ..Limits::default() };
        let mut guarded = Guarded::new(&world, Settings { limits, ..Settings::default() });
        let mut dig = guarded.scope.command("dig");
        dig.args(["@127.0.0.53", "+tries=1", "slow.host.test"]);
        assert!(guarded.run(&mut dig).contains(&format!("status: {status}")));
        let events = guarded.events(dns_query::KIND);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].name("verdict"), verdict);
        assert!(events[0].number("decision_time") >= 20_000_000);
        assert_eq!(guarded.counts().late.get(), 1);
        guarded.end();
    }
}

#[test]
fn a_server_that_is_not_there_fails_and_one_that_is_silent_costs_a_place_for_a_while() {
    let Some(_alone) = able() else { return };
    let world = World::new();
    let limits = Limits { answer: Duration::from_secs(3), most_queries: 2, ..Limits::default() };
    let mut guarded = Guarded::new(&world, Settings { limits, ..Settings::default() });
    let script = format!(
        "{PRELUDE}
# Nobody listens there.
s = socket.socket(INET, UDP)
s.sendto(query(1, 'host.test'), ('127.0.0.99', 53))
print(s.recv(4096)[3] & 15)
# One that is silent.
silent = socket.socket(INET, UDP)
silent.bind(('127.0.0.98', 53))
s = socket.socket(INET, UDP)
for n in range(3):
    s.sendto(query(n, 'host.test'), ('127.0.0.98', 53))
# The third has no place.
print(s.recv(4096)[3] & 15)
print(int(sorted(silent.recv(4096)[:2] for n in range(2)) == [id(0), id(1)]))
s.settimeout(0.2)
try:
    s.recv(4096)
except TimeoutError:
    print(1)
"
    );
    let (_, numbers) = guarded.python(&script);
    let [failed, overload, heard, silence] = numbers[..] else { panic!("{numbers:?}") };
    assert_eq!((failed, overload, heard, silence), (2, 5, 1, 1));
    let counts = guarded.counts();
    guarded.wait(|_| counts.unanswered.get() == 2);
    assert_eq!(
        [&counts.failed, &counts.overload, &counts.unanswered, &counts.allowed].map(Count::get),
        [1, 1, 2, 3]
    );
    let verdicts: Vec<_> =
        guarded.events(dns_query::KIND).iter().map(|event| event.name("verdict")).collect();
    assert_eq!(sorted(verdicts), ["allow", "allow", "allow", "refuse_overload"]);
    guarded.end();
}

#[test]
fn without_the_proxy_calls_fail_or_pass_as_was_chosen() {
    let Some(_alone) = able() else { return };
    let calls = format!(
        "{PRELUDE}
for family, kind, server in [
    (INET, UDP, '127.0.0.53'), (INET6, UDP, 'fd00::53'), (INET, TCP, '127.0.0.53'), (INET6, TCP, 'fd00::53'),
]:
    s = socket.socket(family, kind)
    print(s.connect_ex((server, 53)))
s = socket.socket(INET, UDP)
try:
    s.sendto(query(1, 'host.test'), ('127.0.0.53', 53))
    print(0 + (s.recvfrom(4096)[1] != ('127.0.0.53', 53)))
except OSError as error:
    print(error.errno)
"
    );
    for (verdict, errno, heard) in [(Verdict::Refuse, EPERM, 0), (Verdict::Allow, 0, 1)] {
        let world = World::new();
        let mut guarded =
            Guarded::new(&world, Settings { on_proxy_death: verdict, ..Settings::default() });
        // While it lives.
        assert_eq!(guarded.python(&calls).1, [0; 5]);
        assert_eq!(guarded.calls().dead, 0);
        assert_eq!(guarded.events(dns_query::KIND).len(), 1);
        guarded.kill_proxy();
        assert_eq!(guarded.python(&calls).1, [errno; 5]);
        assert_eq!(guarded.calls().dead, 5);
        assert_eq!(guarded.events(dns_query::KIND).len(), 1);
        assert_eq!(world.logged().len(), 1 + heard);
        // And without the guard all is as it was.
        guarded.remove_guard();
        assert_eq!(guarded.python(&calls).1, [0; 5]);
        assert_eq!(world.logged().len(), 2 + heard);
        guarded.end();
    }
}

#[test]
fn a_socket_of_another_network_is_not_led_here() {
    let Some(_alone) = able() else { return };
    for (elsewhere, errno) in [(Verdict::Refuse, EPERM), (Verdict::Allow, 0)] {
        let world = World::new();
        let mut guarded = Guarded::new(&world, Settings { elsewhere, ..Settings::default() });
        let mut command = guarded.scope.command("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
        command.args(dns::python_arguments(&format!(
            "{PRELUDE}
s = socket.socket(INET, UDP)
print(s.connect_ex(('127.0.0.53', 53)))
s = socket.socket(INET, UDP)
try:
    s.sendto(query(1, 'host.test'), ('127.0.0.53', 53))
    print(0)
except OSError as error:
    print(error.errno)
"
        )));
        assert_eq!(guarded.numbers(&mut command).1, [errno; 2]);
        assert_eq!(guarded.calls().elsewhere, 2);
        assert_eq!(guarded.calls().redirected, 0);
        guarded.end();
    }
}

#[test]
fn what_the_guard_did_not_lead_to_the_proxy_is_refused() {
    let Some(_alone) = able() else { return };
    let world = World::new();
    let mut guarded = Guarded::new(&world, Settings::default());
    let doors: Vec<String> = guarded
        .doors
        .iter()
        .map(|door| {
            format!("({}, '{}', {})", i32::from(door.tcp), door.address.ip(), door.address.port())
        })
        .collect();
    let script = format!(
        "{PRELUDE}
import random
random.seed(7)
doors = [{}]
for tcp, address, port in doors:
    family = INET6 if ':' in address else INET
    s = socket.socket(family, TCP if tcp else UDP)
    s.connect((address, port))
    if tcp:
        try:
            s.sendall(framed(query(1, 'host.test')))
            print(s.recv(4096) == b'' and -1)
        except ConnectionError:
            print(-1)
        continue
    s.send(query(1, 'host.test'))
    answer = s.recv(4096)
    print(answer[3] & 15)
    # Answers, nonsense and nothing at all: never an answer to an answer.
    s.settimeout(0.05)
    s.send(answer)
    for size in range(12):
        s.send(random.randbytes(size))
    try:
        print(len(s.recv(4096)))
    except TimeoutError:
        print(-2)
",
        doors.join(", ")
    );
    let (_, numbers) = guarded.numbers(&mut dns::python(&script));
    let expected: Vec<i64> = guarded
        .doors
        .iter()
        .flat_map(|door| if door.tcp { vec![-1] } else { vec![5, -2] })
        .collect();
    assert_eq!(numbers, expected);
    assert_eq!(guarded.doors.len(), 18);
    assert_eq!(guarded.counts().unknown.get(), 16 * 14 + 2);
    assert_eq!(guarded.counts().allowed.get(), 0);
    // In scope nonsense is refused, told and counted; what is no query gets no answer.
    let (_, numbers) = guarded.python(&format!(
        "{PRELUDE}
s = socket.socket(INET, UDP)
s.connect(('127.0.0.53', 53))
good = query(1, 'host.test')
bad = [good[:20], good[:5] + b'\\2' + good[6:], good[:2] + b'\\x28' + good[3:], good[:12] + b'\\xc0\\x0c' + good[-4:]]
for message in bad:
    s.send(message)
    print(s.recv(4096)[3] & 15)
s.settimeout(0.05)
for message in [b'', b'abc', good[:2] + b'\\x80' + good[3:]]:
    s.send(message)
try:
    s.recv(4096)
except TimeoutError:
    print(-2)
"
    ));
    assert_eq!(numbers, [5, 5, 5, 5, -2]);
    let events = guarded.events(dns_query::KIND);
    assert!(events.iter().all(|event| event.is_absent("name")));
    let verdicts: Vec<_> = events.iter().map(|event| event.name("verdict")).collect();
    let malformed = verdicts.iter().filter(|verdict| **verdict == "refuse_malformed").count();
    assert_eq!((malformed, verdicts.len()), (6, 7), "{verdicts:?}");
    let counts = guarded.counts();
    assert_eq!((counts.malformed.get(), counts.unsupported.get()), (6, 1));
    assert_eq!(world.logged(), []);
    guarded.end();
}

#[test]
fn of_a_flood_every_query_is_accounted_for() {
    const QUERIES: u64 = 10_000;
    let Some(_alone) = able() else { return };
    let world = World::new();
    let mut guarded = Guarded::new(&world, Settings::default());
    let (pid, numbers) = guarded.python(&format!(
        "{PRELUDE}
s = socket.socket(INET, UDP)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
for n in range({QUERIES}):
    s.sendto(query(n, 'host.test' if n % 2 else 'refused.test'), ('127.0.0.53', 53))
print({QUERIES})
"
    ));
    assert_eq!(numbers, [i64::try_from(QUERIES).unwrap()]);
    // Those under way end, and the doors' drops are looked at.
    let counts = guarded.counts();
    let ended = |counts: &tipstaff_runtime::dns::Counts| {
        let decided = counts.allowed.get() + counts.refused.get() + counts.overload.get();
        let after = counts.answered.get() + counts.failed.get() + counts.unanswered.get();
        (decided + counts.dropped.get(), counts.allowed.get() - after)
    };
    guarded.wait(|_| ended(&counts) == (QUERIES, 0));
    assert_eq!(ended(&counts), (QUERIES, 0));
    assert_eq!([&counts.unknown, &counts.malformed].map(Count::get), [0; 2]);
    assert_eq!(guarded.calls().redirected, QUERIES);
    let events = guarded.events(dns_query::KIND);
    let lost: u64 = guarded.lost(dns_query::KIND);
    let with = |verdicts: &[&str]| {
        events.iter().filter(|event| verdicts.contains(&event.name("verdict"))).count() as u64
    };
    assert_eq!(lost, 0);
    assert_eq!(with(&["allow", "allow_on_timeout"]), counts.allowed.get());
    assert_eq!(with(&["refuse", "refuse_on_timeout"]), counts.refused.get());
    assert_eq!(with(&["refuse_overload"]), counts.overload.get());
    assert_eq!(events.len() as u64, QUERIES - counts.dropped.get());
    assert!(events.iter().all(|event| event.number("pid") == u64::from(pid)));
    // The server has seen what went on, or it was failed or unanswered.
    let logged = world.logged();
    assert!(logged.iter().all(|(_, name)| name == "host.test"));
    assert!(logged.len() as u64 >= counts.answered.get());
    assert!(logged.len() as u64 <= counts.allowed.get());
    assert_eq!(guarded.events(dns_answer::KIND).len() as u64, counts.answered.get());
    eprintln!("{counts:?}");
    guarded.end();
}

#[test]
fn a_guard_leaves_nothing_behind() {
    let Some(_alone) = able() else { return };
    let world = World::new();
    // What tokio keeps for the process is there after the first time.
    Guarded::new(&world, Settings::default()).end();
    let before = kernel::bpf_descriptors();
    let sockets = dns::sockets();
    let guarded = Guarded::new(&world, Settings::default());
    let (programs, maps) = (kernel::program_ids(), kernel::map_ids());
    assert_eq!(dns::attached(&guarded.scope), 9);
    assert!(dns::sockets() >= sockets + 18);
    let scope = guarded.end();
    assert_eq!(dns::attached(&scope), 0);
    kernel::assert_gone(&programs, &maps);
    assert_eq!(kernel::bpf_descriptors(), before);
    assert_eq!(dns::sockets(), sockets);
}
