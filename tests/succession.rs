//! One generation of a policy takes the place of another: nothing is lost, nothing is doubled, and
//! whatever fails, a generation runs.

mod court;

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use court::{Court, build, eventually};
use tipstaff_runtime::{
    clock,
    kind::{From, Kinds},
    outcome::{AgentMetrics, LimitLabels, PolicyLabels, TransitionLabels, Value},
    plan::{self, Plan},
    policy::{Life, Limits, Loaded, Running},
    queue::{Batch, Cause},
    reader::{Reader, Subscriber},
    source::{Drained, Item, Source, encode::Encoder},
};

/// Makes `open` events numbered from 0, as fast as it is asked, until it is stopped.
struct Flood {
    record: Vec<u8>,
    number_at: usize,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Flood {
    fn new(next: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> Self {
        let kinds = Kinds::built_in();
        let kind = kinds.named("open").unwrap();
        let From::Record { offset, .. } = kind.field("cgroup").unwrap().from else {
            panic!("`cgroup` is in the record")
        };
        let (next, stop) = (Arc::clone(next), Arc::clone(stop));
        Self { record: Encoder::new(kind).finish(), number_at: offset.into(), next, stop }
    }
}

impl Source for Flood {
    fn drain(&mut self, most: usize, each: &mut impl FnMut(Item<'_>)) -> Drained {
        let items = if self.stop.load(Ordering::Relaxed) { 0 } else { most.min(500) };
        for _ in 0..items {
            self.record[..8].copy_from_slice(&clock::monotonic_ns().to_ne_bytes());
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.record[self.number_at..][..8].copy_from_slice(&number.to_ne_bytes());
            each(Item::Record(&self.record));
        }
        Drained { items, all: true, holds_urgent: false, newest_in_bulk: 0, ended: false }
    }

    fn wait(&mut self, _waker: BorrowedFd<'_>, timeout: Duration) {
        std::thread::sleep(timeout.min(Duration::from_micros(100)));
    }

    fn losses(&mut self, _each: &mut impl FnMut(u16, Cause, u64)) {}

    fn has_unfinished(&self) -> bool {
        false
    }

    fn is_live(&self) -> bool {
        true
    }
}

/// A court with the policy `heir`.
struct House {
    court: Court,
    loaded: Loaded,
    plan: Arc<Plan>,
}

impl House {
    fn new() -> Self {
        let court = Court::new();
        let loaded = court.compiler.load(&build("heir")).unwrap();
        let subscriptions = &loaded.manifest.subscriptions;
        let plan = plan::bind("heir", subscriptions, &Kinds::built_in(), &[]).unwrap();
        Self { court, loaded, plan: Arc::new(plan) }
    }

    /// Those of a policy that is never too slow, also where a call waits for a busy processor.
    fn limits() -> Limits {
        let cpu_per_call = Duration::from_millis(500);
        Limits { cpu_percent: 10_000, cpu_per_call, ..Limits::default() }
    }

    fn start(&self, settings: &str) -> Running {
        let configured = self.court.configure(&self.loaded, settings, &Self::limits()).unwrap();
        self.court.pool.start(configured).unwrap()
    }

    /// Replaces it by a generation that takes over its queue.
    fn replace(&self, running: &mut Running, settings: &str) {
        let configured = self.court.configure(&self.loaded, settings, &Self::limits()).unwrap();
        let next = running.prepare(configured, true).unwrap();
        running.replace(next);
    }

    fn subscriber(&self, running: &Running) -> Subscriber {
        let queue = Arc::clone(running.queue());
        Subscriber { plan: Arc::clone(&self.plan), queue, latency: Duration::from_millis(1) }
    }

    /// What the policy says that it holds.
    fn held(&self) -> u64 {
        self.gauge("held")
    }

    fn gauge(&self, name: &str) -> u64 {
        let families = self.court.outcome.metrics.families();
        let held = families.iter().find(|family| family.name == name).expect("it is made");
        let Value::Gauge(held) = held.series[0].value else { panic!("it is a gauge") };
        format!("{held}").parse().expect("a whole number")
    }

    fn transitions(&self, state: &str) -> u64 {
        let labels = TransitionLabels { policy: "heir".into(), state: state.into() };
        self.court.outcome.counts.transitions.get_or_create_owned(&labels).get()
    }
}

/// A batch of events of these numbers.
fn opens(numbers: std::ops::Range<u64>) -> Arc<Batch> {
    let mut bytes = Vec::new();
    for number in numbers.clone() {
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 0, 3, 0, 0, 0]);
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let events = numbers.end - numbers.start;
    let (first_ns, last_ns) = (numbers.start, numbers.end - 1);
    Arc::new(Batch { bytes: bytes.into(), events: vec![events], first_ns, last_ns })
}

#[test]
fn two_hundred_generations_at_full_rate_lose_and_double_nothing_and_hand_over_their_state() {
    let house = House::new();
    let (next, stop) = (Arc::default(), Arc::default());
    let mut running = house.start("generation = \"0\"");
    let reader = Reader::start(
        Flood::new(&next, &stop),
        &Kinds::built_in(),
        Arc::new(AgentMetrics::default()),
        Vec::new(),
    )
    .unwrap();
    // Events before this are nobody's.
    let mut member = reader.add(house.subscriber(&running));
    let mut until = next.load(Ordering::Relaxed);
    for generation in 1..=200 {
        let settings = format!("generation = \"{generation}\"");
        if generation % 2 == 0 {
            house.replace(&mut running, &settings);
        } else {
            // As if its rows were others.
            let configured =
                house.court.configure(&house.loaded, &settings, &House::limits()).unwrap();
            let heir = running.prepare(configured, false).unwrap();
            let queue = Arc::clone(heir.queue().unwrap());
            member = reader.replace(member, Subscriber { queue, ..house.subscriber(&running) });
            running.replace(heir);
        }
        assert_eq!(running.generation().number(), generation + 1);
        until += 500;
        eventually("more events", || next.load(Ordering::Relaxed) > until);
    }
    stop.store(true, Ordering::Relaxed);
    reader.remove(member);
    reader.stop();
    assert!(running.stop(court::PATIENCE));

    let produced = next.load(Ordering::Relaxed);
    let (events, lost) = (house.court.count("events", None), house.court.count("lost", None));
    // The first policy may have come after the first events, of which none is missing in between.
    let before = produced - events - lost;
    assert!(events + lost > 100_000, "{events} events and {lost} lost are no full rate");
    if lost == 0 {
        let sum = |n: u64| n * n.saturating_sub(1) / 2;
        assert_eq!(house.court.count("sum", None), sum(produced) - sum(before));
    }
    assert_eq!(house.held(), events, "the state of all generations");
    assert_eq!((house.transitions("replaced"), house.transitions("running")), (200, 201));
    assert_eq!(running.numbers().traps, 0);
}

/// Replaces a generation with these settings by one with those. How much the second one holds when
/// it has seen another event.
fn held_after(old: &str, new: &str) -> (House, u64) {
    let house = House::new();
    let mut running = house.start(&format!("generation = \"old\"\nupon = {old:?}"));
    running.queue().push(&opens(0..7));
    eventually("the events", || house.court.count("events", None) == 7);
    house.replace(&mut running, &format!("generation = \"new\"\nupon = {new:?}"));
    eventually("the new generation", || house.transitions("running") == 2);
    running.queue().push(&opens(7..8));
    assert!(running.stop(court::PATIENCE));
    assert_eq!(house.court.count("events", Some(("generation", "old"))), 7);
    assert_eq!(house.court.count("events", Some(("generation", "new"))), 1);
    assert_eq!(house.court.count("lost", None), 0);
    let held = house.held();
    (house, held)
}

#[test]
fn state_is_handed_over() {
    let (_house, held) = held_after("", "");
    assert_eq!(held, 8);
}

#[test]
fn a_generation_that_gets_no_state_starts_empty_and_loses_no_event() {
    for (old, new) in [
        ("panic in save", ""),
        ("loop in save", ""),
        ("save too much", ""),
        ("", "panic in restore"),
        ("", "refuse"),
    ] {
        let (house, held) = held_after(old, new);
        assert_eq!(held, 1, "after {old:?} and {new:?}");
        assert_eq!(house.transitions("replaced"), 1);
    }
}

#[test]
fn a_generation_whose_metrics_are_taken_is_refused_and_the_old_one_goes_on() {
    let house = House::new();
    let mut running = house.start("generation = \"old\"");
    let other = house.court.outcome.metrics.begin("other", 10);
    // Made by another policy after the new generation was configured: the last moment.
    let settings = "generation = \"new\"\nupon = \"gauge taken\"";
    let configured = house.court.configure(&house.loaded, settings, &House::limits()).unwrap();
    other.counter("taken", &[]).unwrap();
    let taken = other.reserve().unwrap();
    let error = running.prepare(configured, true).err().expect("refused");
    assert!(error.to_string().contains("policy `other` uses the name"), "{error}");
    running.queue().push(&opens(0..3));
    eventually("the events", || house.court.count("events", Some(("generation", "old"))) == 3);
    assert_eq!((running.generation().number(), running.life()), (1, Life::Running));
    // And the other way round: what is reserved is not taken by others.
    drop(taken);
    let configured = house.court.configure(&house.loaded, settings, &House::limits()).unwrap();
    let next = running.prepare(configured, true).unwrap();
    assert!(other.counter("taken", &[]).is_ok(), "its own names are its own");
    assert!(other.reserve().is_err());
    running.replace(next);
    assert!(running.stop(court::PATIENCE));
}

#[test]
fn a_slow_generation_is_replaced_without_a_loss() {
    let house = House::new();
    let mut running = house.start("generation = \"old\"");
    // More than one queue holds: half waits for the old one, half for the new one.
    let (batches, size) = (3000, 200);
    let push = |running: &Running, range: std::ops::Range<u64>| {
        for n in range {
            running.queue().push(&opens(n * size..(n + 1) * size));
        }
    };
    let one = opens(0..size).bytes.len() as u64;
    let half = (House::limits().queue as u64 / one).min(batches);
    push(&running, 0..half);
    let configured =
        house.court.configure(&house.loaded, "generation = \"new\"", &House::limits()).unwrap();
    let next = running.prepare(configured, false).unwrap();
    running.replace(next);
    push(&running, half..2 * half);
    assert!(running.stop(court::PATIENCE));
    assert_eq!(running.numbers().traps, 0);
    assert_eq!(house.court.count("events", Some(("generation", "old"))), half * size);
    assert_eq!(house.court.count("events", Some(("generation", "new"))), half * size);
    assert_eq!((house.court.count("lost", None), house.held()), (0, 2 * half * size));
}

#[test]
fn what_a_quarantined_generation_lost_is_told_to_the_next() {
    let house = House::new();
    let mut running = house.start("upon = \"panic\"");
    for n in 0..10 {
        running.queue().push(&opens(n * 10..n * 10 + 10));
    }
    eventually("quarantine", || running.life() == Life::Quarantined && running.queue().is_empty());
    assert_eq!(house.transitions("quarantined"), 1);
    assert_eq!(house.transitions("restarting"), 4);
    house.replace(&mut running, "");
    running.queue().push(&opens(100..103));
    assert!(running.stop(court::PATIENCE));
    assert_eq!(house.court.count("lost", None), 100);
    assert_eq!(house.court.count("events", None), 3);
}

#[test]
fn each_limit_that_is_reached_is_counted_by_its_key() {
    let house = House::new();
    let reached = |key: &str| {
        let labels = LimitLabels { policy: "heir".into(), limit: key.into() };
        house.court.outcome.counts.limits_reached.get_or_create_owned(&labels).get()
    };
    let refused = |limits: Limits| {
        house.court.configure(&house.loaded, "", &limits).err().expect("refused").to_string()
    };
    let error = refused(Limits { file: 1000, ..House::limits() });
    assert!(error.contains("bytes, its limit is 1000; if it may have more, write"), "{error}");
    assert!(error.contains("[policy.heir.limits]\n    file = "), "{error}");
    let error = refused(Limits { subscriptions: 0, ..House::limits() });
    assert!(error.ends_with("[policy.heir.limits]\n    subscriptions = 1"), "{error}");
    assert_eq!((reached("file"), reached("subscriptions")), (1, 1));

    // A batch that is too large is lost and told; so is what one more call than is allowed costs.
    let limits = Limits { batch: 1000, queue: 1 << 20, ..House::limits() };
    let configured = house.court.configure(&house.loaded, "", &limits).unwrap();
    let running = house.court.pool.start(configured).unwrap();
    running.queue().push(&opens(0..100));
    running.queue().push(&opens(100..110));
    assert!(running.stop(court::PATIENCE));
    assert_eq!(reached("batch"), 1);
    assert_eq!(house.court.count("events", None), 10);
    assert_eq!(house.court.count("lost", None), 100);
}

#[test]
fn a_hand_over_that_reaches_a_limit_is_counted() {
    for (old, key) in [("loop in save", "cpu_per_call"), ("save too much", "state")] {
        let (house, _) = held_after(old, "");
        let labels = LimitLabels { policy: "heir".into(), limit: key.into() };
        let reached = house.court.outcome.counts.limits_reached.get_or_create_owned(&labels);
        assert_eq!(reached.get(), 1, "{old}");
    }
}

#[test]
fn what_a_policy_keeps_survives_a_lost_instance_and_a_replaced_generation() {
    let house = House::new();
    let mut running = house.start("upon = \"keep\"");
    running.queue().push(&opens(0..4));
    // The instance is lost with the sixth, but has kept it.
    running.queue().push(&opens(4..9));
    running.queue().push(&opens(20..30));
    eventually("another instance", || house.court.count("events", None) == 4 + 10);
    house.replace(&mut running, "generation = \"new\"\nupon = \"keep\"");
    eventually("the new generation", || house.transitions("replaced") == 1);
    running.queue().push(&opens(30..37));
    assert!(running.stop(court::PATIENCE));
    assert_eq!(house.gauge("kept"), 4 + 2 + 10 + 7);
    let labels = PolicyLabels { policy: "heir".into() };
    let bytes = || house.court.outcome.counts.state.get_or_create_owned(&labels).get();
    assert_eq!(bytes(), 128 + 6 + 8, "one entry");
    house.court.outcome.forget("heir");
    assert_eq!(bytes(), 0);
}
