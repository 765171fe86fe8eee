use std::{collections::BTreeMap, os::fd::BorrowedFd, sync::atomic::AtomicBool, time::Instant};

use super::*;
use crate::{
    batch::{Row, rows},
    clock,
    manifest::{Ask, AskType, Subscription},
    plan::bind,
    queue::{Cause, Gap},
    source::{Drained, Item, Jsonl, encode::Encoder},
};

const FOREVER: Duration = Duration::from_secs(30);

fn ask(name: &str, ty: AskType) -> Ask {
    Ask { name: name.into(), ty, optional: true }
}

fn plan(event: &str, fields: Vec<Ask>) -> Arc<Plan> {
    let subscription = Subscription::new(event, fields);
    Arc::new(bind("test", &[subscription], &Kinds::built_in(), &[]).unwrap())
}

fn subscriber(plan: &Arc<Plan>) -> (Subscriber, Arc<Queue>) {
    let queue = Arc::new(Queue::new(usize::MAX, || {}));
    (
        Subscriber {
            plan: Arc::clone(plan),
            queue: Arc::clone(&queue),
            latency: Duration::from_millis(5),
        },
        queue,
    )
}

fn read<T>(queue: &Queue, mut each: impl FnMut(&[u8], Row<'_>) -> T) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(delivery) = queue.pop() {
        assert_eq!(delivery.gaps, []);
        all.extend(rows(&delivery.batch.bytes).map(|row| each(&delivery.batch.bytes, row)));
    }
    all
}

/// The text at this offset of a row.
fn text(batch: &[u8], row: Row<'_>, at: usize) -> String {
    let word = |at: usize| u32::from_le_bytes(*row.bytes[at..].first_chunk().unwrap()) as usize;
    String::from_utf8(batch[word(at)..][..word(at + 4)].to_vec()).unwrap()
}

fn replay(lines: &str, plan: &Arc<Plan>) -> (Arc<Queue>, Arc<AgentMetrics>) {
    let kinds = Kinds::built_in();
    let source = Jsonl::parse("test", lines, &kinds).unwrap();
    let (subscriber, queue) = subscriber(plan);
    let metrics = Arc::new(AgentMetrics::default());
    let reader = Reader::start(source, &kinds, Arc::clone(&metrics), vec![subscriber]).unwrap();
    assert!(reader.wait_for_end(FOREVER));
    reader.stop();
    (queue, metrics)
}

#[test]
fn events_from_a_file_arrive_in_time_order_with_what_the_process_table_knows() {
    let lines = r#"
        {"kind":"fork","time_ns":1000,"pid":1,"child_pid":7,"child_start":50}
        {"kind":"exec","time_ns":5000,"pid":7,"start":50,"path":"/bin/sh","args":["sh","-c","x y"]}
        {"kind":"open","time_ns":4000,"pid":7,"path":"/early"}
        {"kind":"open","time_ns":6000,"pid":7,"path":"/etc/passwd"}
        {"kind":"open","time_ns":7000,"pid":8,"path":"/given","proc.exe":"/usr/bin/given"}
        {"kind":"open","time_ns":8000,"pid":9,"path":"/unknown"}
    "#;
    let plan = plan("open", vec![ask("path", AskType::Text), ask("proc.exe", AskType::Text)]);
    let (queue, metrics) = replay(lines, &plan);
    let seen = read(&queue, |batch, row| {
        (row.time(), text(batch, row, 16), text(batch, row, 24), row.absent())
    });
    let expected = [
        (4000, "/early", "", 2),
        (6000, "/etc/passwd", "/bin/sh", 0),
        (7000, "/given", "/usr/bin/given", 0),
        (8000, "/unknown", "", 2),
    ];
    assert_eq!(
        seen,
        expected.map(|(time, path, exe, absent)| (time, path.to_owned(), exe.to_owned(), absent))
    );
    let labels = crate::outcome::KindLabels { kind: "open".into() };
    assert_eq!(metrics.events.get_or_create_owned(&labels).get(), 4);
}

#[test]
fn a_gap_in_a_file_reaches_only_who_asked_for_that_kind() {
    let lines = r#"
        {"kind":"exec","time_ns":1000,"pid":7}
        {"kind":"gap","time_ns":2000,"last_ns":2500,"event":"exec","lost":12,"cause":"ring_full"}
        {"kind":"gap","time_ns":3000,"event":"open","lost":3,"cause":"map_full"}
    "#;
    let (queue, _) = replay(lines, &plan("exec", vec![]));
    let gap =
        Gap { subscription: 0, lost: 12, first_ns: 2000, last_ns: 2500, cause: Cause::RingFull };
    assert_eq!(read(&queue, |_, row| row.gap()), [None, Some(gap)]);
}

/// A source that makes `open` events numbered from 0, as fast as it is asked.
struct Flood {
    record: Vec<u8>,
    number_at: usize,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// How many it makes at most.
    most: u64,
    lost: u64,
}

impl Flood {
    fn new() -> (Self, Arc<AtomicU64>, Arc<AtomicBool>) {
        let kinds = Kinds::built_in();
        let kind = kinds.named("open").unwrap();
        let crate::kind::From::Record { offset, .. } = kind.field("cgroup").unwrap().from else {
            unreachable!()
        };
        let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let record = Encoder::new(kind).finish();
        let flood = Self {
            record,
            number_at: usize::from(offset),
            next: Arc::clone(&next),
            stop: Arc::clone(&stop),
            most: u64::MAX,
            lost: 0,
        };
        (flood, next, stop)
    }
}

impl Source for Flood {
    fn drain(&mut self, _most: usize, each: &mut impl FnMut(Item<'_>)) -> Drained {
        let left = self.most - self.next.load(Ordering::Relaxed);
        let items = if self.stop.load(Ordering::Relaxed) { 0 } else { left.min(500) };
        for _ in 0..items {
            // The clock may stand still between two of them, as on a fast machine.
            self.record[..8].copy_from_slice(&clock::monotonic_ns().to_ne_bytes());
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.record[self.number_at..][..8].copy_from_slice(&number.to_ne_bytes());
            each(Item::Record(&self.record));
        }
        let items = usize::try_from(items).unwrap();
        Drained { items, all: true, holds_urgent: false, newest_in_bulk: 0, ended: false }
    }

    fn wait(&mut self, _waker: BorrowedFd<'_>, timeout: Duration) {
        std::thread::sleep(timeout.min(Duration::from_millis(1)));
    }

    fn has_unfinished(&self) -> bool {
        false
    }

    fn losses(&mut self, each: &mut impl FnMut(u16, Cause, u64)) {
        self.lost += 5;
        each(tipstaff_events::catalogue::open::KIND, Cause::RingFull, self.lost);
    }

    fn is_live(&self) -> bool {
        true
    }
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < FOREVER, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn numbers(queue: &Queue) -> Vec<u64> {
    let numbers = read(queue, |_, row| {
        row.gap().is_none().then(|| u64::from_le_bytes(*row.bytes[16..].first_chunk().unwrap()))
    });
    numbers.into_iter().flatten().collect()
}

#[test]
fn who_comes_goes_or_is_replaced_loses_and_doubles_nothing() {
    let (source, next, stop) = Flood::new();
    let same = plan("open", vec![ask("cgroup", AskType::U64)]);
    let more = plan("open", vec![ask("cgroup", AskType::U64), ask("path", AskType::Text)]);
    let (first, first_queue) = subscriber(&same);
    let reader =
        Reader::start(source, &Kinds::built_in(), Arc::new(AgentMetrics::default()), vec![first])
            .unwrap();

    // One that shares the first one's batches, and one that asks for more, come and go.
    for round in 0..50 {
        let (guest, queue) = subscriber(if round % 2 == 0 { &same } else { &more });
        let id = reader.add(guest);
        let began = next.load(Ordering::Relaxed);
        eventually("events", || next.load(Ordering::Relaxed) > began + 500);
        let until = next.load(Ordering::Relaxed);
        reader.remove(id);
        let seen = numbers(&queue);
        assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "one after the other");
        assert!(seen[0] <= began && *seen.last().unwrap() >= until - 1, "all in between");
    }

    // Generations: what they saw, put together, is everything.
    let (generation, queue) = subscriber(&more);
    let mut queues = vec![queue];
    let mut id = reader.add(generation);
    for round in 0..20 {
        let (generation, queue) = subscriber(if round % 2 == 0 { &same } else { &more });
        id = reader.replace(id, generation);
        queues.push(queue);
        let began = next.load(Ordering::Relaxed);
        eventually("events", || next.load(Ordering::Relaxed) > began + 500);
    }
    stop.store(true, Ordering::Relaxed);
    reader.stop();
    let seen: Vec<u64> = queues.iter().flat_map(|queue| numbers(queue)).collect();
    assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "the generations");
    let total = next.load(Ordering::Relaxed);
    assert_eq!(*seen.last().unwrap(), total - 1);
    assert_eq!(numbers(&first_queue), (0..total).collect::<Vec<_>>());
}

#[test]
fn lost_events_are_told_in_the_rows_and_counted() {
    let (source, _, stop) = Flood::new();
    stop.store(true, Ordering::Relaxed);
    let (subscriber, queue) = subscriber(&plan("open", vec![]));
    let metrics = Arc::new(AgentMetrics::default());
    let reader =
        Reader::start(source, &Kinds::built_in(), Arc::clone(&metrics), vec![subscriber]).unwrap();
    let labels = crate::outcome::LossLabels { kind: "open".into(), cause: "ring_full".into() };
    let lost = || metrics.events_lost.get_or_create_owned(&labels).get();
    eventually("three readings", || lost() >= 15);
    reader.stop();
    let gaps: Vec<Gap> = read(&queue, |_, row| row.gap().unwrap());
    assert!(gaps.len() >= 3);
    assert!(gaps.iter().all(|gap| gap.lost == 5 && gap.cause == Cause::RingFull));
    assert!(gaps.windows(2).all(|pair| pair[0].last_ns <= pair[1].first_ns), "they do not overlap");
    assert_eq!(lost(), gaps.len() as u64 * 5);
}

#[test]
fn rows_do_not_wait_longer_than_their_latency() {
    let (mut source, next, _) = Flood::new();
    // One, which does not fill a batch.
    source.most = 1;
    let (subscriber, queue) = subscriber(&plan("open", vec![]));
    let reader = Reader::start(
        source,
        &Kinds::built_in(),
        Arc::new(AgentMetrics::default()),
        vec![subscriber],
    )
    .unwrap();
    eventually("a batch", || !queue.is_empty());
    assert_eq!(next.load(Ordering::Relaxed), 1);
    reader.stop();
}

#[test]
fn a_subscription_filters_before_its_rows_are_made() {
    let kinds = Kinds::built_in();
    let mut filtered = Plan::clone(&plan("exec", vec![ask("pid", AskType::U32)]));
    let condition = "path ^= /usr/ and not args ~ secret and pid >= 5";
    filtered.filter(
        0,
        crate::predicate::Predicate::parse(condition, kinds.named("exec").unwrap()).unwrap(),
    );
    let lines = r#"
        {"kind":"exec","pid":1,"path":"/usr/bin/a"}
        {"kind":"exec","pid":5,"path":"/usr/bin/b","args":["b","x"]}
        {"kind":"exec","pid":6,"path":"/usr/bin/c","args":["c","my secret"]}
        {"kind":"exec","pid":7,"path":"/bin/d"}
        {"kind":"exec","pid":8}
    "#;
    let (queue, _) = replay(lines, &Arc::new(filtered));
    let pids = read(&queue, |_, row| u32::from_le_bytes(*row.bytes[16..].first_chunk().unwrap()));
    assert_eq!(pids, [5]);
}

#[test]
fn what_is_asked_for_twice_is_told_twice_with_its_index() {
    let subscription = |fields| Subscription::new("exit", fields);
    let both = [subscription(vec![]), subscription(vec![ask("code", AskType::U32)])];
    let plan = Arc::new(bind("test", &both, &Kinds::built_in(), &[]).unwrap());
    let (queue, _) = replay("{\"kind\":\"exit\",\"code\":3}\n{\"kind\":\"exit\"}", &plan);
    let mut counts = BTreeMap::new();
    for index in read(&queue, |_, row| row.subscription()) {
        *counts.entry(index).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(0, 2), (1, 2)]));
}

/// A source with one record that is begun, and not ended until the reader has asked a few times.
struct Late {
    record: Vec<u8>,
    looks: u32,
    unfinished: bool,
}

impl Source for Late {
    fn drain(&mut self, _most: usize, each: &mut impl FnMut(Item<'_>)) -> Drained {
        let items = usize::from(self.unfinished && self.looks == 0);
        if items == 1 {
            self.unfinished = false;
            each(Item::Record(&self.record));
        }
        self.looks = self.looks.saturating_sub(1);
        Drained { items, all: true, holds_urgent: false, newest_in_bulk: 0, ended: false }
    }

    fn wait(&mut self, _waker: BorrowedFd<'_>, timeout: Duration) {
        // Nothing wakes the reader before the record is ended.
        std::thread::sleep(timeout);
    }

    fn has_unfinished(&self) -> bool {
        self.unfinished
    }

    fn losses(&mut self, _each: &mut impl FnMut(u16, Cause, u64)) {}

    fn is_live(&self) -> bool {
        true
    }
}

#[test]
fn a_record_that_is_begun_when_the_reader_stops_is_waited_for() {
    let kinds = Kinds::built_in();
    let mut record = Encoder::new(kinds.named("open").unwrap()).finish();
    record[..8].copy_from_slice(&clock::monotonic_ns().to_ne_bytes());
    let plan = plan("open", vec![ask("cgroup", AskType::U64)]);
    let (subscriber, queue) = subscriber(&plan);
    let source = Late { record, looks: 100, unfinished: true };
    let reader =
        Reader::start(source, &kinds, Arc::new(AgentMetrics::default()), vec![subscriber]).unwrap();
    reader.stop();
    assert_eq!(numbers(&queue).len(), 1);
}
