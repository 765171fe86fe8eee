//! What a network guard costs who connects: by the number of rules, and of scopes around the process.
//!
//! A child connects a UDP socket, over and over, to an address that the last rule allows; no packet
//! leaves. The other rules are about addresses near it, so that the way through the trie is as long as
//! it gets. Without a guard and with each arrangement in turn; what counts is the child's processor time.

#[path = "../tests/support/cgroup.rs"]
mod cgroup;

use std::{
    env,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use cgroup::Cgroup;
use rustix::time::{ClockId, clock_gettime};
use tipstaff_runtime::{
    guard::{GuardMode, Operation, Prefix, Rule, Table, Verdict},
    probe::{NetworkGuard, Probes, RingSizes},
};

/// Calls per run.
const CALLS: u64 = 200_000;
/// Rounds, of which the median counts.
const ROUNDS: usize = 9;
/// Scopes around the process and rules in each.
const WAYS: [(usize, u32); 6] = [(1, 1), (1, 100), (1, 10_000), (8, 1), (8, 100), (8, 10_000)];
/// What the child connects to.
const TARGET: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn main() {
    if env::args().any(|argument| argument == "--connects") {
        produce();
        return;
    }
    let mut probes = Probes::open(RingSizes::default()).expect("root, and a kernel with BTF");
    let mut scopes = vec![Cgroup::new()];
    while scopes.len() < 8 {
        let below = scopes[scopes.len() - 1].below("below");
        scopes.push(below);
    }
    let mut none = Vec::new();
    let mut guarded: [Vec<f64>; WAYS.len()] = Default::default();
    let mut installing: [Vec<f64>; WAYS.len()] = Default::default();
    for _ in 0..ROUNDS {
        none.push(run(&scopes));
        for (index, (depth, rules)) in WAYS.into_iter().enumerate() {
            let table = table(rules);
            let mut guards: Vec<NetworkGuard> = scopes[..depth]
                .iter()
                .map(|scope| {
                    probes
                        .guard_network(scope.path(), 0, GuardMode::Enforce)
                        .expect("a guard on a cgroup of ours")
                })
                .collect();
            let start = Instant::now();
            for guard in &mut guards {
                guard.install(&table).expect("a table that fits");
            }
            let each = start.elapsed() / u32::try_from(depth).expect("small");
            installing[index].push(milliseconds(each));
            guarded[index].push(run(&scopes));
        }
    }
    // The innermost first, as a cgroup with others below it cannot go.
    while scopes.pop().is_some() {}
    let none = median(none);
    println!(
        "| scopes | rules in each | ns per connect | adds | against none | a table is in force after, ms |"
    );
    println!("|---|---|---|---|---|---|");
    println!("| 0 | | {none:.0} | | 1.00 | |");
    for (((scopes, rules), times), installing) in WAYS.into_iter().zip(guarded).zip(installing) {
        let time = median(times);
        println!(
            "| {scopes} | {rules} | {time:.0} | {:.0} | {:.2} | {:.1} |",
            time - none,
            time / none,
            median(installing)
        );
    }
}

/// Denies addresses around the target, and allows it.
fn table(rules: u32) -> Table {
    let rule = |verdict, prefix: Prefix| Rule {
        prefix,
        operations: Operation::Connect.into(),
        verdict,
        ..Rule::always_allow("udp").expect("a rule")
    };
    // Odd multiples of a large number have no pattern, and are all different.
    let near = |n: u32| Ipv4Addr::from_bits(0x7f00_0000 | (n.wrapping_mul(0x9e37_79b1) >> 8 | 2));
    let mut table = Table::new(Verdict::Allow);
    table.rules.extend((1..rules).map(|n| rule(Verdict::Deny, near(n).into())));
    table.rules.push(rule(Verdict::Allow, TARGET.into()));
    table
}

/// Connects and prints what one call took.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit")]
fn produce() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let start = cpu_ns();
    for _ in 0..CALLS {
        socket.connect((TARGET, 9)).expect("allowed");
    }
    println!("{}", (cpu_ns() - start) as f64 / CALLS as f64);
}

/// In the innermost scope.
fn run(scopes: &[Cgroup]) -> f64 {
    let program = env::current_exe().expect("a path");
    let scope = scopes.last().expect("eight");
    let output = scope.command(program).arg("--connects").output().expect("a child");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("after the start")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
