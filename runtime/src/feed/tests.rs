use std::mem::offset_of;

use tipstaff_events::{
    sample::{By, Sample},
    wire::Header,
};

use super::*;
use crate::{
    batch::rows,
    enrich::Tables,
    kind::Kinds,
    manifest::{Ask, AskType, Subscription},
    plan::bind,
    project::FLAG_LATE,
    source::encode::Encoder,
};

const LATENCY: u64 = 1_000;

struct Bench {
    feed: Feed,
    tables: Tables,
    queue: Arc<Queue>,
}

fn member(id: u64) -> (Member, Arc<Queue>) {
    let queue = Arc::new(Queue::new(usize::MAX, || {}));
    (Member { id: MemberId(id), queue: Arc::clone(&queue) }, queue)
}

fn subscription() -> Subscription {
    Subscription::new("exit", Vec::new())
}

impl Bench {
    fn new(cut: u64, replaces: bool) -> Self {
        Self::with(false, cut, replaces)
    }

    fn with(urgent: bool, cut: u64, replaces: bool) -> Self {
        Self::of(Subscription { urgent, ..subscription() }, cut, replaces)
    }

    fn of(subscription: Subscription, cut: u64, replaces: bool) -> Self {
        let plan = Arc::new(bind("t", &[subscription], &Kinds::built_in(), &[]).unwrap());
        let (member, queue) = member(0);
        Self {
            feed: Feed::new(plan, LATENCY, member, cut, replaces, &Spare::default()),
            tables: Tables::new(None),
            queue,
        }
    }

    fn append(&mut self, time: u64, now: u64) {
        self.append_thinned(Sample::ALL, time, now);
    }

    /// Appends an event of a kind that the kernel has thinned.
    fn append_thinned(&mut self, sample: Sample, time: u64, now: u64) {
        let kinds = Kinds::built_in();
        let kind = kinds.named("exit").unwrap();
        let mut encoder = Encoder::new(kind);
        encoder.number(kind.field("time").unwrap(), time.into()).unwrap();
        let mut lookup = Lookup::new(&mut self.tables, None);
        let plan = Arc::clone(&self.feed.plan);
        let bound = plan.bound().next().unwrap();
        let mut record = encoder.finish();
        record[offset_of!(Header, sample)..][..2].copy_from_slice(&sample.number().to_ne_bytes());
        self.feed.append(bound, &record, time, &mut lookup, now).unwrap();
    }

    /// Times of the rows that were delivered, by batch; late ones negative.
    fn delivered(&self) -> Vec<Vec<i64>> {
        times(&self.queue)
    }
}

fn times(queue: &Queue) -> Vec<Vec<i64>> {
    std::iter::from_fn(|| queue.pop())
        .map(|delivery| {
            rows(&delivery.batch.bytes)
                .map(|row| {
                    let time = row.time().cast_signed();
                    if row.flags() & FLAG_LATE == 0 { time } else { -time }
                })
                .collect()
        })
        .collect()
}

#[test]
fn a_batch_waits_for_its_latency_and_then_for_the_watermark() {
    let mut bench = Bench::new(0, false);
    bench.append(10, 100);
    bench.feed.seal_if_due(100 + LATENCY - 1);
    assert_eq!(bench.feed.due(), Some(100 + LATENCY));
    bench.feed.seal_if_due(100 + LATENCY);
    assert_eq!(bench.feed.deliver(9), 0);
    assert_eq!(bench.feed.due(), Some(0));
    assert_eq!(bench.feed.deliver(10), 1);
    assert_eq!((bench.delivered(), bench.feed.due()), (vec![vec![10]], None));
}

#[test]
fn what_is_urgent_waits_for_nothing_but_a_cut() {
    let mut bench = Bench::with(true, 0, false);
    bench.append(10, 100);
    assert_eq!(bench.feed.deliver(0), 1);
    bench.append(9, 100);
    bench.append(11, 100);
    assert_eq!(bench.feed.deliver(0), 1);
    assert_eq!((bench.delivered(), bench.feed.due()), (vec![vec![10], vec![-9, 11]], None));

    // Who leaves gets what happened up to the cut, although it comes late.
    bench.append(20, 100);
    bench.feed.leave(MemberId(0), 25, crossbeam_channel::bounded(0).0);
    let (second, queue) = member(1);
    bench.feed.join(second, 25);
    bench.append(30, 100);
    assert_eq!(bench.feed.deliver(0), 0);
    bench.append(21, 100);
    assert_eq!(bench.feed.deliver(25), 2);
    assert_eq!((bench.delivered(), times(&queue)), (vec![vec![20, 21]], vec![vec![30]]));
}

#[test]
fn a_row_of_a_sample_says_how_many_events_it_stands_for() {
    let weight = Ask { name: "weight".into(), ty: AskType::U32, optional: false };
    let sample = Sample::new(20, By::Event);
    let asked = Subscription { fields: vec![weight], sample, ..subscription() };
    // Whatever part of it the kernel has done.
    for (kernel, expected) in
        [(1, vec![20; 10]), (4, vec![20; 40]), (20, vec![20; 200]), (40, vec![40; 200])]
    {
        let mut bench = Bench::of(asked.clone(), 0, false);
        for time in 1..=200 {
            bench.append_thinned(Sample::new(kernel, By::Event), time, 0);
        }
        bench.feed.flush();
        let batches: Vec<_> = std::iter::from_fn(|| bench.queue.pop()).collect();
        let weights: Vec<u32> = batches
            .iter()
            .flat_map(|delivery| rows(&delivery.batch.bytes))
            .map(|row| u32::from_le_bytes(row.bytes[16..20].try_into().unwrap()))
            .collect();
        assert_eq!(weights, expected, "the kernel took 1 in {kernel}");
    }
}

#[test]
fn an_event_behind_its_time_finds_its_place_until_the_watermark_has_passed() {
    let mut bench = Bench::new(0, false);
    bench.append(10, 0);
    bench.append(30, 0);
    bench.feed.seal_if_due(LATENCY);
    bench.append(40, LATENCY);
    bench.append(20, LATENCY);
    bench.feed.deliver(30);
    assert_eq!(bench.delivered(), [[10, 20, 30]]);
    bench.append(25, LATENCY);
    assert_eq!(bench.feed.late(), 1);
    bench.feed.flush();
    assert_eq!(bench.delivered(), [[-25, 40]]);
}

#[test]
fn who_joins_or_leaves_gets_the_events_on_its_side_of_the_cut() {
    let mut bench = Bench::new(0, false);
    bench.append(10, 0);
    let (second, queue) = member(1);
    bench.feed.join(second, 15);
    bench.append(20, 0);
    // It happened before the cut, and comes after it.
    bench.append(12, 0);
    let (done, wait) = crossbeam_channel::bounded(0);
    bench.feed.leave(MemberId(0), 25, done);
    bench.append(24, 0);
    bench.append(30, 0);
    assert!(wait.try_recv().is_err_and(|error| error.is_empty()));
    bench.feed.deliver(25);
    assert!(wait.try_recv().is_err_and(|error| error.is_disconnected()), "it has all that it gets");
    bench.feed.flush();
    assert_eq!(bench.delivered(), [vec![10, 12], vec![20, 24]]);
    assert_eq!(times(&queue), [vec![20, 24], vec![30]]);
}

#[test]
fn who_replaces_another_leaves_it_the_events_before_the_cut_and_inherits_late_ones() {
    let mut bench = Bench::new(50, true);
    bench.append(49, 0);
    bench.append(51, 0);
    bench.feed.deliver(50);
    bench.append(48, 0);
    bench.feed.flush();
    assert_eq!(bench.delivered(), [[-48, 51]]);

    let mut bench = Bench::new(50, false);
    bench.feed.deliver(50);
    bench.append(48, 0);
    bench.append(51, 0);
    bench.feed.flush();
    assert_eq!(bench.delivered(), [[51]], "nobody is replaced: what was before is not asked for");
}

#[test]
fn a_feed_without_members_is_over_when_all_is_delivered() {
    let mut bench = Bench::new(0, false);
    bench.append(10, 0);
    bench.feed.leave(MemberId(0), 10, crossbeam_channel::bounded(0).0);
    bench.append(11, 0);
    assert!(!bench.feed.is_over());
    bench.feed.deliver(10);
    assert!(bench.feed.is_over());
    assert_eq!(bench.delivered(), [[10]]);
}
