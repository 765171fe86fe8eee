use super::*;
use crate::{
    enrich::{Lookup, Tables},
    kind::Kinds,
    manifest::{Ask, AskType, Subscription},
    plan::bind,
    source::encode::Encoder,
};

fn plan() -> Plan {
    let ask = |name: &str, ty| Ask { name: name.into(), ty, optional: false };
    let fields = vec![
        ask("path", AskType::Text),
        ask("ppid", AskType::U32),
        ask("path_given", AskType::Bytes),
    ];
    bind("t", &[Subscription::new("exec", fields)], &Kinds::built_in(), &[]).unwrap()
}

fn push(open: &mut Open, plan: &Plan, time: u64, path: &[u8]) {
    let kinds = Kinds::built_in();
    let kind = kinds.named("exec").unwrap();
    let mut encoder = Encoder::new(kind);
    encoder.number(kind.field("time").unwrap(), time.into()).unwrap();
    encoder.number(kind.field("ppid").unwrap(), i128::from(time % 1000)).unwrap();
    encoder.bytes(kind.field("path").unwrap(), path, false).unwrap();
    let bound = plan.bound().next().unwrap();
    let mut tables = Tables::new(None);
    let record = encoder.finish();
    bound.projection.append(&record, &mut Lookup::new(&mut tables, None), open.rows(0)).unwrap();
    open.note(0, time);
}

fn close(open: Open, plan: &Plan) -> Vec<Arc<Batch>> {
    let mut batches = Vec::new();
    open.close(plan, &mut |batch| batches.push(batch));
    batches
}

/// Time, path and ppid of each row.
fn read(batch: &Batch) -> Vec<(u64, String, u32)> {
    rows(&batch.bytes)
        .map(|row| {
            let word = |at: usize| u32::from_le_bytes(*row.bytes[at..].first_chunk().unwrap());
            let (offset, length) = (word(16) as usize, word(20) as usize);
            let path = String::from_utf8(batch.bytes[offset..offset + length].to_vec()).unwrap();
            assert_eq!(
                (word(28), word(32)),
                (0, 0),
                "a text that was not collected points nowhere"
            );
            (row.time(), path, word(24))
        })
        .collect()
}

#[test]
fn rows_that_came_out_of_order_are_sorted_and_keep_their_texts() {
    let plan = plan();
    let mut open = Open::new(1, &Spare::default());
    for (time, path) in [(10, "/a"), (30, "/cc"), (20, "/bbbbbbbbbb"), (40, "")] {
        push(&mut open, &plan, time, path.as_bytes());
    }
    let batches = close(open, &plan);
    assert_eq!(batches.len(), 1);
    let expected = [(10, "/a", 10), (20, "/bbbbbbbbbb", 20), (30, "/cc", 30), (40, "", 40)];
    assert_eq!(read(&batches[0]), expected.map(|(time, path, ppid)| (time, path.to_owned(), ppid)));
    assert_eq!((batches[0].first_ns, batches[0].last_ns, &batches[0].events), (10, 40, &vec![4]));
}

#[test]
fn what_is_too_large_for_one_call_becomes_several_batches() {
    let plan = plan();
    let mut open = Open::new(1, &Spare::default());
    let path = vec![b'x'; 1000];
    for time in 0..1000 {
        push(&mut open, &plan, time, &path);
    }
    let batches = close(open, &plan);
    assert!(batches.iter().all(|batch| batch.bytes.len() <= FULL_BYTES), "each fits");
    assert_eq!(batches.iter().map(|batch| batch.events[0]).sum::<u64>(), 1000);
    let times: Vec<u64> = batches.iter().flat_map(|batch| read(batch)).map(|row| row.0).collect();
    assert_eq!(times, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_small_batch_takes_no_more_memory_than_its_rows() {
    let plan = plan();
    let mut open = Open::new(1, &Spare::default());
    push(&mut open, &plan, 1, b"/a");
    let batches = close(open, &plan);
    assert_eq!(batches[0].bytes.capacity(), batches[0].bytes.len());
}

#[test]
fn a_gap_is_a_row_that_is_no_event() {
    let plan = plan();
    let mut open = Open::new(1, &Spare::default());
    push(&mut open, &plan, 50, b"/a");
    let gap = Gap { subscription: 0, lost: 7, first_ns: 20, last_ns: 60, cause: Cause::MapFull };
    open.push_gap(&gap, 0);
    let batches = close(open, &plan);
    let gaps: Vec<_> = rows(&batches[0].bytes).map(|row| row.gap()).collect();
    assert_eq!(gaps, [Some(gap), None]);
    assert_eq!(batches[0].events, [1]);
    let first = &batches[0].bytes[..40];
    assert_eq!(first[..8], 20u64.to_le_bytes());
    assert_eq!(first[8..16], [0, 0, 0, 0, 5, 0, 0, 0x80]);
    assert_eq!(first[16..24], 7u64.to_le_bytes());
    assert_eq!(first[24..32], 60u64.to_le_bytes());
    assert_eq!(first[32..40], [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(gap_rows(&[gap]), first);
}
