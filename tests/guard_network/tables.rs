//! Tables in force: replaced, expired, counted, and compared with their plain account.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use tipstaff_events::guard::RECORDS_PER_SECOND;
use tipstaff_runtime::{
    clock,
    guard::{GuardMode, Operation, Protocol, Rule, Table, Verdict},
    probe::Counted,
};

use super::{
    Caller, EPERM, Guarded, count,
    kernel::{PYTHON, alone, vm},
    sum, table,
};

#[test]
fn every_denial_is_counted_and_told_or_counted_as_suppressed() {
    /// As fast as it can, from three threads.
    const SCRIPT: &str = r#"
import socket, threading
def attempts():
    for _ in range(1000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.connect(("127.0.0.7", 9))
                print("went through")
            except OSError as error:
                if error.errno != 1: print(error)
threads = [threading.Thread(target=attempts) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny connect any 127.0.0.7");
    let started = Instant::now();
    let mut command = guarded.cgroup.command(PYTHON);
    let child = command.args(["-I", "-S", "-c", SCRIPT]).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let seconds = started.elapsed().as_secs() + 2;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    let found = count(&guarded.guard, Counted::Rule(0));
    let told = guarded.events().len() as u64;
    assert_eq!(guarded.recording.lost(), []);
    assert_eq!(found.denied, 3000);
    assert_eq!(told + found.suppressed, 3000);
    // CPUs that meet may make a few more.
    assert!(told >= RECORDS_PER_SECOND.min(3000), "{told}");
    assert!(told <= (RECORDS_PER_SECOND + 20) * seconds, "{told} in {seconds} s");
}

#[test]
fn a_table_is_replaced_while_a_program_connects_and_no_verdict_is_wrong() {
    /// Tells when it has begun; ends with its input. Prints how often what was allowed failed, how often
    /// what was denied did not, and how often it tried each.
    const SCRIPT: &str = r#"
import select, socket, sys
def attempt(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect((address, 9))
            return 0
        except OSError as error:
            return error.errno
failed = passed = tried = 0
while tried % 64 or not select.select([sys.stdin], [], [], 0)[0]:
    failed += attempt("127.0.0.8") != 0
    passed += attempt("127.0.0.7") != 1
    passed += attempt("127.0.1.1") != 1
    tried += 1
    if tried == 1: print("begun", flush=True)
print(failed, passed, tried)
"#;
    let Some(_alone) = alone() else { return };
    let texts = [
        "default deny\nallow any any 127.0.0.8\nallow any any 127.0.1.0/24\ndeny any any 127.0.1.1",
        "default deny\nallow any any 127.0.0.8/29\ndeny any any 127.0.1.1\nallow bind",
    ];
    let Guarded { mut guard, recording, cgroup } = Guarded::new(GuardMode::Enforce, texts[0]);
    let mut command = cgroup.command(PYTHON);
    command.args(["-I", "-S", "-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input = child.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "begun\n");
    let turns = vm::rounds(500);
    for turn in 1..=turns {
        guard.install(&table(texts[turn as usize % 2])).unwrap();
    }
    drop(input);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    child.wait().unwrap();
    let numbers: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [failed, passed, tried] = numbers[..] else { panic!("{rest}") };
    assert_eq!((failed, passed), (0, 0), "of {tried}");
    assert!(tried > u64::from(turns), "{tried}");
    // Counts go over from table to table, with the rule where it is in both.
    assert_eq!(count(&guard, Counted::Default).denied, tried);
    assert_eq!(count(&guard, Counted::Former).denied, 0);
    assert_eq!(sum(&guard, |count| count.denied), 2 * tried);
    guard.install(&table("default allow")).unwrap();
    assert_eq!(count(&guard, Counted::Former).denied, 2 * tried);
    assert_eq!(count(&guard, Counted::Default).denied, 0);
    drop(recording);
}

/// Waits until the clock that counts suspend is past this.
fn pass(end: Duration) {
    while clock::since_boot() <= end {
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_rule_expires_and_a_table_ends_with_its_deadman() {
    const LASTS: Duration = Duration::from_secs(2);
    let call = "connect udp 127.0.0.7 9";
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default allow");
    let mut inside = Caller::new(&guarded.cgroup);
    let mut expiring =
        table("default allow\ndeny connect any 127.0.0.0/24\ndeny connect any 127.0.0.7");
    expiring.rules[0].ttl = Some(Duration::from_nanos(1));
    expiring.rules[1].ttl = Some(LASTS);
    let begun = clock::since_boot();
    guarded.guard.install(&expiring).unwrap();
    let installed = clock::since_boot();
    let result = inside.call(call);
    // On a machine that stood still meanwhile both are right.
    if clock::since_boot() < begun + LASTS {
        assert_eq!(result, EPERM);
    }
    assert_eq!(inside.call("connect udp 127.0.0.6 9"), 0, "it had a nanosecond");
    pass(installed + LASTS);
    assert_eq!(inside.call(call), 0);

    guarded.guard.install(&table("default deny")).unwrap();
    let begun = clock::since_boot();
    guarded.guard.set_deadman(Some(LASTS)).unwrap();
    let set = clock::since_boot();
    let result = inside.call(call);
    if clock::since_boot() < begun + LASTS {
        assert_eq!(result, EPERM);
    }
    pass(set + LASTS);
    assert_eq!(inside.call(call), 0);
    guarded.guard.set_deadman(Some(Duration::from_hours(1))).unwrap();
    assert_eq!(inside.call(call), EPERM);
    guarded.guard.set_deadman(None).unwrap();
    assert_eq!(inside.call(call), EPERM);
}

#[test]
fn a_table_that_does_not_fit_changes_nothing() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default deny");
    let mut inside = Caller::new(&guarded.cgroup);
    let crowded = (0..40).map(|port| format!("deny any any 10.0.0.0/8 {port}").parse().unwrap());
    let crowded = Table { rules: crowded.collect(), ..Table::new(Verdict::Allow) };
    let error = guarded.guard.install(&crowded).unwrap_err();
    let expected = format!(
        "the table of the cgroup {}: the rules for 10.0.0.0/8",
        guarded.cgroup.path().display()
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(inside.call("connect udp 127.0.0.7 9"), EPERM);
    // The largest table, again and again: old ones leave room.
    let rules = (0..16_384_u32).map(|n| Rule {
        prefix: std::net::Ipv4Addr::from_bits(0x0a00_0000 | n << 3).into(),
        ..format!("deny connect udp any {}", n % 7 + 1).parse().unwrap()
    });
    let largest = Table { rules: rules.collect(), ..Table::new(Verdict::Allow) };
    for _ in 0..3 {
        guarded.guard.install(&largest).unwrap();
        assert_eq!(inside.call("connect udp 127.0.0.7 9"), 0);
        assert_eq!(inside.call("connect udp 10.0.0.8 2"), EPERM);
        assert_eq!(inside.call("connect udp 10.1.255.248 4"), EPERM);
        assert_ne!(inside.call("connect udp 10.1.255.248 5"), EPERM);
    }
}

/// Numbers that look random, the same ones for a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const PREFIXES: [&str; 16] = [
    "::/0",
    "0.0.0.0/0",
    "127.0.0.0/8",
    "127.0.0.0/30",
    "127.0.0.7",
    "127.1.0.0/16",
    "10.0.0.0/8",
    "10.64.0.0/10",
    "10.64.1.0/24",
    "::1",
    "::/96",
    "2001:db8::/32",
    "2001:db8:8000::/33",
    "2001:db8::1",
    "fe80::/10",
    "::fffe:0:0/95",
];
const ADDRESSES: [&str; 14] = [
    "127.0.0.1",
    "127.0.0.7",
    "127.1.2.3",
    "10.0.0.1",
    "10.64.1.1",
    "10.65.0.1",
    "192.0.2.1",
    "::1",
    "::2",
    "::ffff:127.0.0.7",
    "::ffff:10.64.1.1",
    "2001:db8::1",
    "2001:db8:8000::1",
    "2001:db9::1",
];
const PORTS: [&str; 7] = ["any", "53", "50-60", "53-54", "1-1023", "4000", "0-60000"];

fn random_table(numbers: &mut Numbers) -> Table {
    let mut text = format!("default {}\n", numbers.one_of(&["allow", "deny"]));
    for _ in 0..numbers.below(16) {
        let words = [
            numbers.one_of(&["allow", "deny"]),
            numbers.one_of(&["any", "connect", "bind", "connect,bind", "send"]),
            numbers.one_of(&["any", "udp", "tcp"]),
            numbers.one_of(&PREFIXES),
            numbers.one_of(&PORTS),
        ];
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    let mut table = table(&text);
    for _ in 0..numbers.below(3) {
        let words =
            [numbers.one_of(&["any", "udp"]), numbers.one_of(&ADDRESSES), numbers.one_of(&PORTS)];
        table.always.push(Rule::always_allow(&words.join(" ")).unwrap());
    }
    table
}

/// No packet leaves: a UDP socket that is connected sends nothing, nor does one that is bound.
#[test]
fn the_kernel_decides_thousands_of_calls_as_the_table_does() {
    const PROBES: usize = 100;
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default allow");
    let mut inside = Caller::new(&guarded.cgroup);
    let seed = clock::monotonic_ns() | 1;
    let mut numbers = Numbers(seed);
    let (mut denials, mut allowed) = (0, 0);
    for _ in 0..vm::rounds(60) {
        let table = random_table(&mut numbers);
        guarded.guard.install(&table).unwrap();
        let probes: Vec<_> = (0..PROBES)
            .map(|_| {
                let (how, operation) =
                    numbers.one_of(&[("connect", Operation::Connect), ("bind", Operation::Bind)]);
                let tcp = operation == Operation::Bind && numbers.below(2) == 0;
                let (name, protocol) =
                    if tcp { ("tcp", Protocol::Tcp) } else { ("udp", Protocol::Udp) };
                let address = numbers.one_of(&ADDRESSES);
                let port =
                    numbers.one_of(&[1_u16, 49, 50, 53, 54, 55, 60, 61, 1023, 1024, 4000, 60001]);
                let by = table.decide(
                    Duration::ZERO,
                    operation,
                    protocol,
                    address.parse().unwrap(),
                    port,
                );
                (format!("{how} {name} {address} {port}"), by)
            })
            .collect();
        let lines: Vec<String> = probes.iter().map(|(line, _)| line.clone()).collect();
        let results = inside.calls(&lines);
        for (result, (line, (verdict, by))) in results.iter().zip(&probes) {
            let expected = *verdict == Verdict::Deny;
            assert_eq!(
                *result == EPERM,
                expected,
                "{line}: {result}, but {verdict} by {by:?} (seed {seed}) of\n{table}always {:?}",
                table.always
            );
            if expected { denials += 1 } else { allowed += 1 }
        }
        assert_eq!(guarded.denied(), denials, "seed {seed}, after\n{table}");
    }
    let least = u64::from(vm::rounds(500));
    assert!(denials > least && allowed > least, "{denials} and {allowed} (seed {seed})");
}
