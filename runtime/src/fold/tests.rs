use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use tipstaff_events::aggregate::BUCKETS;

use crate::{
    batch::rows,
    decode::{Decoded, Decoder, Value, subscription},
    feed::{Member, MemberId},
    intake::Intake,
    kind::Kinds,
    plan::{Plan, bind_to_decode},
    queue::Queue,
    source::{Item, encode::Encoder},
};

/// What a record says.
#[derive(Debug, Clone)]
struct Said {
    pid: u32,
    comm: String,
    call: String,
    errno: u16,
    count: u64,
    latency: Option<(u64, u64)>,
    bucket: usize,
}

fn said() -> impl Strategy<Value = Said> {
    let calls = prop::sample::select(vec!["read", "write", "a-name-that-is-longer"]);
    let comms = prop::sample::select(vec!["sh", "cat", ""]);
    (
        1u32..4,
        comms,
        calls,
        0u16..3,
        0..u64::MAX / 1000,
        proptest::option::of((0u64..9, 9u64..99)),
        0..BUCKETS,
    )
        .prop_map(|(pid, comm, call, errno, count, latency, bucket)| Said {
            pid,
            comm: comm.to_owned(),
            call: call.to_owned(),
            errno,
            count,
            latency,
            bucket,
        })
}

fn record(kinds: &Kinds, time: u64, said: &Said) -> Vec<u8> {
    let kind = kinds.named("syscall_stats").unwrap();
    let mut record = Encoder::new(kind);
    let mut number = |name: &str, value: u64| {
        record.number(kind.field(name).unwrap(), value.into()).unwrap();
    };
    number("time", time);
    number("pid", said.pid.into());
    number("errno", said.errno.into());
    number("count", said.count);
    if let Some((least, greatest)) = said.latency {
        number("latency_least", least);
        number("latency_greatest", greatest);
    }
    record.bytes(kind.field("comm").unwrap(), said.comm.as_bytes(), false).unwrap();
    record.bytes(kind.field("call").unwrap(), said.call.as_bytes(), false).unwrap();
    if said.latency.is_some() {
        let mut buckets = [0u64; BUCKETS];
        buckets[said.bucket] = 2;
        let bytes: Vec<u8> = buckets.iter().flat_map(|bucket| bucket.to_le_bytes()).collect();
        record.bytes(kind.field("latency_histogram").unwrap(), &bytes, false).unwrap();
    }
    record.finish()
}

/// Count, least, greatest and the histogram.
type Sums = (u64, Option<u64>, Option<u64>, Vec<u64>);

struct Watched {
    intake: Intake,
    queue: Arc<Queue>,
    plan: Arc<Plan>,
    kinds: Kinds,
}

impl Watched {
    fn new(keys: &[&str], every_ns: u64) -> Self {
        let kinds = Kinds::built_in();
        let kind = kinds.named("syscall_stats").unwrap();
        let values = ["count", "latency_least", "latency_greatest", "latency_histogram"];
        let mut asked = subscription(kind, keys.iter().copied().chain(values));
        asked.every_ns = Some(every_ns);
        let plan = Arc::new(bind_to_decode("test", &[asked], &kinds).unwrap());
        let queue = Arc::new(Queue::new(usize::MAX, || {}));
        let mut intake = Intake::new(None);
        let member = Member { id: MemberId(0), queue: Arc::clone(&queue) };
        intake.join(&plan, 1, member, 0, false);
        Self { intake, queue, plan, kinds }
    }

    fn take(&mut self, time: u64, said: &Said) {
        self.intake.take(Item::Record(&record(&self.kinds, time, said)));
    }

    fn tick(&mut self, time: u64) {
        let kind = self.kinds.named("syscall_stats").unwrap().id;
        self.intake.take(Item::Tick(kind, time));
    }

    /// Rows so far: their times, the values of their keys, and their sums.
    fn rows(&mut self) -> Vec<(u64, Vec<String>, Sums)> {
        self.intake.flush();
        let decoder = Decoder::new(&self.plan, &self.kinds);
        let mut found = Vec::new();
        while let Some(delivery) = self.queue.pop() {
            for row in rows(&delivery.batch.bytes) {
                let Some(Decoded::Event(event)) = decoder.decode(&delivery.batch.bytes, row) else {
                    panic!("not an event");
                };
                let mut keys = Vec::new();
                let mut sums: Sums = (0, None, None, Vec::new());
                for field in event.fields {
                    match (field.name, field.value) {
                        ("count", Value::Unsigned(count)) => sums.0 = count,
                        ("latency_least", Value::Unsigned(least)) => sums.1 = Some(least),
                        ("latency_greatest", Value::Unsigned(greatest)) => sums.2 = Some(greatest),
                        (_, Value::Histogram(buckets)) => sums.3 = buckets,
                        (_, Value::Unsigned(number)) => keys.push(number.to_string()),
                        (_, Value::Text(text)) => keys.push(String::from_utf8_lossy(text).into()),
                        other => panic!("{other:?}"),
                    }
                }
                found.push((event.time, keys, sums));
            }
        }
        found
    }
}

fn plain(said: &[Said], keys: &[&str]) -> BTreeMap<Vec<String>, Sums> {
    let mut all: BTreeMap<Vec<String>, Sums> = BTreeMap::new();
    for said in said {
        let key = keys.iter().map(|key| match *key {
            "pid" => said.pid.to_string(),
            "comm" => said.comm.clone(),
            "call" => said.call.clone(),
            _ => said.errno.to_string(),
        });
        let sums = all.entry(key.collect()).or_default();
        sums.0 += said.count;
        let Some((least, greatest)) = said.latency else { continue };
        sums.1 = Some(sums.1.map_or(least, |known| known.min(least)));
        sums.2 = sums.2.max(Some(greatest));
        sums.3.resize(BUCKETS, 0);
        sums.3[said.bucket] += 2;
    }
    all
}

proptest! {
    #[test]
    fn rows_are_the_sums_by_whatever_is_asked_for(
        said in prop::collection::vec(said(), 0..60),
        keys in prop::sample::subsequence(vec!["pid", "comm", "call", "errno"], 0..=4),
    ) {
        let mut watched = Watched::new(&keys, 1_000_000_000);
        for said in &said {
            watched.take(5, said);
        }
        watched.tick(5);
        let rows = watched.rows();
        let count = rows.len();
        let found: BTreeMap<_, _> = rows.into_iter().map(|(_, keys, sums)| (keys, sums)).collect();
        prop_assert_eq!(count, found.len(), "no key has two rows");
        prop_assert_eq!(found, plain(&said, &keys));
    }
}

fn once(count: u64) -> Said {
    Said {
        pid: 1,
        comm: "sh".into(),
        call: "read".into(),
        errno: 0,
        count,
        latency: None,
        bucket: 0,
    }
}

#[test]
fn rows_come_as_often_as_was_asked_for_and_no_tick_is_left_out() {
    let mut watched = Watched::new(&["pid"], 3_000);
    for tick in 1..=8 {
        watched.take(tick * 1_000, &once(tick));
        watched.tick(tick * 1_000);
    }
    let counts: Vec<(u64, u64)> =
        watched.rows().into_iter().map(|(time, _, sums)| (time, sums.0)).collect();
    assert_eq!(counts, [(3_000, 6), (6_000, 15), (8_000, 15)]);
}

#[test]
fn who_leaves_gets_what_was_counted_before_and_who_joins_what_comes_after() {
    let mut watched = Watched::new(&["pid"], u64::MAX);
    watched.take(1_000, &once(3));
    watched.tick(1_000);
    let later = Arc::new(Queue::new(usize::MAX, || {}));
    let member = Member { id: MemberId(1), queue: Arc::clone(&later) };
    let plan = Arc::clone(&watched.plan);
    watched.intake.join(&plan, 1, member, 1_500, false);
    let (done, _told) = crossbeam_channel::bounded(0);
    watched.intake.leave(MemberId(0), 1_500, done);
    watched.take(2_000, &once(4));
    watched.tick(2_000);
    assert_eq!(watched.rows().iter().map(|row| row.2.0).collect::<Vec<_>>(), [3]);
    watched.queue = later;
    assert_eq!(watched.rows().iter().map(|row| row.2.0).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_sum_that_does_not_fit_stands_at_its_greatest_value() {
    let mut watched = Watched::new(&["pid"], 1_000);
    watched.take(1_000, &once(u64::MAX));
    watched.take(1_000, &once(2));
    assert_eq!(watched.rows()[0].2.0, u64::MAX);
}

#[test]
fn another_policy_s_shorter_ticks_do_not_change_how_often_rows_come() {
    let mut watched = Watched::new(&["pid"], 10_000);
    for tick in 1..=40u64 {
        // Never quite on time.
        let time = tick * 1_000 + tick * 37 % 100;
        watched.take(time, &once(1));
        watched.tick(time);
    }
    let counts: Vec<u64> = watched.rows().into_iter().map(|(_, _, sums)| sums.0).collect();
    assert_eq!(counts, [10, 10, 10, 10]);
}

#[test]
fn rows_by_keys_without_end_are_handed_over_before_their_time() {
    const KEYS: u32 = 100_000;
    let mut watched = Watched::new(&["pid"], u64::MAX);
    for pid in 0..KEYS {
        watched.take(1_000, &Said { pid, ..once(1) });
    }
    watched.intake.deliver(u64::MAX / 2);
    assert!(!watched.queue.is_empty(), "they do not wait for the end of time");
    let rows = watched.rows();
    assert_eq!(
        (rows.len(), rows.iter().map(|row| row.2.0).sum()),
        (KEYS as usize, u64::from(KEYS))
    );
}

#[test]
fn events_of_other_kinds_that_fill_batches_do_not_break_up_a_tick() {
    let kinds = Kinds::built_in();
    let mut stats = subscription(kinds.named("syscall_stats").unwrap(), ["pid", "count"]);
    stats.every_ns = Some(1_000);
    let exits = subscription(kinds.named("exit").unwrap(), ["pid"]);
    let plan = Arc::new(bind_to_decode("test", &[stats, exits], &kinds).unwrap());
    let mut watched = Watched::new(&["pid"], 1_000);
    watched.intake = Intake::new(None);
    let member = Member { id: MemberId(0), queue: Arc::clone(&watched.queue) };
    watched.intake.join(&plan, 1, member, 0, false);
    for time in 2_000..5_000 {
        let kind = kinds.named("exit").unwrap();
        let mut exit = Encoder::new(kind);
        exit.number(kind.field("time").unwrap(), time).unwrap();
        watched.intake.take(Item::Record(&exit.finish()));
    }
    // A reading of before, which comes behind them.
    watched.take(1_500, &once(1));
    watched.take(1_500, &Said { call: "write".into(), ..once(2) });
    watched.tick(1_500);
    watched.intake.flush();
    let mut counts = Vec::new();
    while let Some(delivery) = watched.queue.pop() {
        counts.extend(
            rows(&delivery.batch.bytes)
                .filter(|row| row.subscription() == 0)
                .map(|row| row.bytes.len()),
        );
    }
    assert_eq!(counts.len(), 1, "one row for the process");
}
