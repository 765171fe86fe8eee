//! A policy that was built before the agent's events changed runs unchanged.

mod court;

use std::{sync::Arc, time::Duration};

use court::{Court, build};
use tipstaff_runtime::{
    kind::{Field, From, Kind, Kinds, Repr},
    outcome::AgentMetrics,
    plan,
    policy::Limits,
    queue::Queue,
    reader::{Reader, Subscriber},
    source::jsonl::Jsonl,
};

const EVENTS: &str = r#"
{"kind":"exec","time_ns":5000000000,"pid":7,"uid":1000,"path":"/bin/true","args":["true","a b"],"ppid":3}
{"kind":"exec","time_ns":5000000001,"pid":8,"uid":0,"path":"/bin/sh","args":["sh"],"ppid":7}
"#;

/// The built-in kinds, but `exec` has a number more in the middle of its record.
fn tomorrow() -> Kinds {
    let today = Kinds::built_in();
    let exec = today.named("exec").unwrap();
    let added = 72;
    let mut fields: Vec<Field> = Vec::new();
    for field in &exec.fields {
        let From::Record { offset, repr } = field.from else { continue };
        // What lies in the header belongs to every kind.
        if offset < 64 {
            continue;
        }
        let offset = if offset < added { offset } else { offset + 8 };
        fields.push(Field { from: From::Record { offset, repr }, ..field.clone() });
    }
    let repr = Repr::Wire(tipstaff_events::Type::U64);
    let from = From::Record { offset: added, repr };
    let new =
        Field { name: "added".into(), from, wanted: 1 << 30, absent: 1 << 30, ..fields[0].clone() };
    fields.insert(1, new);
    Kinds::with(vec![Kind { size: exec.size + 8, fields, ..(**exec).clone() }])
}

#[test]
fn a_field_in_the_middle_of_exec_changes_no_byte_of_a_policys_rows() {
    let court = Court::new();
    let loaded = court.compiler.load(&build("fixture")).unwrap();
    let subscriptions = &loaded.manifest.subscriptions;
    let rows = |kinds: &Kinds| {
        let source = Jsonl::parse("events", EVENTS, kinds).unwrap();
        let plan = Arc::new(plan::bind("fixture", subscriptions, kinds, &[]).unwrap());
        let queue = Arc::new(Queue::new(usize::MAX, || {}));
        let subscriber =
            Subscriber { plan, queue: Arc::clone(&queue), latency: Duration::from_millis(1) };
        let reader =
            Reader::start(source, kinds, Arc::new(AgentMetrics::default()), vec![subscriber])
                .unwrap();
        assert!(reader.wait_for_end(court::PATIENCE));
        reader.stop();
        std::iter::from_fn(|| queue.pop()).map(|delivery| delivery.batch).collect::<Vec<_>>()
    };
    let (today, tomorrow) = (rows(&Kinds::built_in()), rows(&tomorrow()));
    let bytes = |batches: &[Arc<tipstaff_runtime::queue::Batch>]| -> Vec<u8> {
        batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect()
    };
    assert_eq!(today.iter().map(|batch| batch.events[0]).sum::<u64>(), 2);
    assert_eq!(bytes(&today), bytes(&tomorrow));

    let policy =
        court.pool.start(court.configure(&loaded, "", &Limits::default()).unwrap()).unwrap();
    for batch in &tomorrow {
        policy.queue().push(batch);
    }
    assert!(policy.stop(court::PATIENCE));
    assert_eq!(court.count("rows", Some(("path", "/bin/true"))), 1);
    assert_eq!(court.count("rows", Some(("path", "/bin/sh"))), 1);
}
