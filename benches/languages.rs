//! What an event costs in each language: the policy that `tipstaff new` makes, which counts the shells
//! that are run by user, is handed the same batches in Rust, Python and JavaScript, in turn. What counts
//! is the processor time of the calls, as the agent reckons it: what crosses to the policy and back, and
//! what the policy does. Making the rows costs the same for all, and is measured by `path`.

#[path = "../tests/court/mod.rs"]
mod court;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use court::{
    Court,
    language::{Language, built, new},
    root,
};
use tipstaff_runtime::{
    enrich::{Lookup, Tables},
    kind::Kinds,
    plan::{self, Plan},
    policy::{Limits, Running},
    queue::Batch,
    source::{Item, Source as _, jsonl::Jsonl},
};

/// Events of one run.
const EVENTS: usize = 64 << 10;
/// Runs of each, of which the median counts.
const RUNS: usize = 9;
/// Events per batch.
const BATCHES: [usize; 4] = [1, 16, 256, 1024];

fn main() {
    let court = Court::with_workers(1);
    let long = Duration::from_mins(1);
    let limits = Limits {
        cpu_percent: 10_000,
        cpu_per_call: long,
        start_up: long,
        queue: 1 << 30,
        ..Limits::default()
    };
    let (python, javascript) = (new(Language::Python), new(Language::Javascript));
    let files = [
        ("Rust", root().join("target/policies/tests/shells.wasm")),
        ("Python", built(Language::Python, &python.1)),
        ("JavaScript", built(Language::Javascript, &javascript.1)),
    ];
    let kinds = Kinds::built_in();
    let mut policies = Vec::new();
    for (language, file) in files {
        let loaded = court.compiler.load(&file).expect("run tools/build-policies.sh tests");
        // Each has metrics of its own.
        let own = Court::with_workers(1);
        let configured = own.configure(&loaded, "", &limits).expect("configured");
        let plan = plan::bind("shells", &configured.manifest.subscriptions, &kinds, &[]);
        let rows = rows(&plan.expect("bound"), &kinds);
        let running = own.pool.start(configured).expect("started");
        policies.push((language, own, running, rows, Vec::new()));
    }
    let same = |a: &[Vec<u8>], b: &[Vec<u8>]| a == b;
    assert!(policies.iter().all(|policy| same(&policy.3, &policies[0].3)), "the same rows for all");

    for _ in 0..RUNS {
        for size in BATCHES {
            for (_, _, running, rows, times) in &mut policies {
                times.push((size, run(running, rows, size)));
            }
        }
    }
    let shells = |court: &Court| court.count("shells", Some(("uid", "3")));
    assert!(policies.iter().all(|policy| shells(&policy.1) == shells(&policies[0].1)));

    println!(
        "| events per batch | {} |",
        policies.iter().map(|policy| policy.0).collect::<Vec<_>>().join(" | ")
    );
    println!("|---|{}", "---|".repeat(policies.len()));
    for size in BATCHES {
        let medians = policies.iter().map(|policy| {
            let times = policy.4.iter().filter(|time| time.0 == size).map(|time| time.1);
            median(times.collect())
        });
        println!(
            "| {size} | {} |",
            medians.map(|ns| format!("{ns:.0}")).collect::<Vec<_>>().join(" | ")
        );
    }
}

/// Rows of events, one in eight a shell.
fn rows(plan: &Plan, kinds: &Kinds) -> Vec<Vec<u8>> {
    let mut text = String::new();
    for number in 0..1024 {
        let name = if number % 8 == 3 { "bash" } else { "some-program" };
        let _ = writeln!(
            text,
            "{{\"kind\":\"exec\",\"time_ns\":{},\"path\":\"/usr/bin/{name}\",\"uid\":{}}}",
            1000 + number,
            number % 32
        );
    }
    let mut source = Jsonl::parse("events", &text, kinds).expect("events");
    let mut tables = Tables::new(None);
    let bound = plan.bound().next().expect("a subscription");
    let mut rows = Vec::new();
    while source
        .drain(4096, &mut |item| {
            let Item::Record(record) = item else { return };
            let mut row = Vec::new();
            let made =
                bound.projection.append(record, &mut Lookup::new(&mut tables, None), &mut row);
            made.expect("a row");
            rows.push(row);
        })
        .items
        > 0
    {}
    assert_eq!(rows.len(), 1024);
    rows
}

/// Hands over all events in batches of that size. Nanoseconds of processor time per event.
fn run(running: &Running, rows: &[Vec<u8>], size: usize) -> f64 {
    let batches: Vec<Arc<Batch>> = rows.chunks(size).map(batch).collect();
    let before = running.numbers();
    for batch in batches.iter().cycle().take(EVENTS / size) {
        running.queue().push(batch);
    }
    let events = EVENTS as u64;
    court::eventually_within(Duration::from_mins(10), "all rows are taken", || {
        running.numbers().rows >= before.rows + events
    });
    let after = running.numbers();
    assert_eq!((after.rows - before.rows, after.traps), (events, 0));
    assert_eq!(after.calls - before.calls, (EVENTS / size) as u64);
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let events = EVENTS as f64;
    (after.cpu_seconds - before.cpu_seconds) * 1e9 / events
}

/// Rows back to back, their texts where they are now.
fn batch(rows: &[Vec<u8>]) -> Arc<Batch> {
    let mut bytes = Vec::new();
    for row in rows {
        let start = u32::try_from(bytes.len()).expect("small");
        bytes.extend_from_slice(row);
        // The one text is the first field: where it begins is counted from the batch's start.
        let at = bytes.len() - row.len() + 16;
        let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        bytes[at..at + 4].copy_from_slice(&(offset + start).to_le_bytes());
    }
    Arc::new(Batch {
        bytes: bytes.into(),
        events: vec![rows.len() as u64],
        first_ns: 1000,
        last_ns: 2024,
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
