//! The reader allocates nothing for an event, only for a batch, and for fork, exec and exit.

use std::{alloc::System, sync::Arc};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tipstaff_runtime::{
    feed::{Member, MemberId},
    intake::Intake,
    kind::Kinds,
    manifest::{Ask, AskType, Subscription},
    plan::{Plan, bind},
    predicate::Predicate,
    queue::Queue,
    resolver::{Answer, CgroupId},
    source::{Item, encode::Encoder},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Two subscriptions: one with every way in which a field gets into a row, one of plain numbers.
fn plan(kinds: &Kinds) -> Plan {
    let ask = |name: &str, ty| Ask { name: name.into(), ty, optional: true };
    let open = [
        ("pid", AskType::U32),
        ("result", AskType::I64),
        ("flags", AskType::U16),
        ("path", AskType::Text),
        ("path_given", AskType::Bytes),
        ("comm", AskType::Text),
        ("via", AskType::Text),
        ("wall_time", AskType::U64),
        ("proc.exe", AskType::Text),
        ("proc.args", AskType::Bytes),
        ("proc.ancestors", AskType::Text),
        ("cgroup.path", AskType::Text),
        ("container.id", AskType::Text),
        ("user.name", AskType::Text),
    ];
    let connect = [
        ("pid", AskType::U32),
        ("tid", AskType::U32),
        ("port", AskType::U16),
        ("latency", AskType::U64),
    ];
    let subscription = |event: &str, fields: &[(&str, AskType)]| {
        Subscription::new(event, fields.iter().map(|(name, ty)| ask(name, *ty)).collect())
    };
    let mut plan =
        bind("test", &[subscription("open", &open), subscription("connect", &connect)], kinds, &[])
            .unwrap();
    plan.filter(
        0,
        Predicate::parse("path ^= / and proc.exe ~ sh", kinds.named("open").unwrap()).unwrap(),
    );
    plan
}

fn record(kinds: &Kinds, kind: &str, numbers: &[(&str, i128)], texts: &[(&str, &[u8])]) -> Vec<u8> {
    let kind = kinds.named(kind).unwrap();
    let mut encoder = Encoder::new(kind);
    for (name, value) in numbers {
        encoder.number(kind.field(name).unwrap(), *value).unwrap();
    }
    for (name, value) in texts {
        encoder.bytes(kind.field(name).unwrap(), value, false).unwrap();
    }
    encoder.finish()
}

#[test]
fn nothing_is_allocated_for_an_event() {
    let kinds = Kinds::built_in();
    let (requests, _asked) = crossbeam_channel::bounded(16);
    let mut intake = Intake::new(Some(requests));
    let queue = Arc::new(Queue::new(usize::MAX, || {}));
    let member = Member { id: MemberId(0), queue: Arc::clone(&queue) };
    intake.join(&Arc::new(plan(&kinds)), 1_000_000, member, 0, false);

    let fork = record(
        &kinds,
        "fork",
        &[("time", 1), ("pid", 1), ("child_pid", 7), ("child_start", 9)],
        &[],
    );
    let exec = record(
        &kinds,
        "exec",
        &[("time", 2), ("pid", 7), ("start", 9), ("ppid", 1)],
        &[("path", b"/bin/sh"), ("args", b"sh\0-c\0")],
    );
    intake.take(Item::Record(&fork));
    intake.take(Item::Record(&exec));
    intake
        .learn(Answer::Cgroup(CgroupId::V2(5), Some(b"/system.slice/a.service".as_slice().into())));
    intake.learn(Answer::User(0, Some(b"root".as_slice().into())));
    let mut open = record(
        &kinds,
        "open",
        &[("pid", 7), ("cgroup", 5), ("flags", 0x80000), ("result", -2), ("via", 1)],
        &[("path", b"/etc/passwd"), ("path_given", b"passwd"), ("comm", b"sh")],
    );
    let mut invalid =
        record(&kinds, "open", &[("pid", 7), ("cgroup", 6)], &[("path", b"/t\xffst")]);
    let mut unknown = record(&kinds, "open", &[("pid", 8), ("uid", 3)], &[("path", b"/x")]);
    let mut connect = record(&kinds, "connect", &[("pid", 7), ("port", 443), ("latency", 5)], &[]);
    let mut malformed = open[..80].to_vec();

    let mut time = 1000u64;
    let mut rounds = |intake: &mut Intake, rounds: u64| {
        for _ in 0..rounds {
            for record in [&mut open, &mut invalid, &mut unknown, &mut connect] {
                time += 100;
                record[..8].copy_from_slice(&time.to_ne_bytes());
                intake.take(Item::Record(record));
            }
            malformed[..8].copy_from_slice(&time.to_ne_bytes());
            intake.take(Item::Record(&malformed));
        }
        time
    };
    // The tables, and the room of the first batch.
    rounds(&mut intake, 10);

    let region = Region::new(ALLOCATOR);
    // Less than fills the batch.
    rounds(&mut intake, 100);
    let spent = region.change();
    assert_eq!((spent.allocations, spent.reallocations), (0, 0));

    let region = Region::new(ALLOCATOR);
    for _ in 0..100 {
        let newest = rounds(&mut intake, 250);
        intake.deliver(newest - 1);
        while queue.pop().is_some() {}
    }
    let spent = region.change();
    // 75,000 rows: some hundred batches, and for each its room, its counts, and the batch itself.
    assert!(spent.allocations < 2_000, "{} allocations for 100,000 events", spent.allocations);
    assert_eq!(intake.malformed(), 10 + 100 + 25_000);
}
