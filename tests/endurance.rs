//! Fifty policies under load for ten minutes, ten of them hostile: nothing grows, nothing is left, and
//! nobody else misses anything. Too long for `make test`; as root, after `make build`:
//!
//! ```text
//! tools/build-policies.sh tests
//! cargo test --release --test endurance -- --ignored --nocapture
//! ```
//!
//! `TIPSTAFF_MINUTES` is how long it takes (10).

mod court;
#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

use std::{
    collections::BTreeSet,
    env, fs,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use court::guest::{hostile, larger};
use support::{
    agent::{Agent, steady_load},
    can_probe, fixture, scrape, series, until,
};

/// Healthy policies, of the same length as the one that they are made of.
const HEALTHY: u32 = 40;
/// Those that stress the host most.
const HOSTILE: &[&str] = &[
    "floods-alerts",
    "floods-its-state",
    "floods-metrics",
    "floods-the-log",
    "grows-memory",
    "leaks-handles",
    "loops-in-on-batch",
    "loops-in-restore",
    "recurses",
    "traps-on-every-batch",
];
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// What the agent has of what could grow.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident_kib: u64,
    descriptors: u64,
    threads: u64,
    programs: u64,
    maps: u64,
}

/// A sample, and the numbers of the programs, maps and links that the agent holds.
fn sample(pid: u32, held: &mut BTreeSet<(&'static str, String)>) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    };
    let (mut programs, mut maps, mut descriptors) = (BTreeSet::new(), BTreeSet::new(), 0);
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs") {
        descriptors += 1;
        // One that was closed in between is none.
        let Ok(text) = fs::read_to_string(entry.expect("an entry").path()) else { continue };
        let number = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)).map(|text| text.trim().to_owned())
        };
        if let Some(id) = number("link_id:") {
            held.insert(("link", id));
        } else if let Some(id) = number("prog_id:") {
            held.insert(("prog", id.clone()));
            programs.insert(id);
        } else if let Some(id) = number("map_id:") {
            held.insert(("map", id.clone()));
            maps.insert(id);
        }
    }
    Sample {
        resident_kib: field("VmRSS:"),
        threads: field("Threads:"),
        descriptors,
        programs: programs.len() as u64,
        maps: maps.len() as u64,
    }
}

/// Whether the kernel still has this program, map or link.
fn exists(kind: &str, id: &str) -> bool {
    let mut bpftool = Command::new("bpftool");
    bpftool.args([kind, "show", "id", id]).stdout(Stdio::null()).stderr(Stdio::null());
    bpftool.status().expect("bpftool runs").success()
}

fn zombies(pid: u32) -> usize {
    let is_zombie = |child: &str| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .map(|all| all.split_whitespace().filter(|child| is_zombie(child)).count())
        .sum()
}

#[test]
#[ignore = "takes ten minutes, see the top of the file"]
fn fifty_policies_of_which_ten_are_hostile_leave_nothing_behind_and_let_nothing_grow() {
    if !can_probe("fifty_policies_of_which_ten_are_hostile") {
        return;
    }
    let minutes = env::var("TIPSTAFF_MINUTES").map_or(10, |text| text.parse().expect("a number"));
    let tally = fs::read(fixture("tally")).expect("readable");
    let mut agent = Agent::start(&[], "");
    for number in 0..HEALTHY {
        let bytes =
            renamed(&tally, b"name = \"tally\"", format!("name = \"tal{number:02}\"").as_bytes());
        agent.put(&format!("tal{number:02}.wasm"), &bytes);
    }
    until("all healthy policies run", || {
        (agent.value("tipstaff_policies", &[r#"state="running""#]) == u64::from(HEALTHY))
            .then_some(())
    });
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady_load(&stop, 50);
    let pid = agent.tipstaff.pid();
    let (mut held, mut samples) = (BTreeSet::new(), Vec::new());
    let begin = Instant::now();
    let mut round = 0;
    while begin.elapsed() < Duration::from_mins(minutes) {
        // Each is replaced by another file again and again, so that none rests in quarantine.
        for name in HOSTILE {
            let policy = hostile(name);
            let bytes = if round % 2 == 0 { policy } else { larger(&policy, 8) };
            agent.put(&format!("{name}.wasm"), &bytes);
        }
        round += 1;
        thread::sleep(SAMPLE_EVERY);
        let now = sample(pid, &mut held);
        println!("{:>4} s {now:?}", begin.elapsed().as_secs());
        samples.push(now);
        // Or the pipe is full, and the agent's lines are dropped.
        drop(agent.tipstaff.log_so_far());
    }
    stop.store(true, Ordering::Relaxed);
    let produced = load.join().expect("the load ends");
    let metrics = until("all healthy policies have all events", || {
        let metrics = scrape(&agent.metrics);
        let has_all = |number| counted(&metrics, "tally_events_total", number) >= produced;
        (0..HEALTHY).all(has_all).then_some(metrics)
    });
    for number in 0..HEALTHY {
        assert_eq!(counted(&metrics, "tally_events_total", number), produced);
        assert_eq!(counted(&metrics, "tally_lost_total", number), 0);
        assert_eq!(counted(&metrics, "tally_sum_total", number), produced * (produced - 1) / 2);
    }
    println!(
        "{produced} events, each seen by each of {HEALTHY}; {round} generations of each hostile one"
    );
    assert_eq!(zombies(pid), 0);

    // The first part is how long caches and allocators take to fill.
    let (early, late) = samples[samples.len() / 5..].split_at(samples.len() * 2 / 5);
    let most =
        |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
    for (what, of, slack) in [
        ("resident KiB", (|sample| sample.resident_kib) as fn(&Sample) -> u64, 4 << 10),
        ("descriptors", |sample| sample.descriptors, 4),
        ("threads", |sample| sample.threads, 0),
        ("programs", |sample| sample.programs, 0),
        ("maps", |sample| sample.maps, 0),
    ] {
        let (before, after) = (most(early, of), most(late, of));
        println!("{what}: at most {before} before, {after} after");
        assert!(after <= before + slack, "{what} grew from {before} to {after}");
    }
    let (_, code) = agent.tipstaff.stop();
    assert_eq!(code, 0);
    assert!(held.iter().any(|(kind, _)| *kind == "prog"), "it held programs");
    // The kernel frees them a little later.
    until("the kernel has none of them", || {
        (!held.iter().any(|(kind, id)| exists(kind, id))).then_some(())
    });
    println!("{} programs, maps and links, all gone", held.len());
}

/// The value of a healthy policy's counter.
fn counted(metrics: &str, name: &str, number: u32) -> u64 {
    series(metrics, name, &[&format!("policy=\"tal{number:02}\"")]).unwrap_or(0)
}

fn renamed(policy: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = policy.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "the manifest is in the file");
    for at in places {
        bytes[at..at + from.len()].copy_from_slice(to);
    }
    bytes
}
