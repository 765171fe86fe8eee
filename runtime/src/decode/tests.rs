use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    batch::rows,
    outcome::AgentMetrics,
    plan::bind_to_decode,
    queue::Queue,
    reader::{Reader, Subscriber},
    source::Jsonl,
};

/// What these lines look like after a way through the reader.
fn through(lines: &str, print: impl Fn(&Decoded<'_>, &mut String)) -> String {
    let kinds = Kinds::built_in();
    let fields =
        |kind: &Kind| kind.fields.iter().map(|field| field.name.to_string()).collect::<Vec<_>>();
    let asked: Vec<Subscription> = kinds
        .iter()
        .map(|kind| subscription(kind, fields(kind).iter().map(String::as_str)))
        .collect();
    let plan = Arc::new(bind_to_decode("test", &asked, &kinds).unwrap());
    let decoder = Decoder::new(&plan, &kinds);
    let source = Jsonl::parse("test", lines, &kinds).unwrap();
    let queue = Arc::new(Queue::new(usize::MAX, || {}));
    let subscriber = Subscriber { plan, queue: Arc::clone(&queue), latency: Duration::ZERO };
    let reader =
        Reader::start(source, &kinds, Arc::new(AgentMetrics::default()), vec![subscriber]).unwrap();
    assert!(reader.wait_for_end(Duration::from_secs(30)));
    reader.stop();
    let mut out = String::new();
    while let Some(delivery) = queue.pop() {
        for row in rows(&delivery.batch.bytes) {
            print(&decoder.decode(&delivery.batch.bytes, row).unwrap(), &mut out);
        }
    }
    out
}

fn to_json(lines: &str) -> String {
    through(lines, |decoded, line| decoded.write_json(line, Some(1_700_000_000_000_000_000)))
}

fn to_text(lines: &str) -> String {
    through(lines, |decoded, line| decoded.write_text(line, false, Some(1_700_000_000_000_000_000)))
}

const EVENTS: &str = concat!(
    r#"{"kind":"fork","time":"2026-01-31T03:00:00.000000001Z","time_ns":1000,"pid":1,"tid":1,"ns_pid":1,"comm":"init","uid":0,"cgroup":1,"cgroup_v1":0,"child_start":18446744073709551615,"child_pid":7,"child_ns_pid":7,"cgroup.path":"/a"}"#,
    "\n",
    r#"{"kind":"exec","time_ns":2000,"pid":7,"tid":8,"ns_pid":7,"comm":"a\u001b[31m","uid":5,"cgroup":1,"cgroup_v1":0,"path":"/t�st","path_hex":"2f74ff7374","args":["x","","a\nb"],"file_state":"memfd","user.name":"me","cut":["path"]}"#,
    "\n",
    r#"{"kind":"gap","time":"2023-11-14T22:13:20.000002500Z","time_ns":2500,"event":"exec","lost":3,"first_ns":2500,"last_ns":2502600,"cause":"ring_full"}"#,
    "\n",
    r#"{"kind":"connect","time_ns":3000,"pid":7,"tid":7,"ns_pid":7,"comm":"curl","uid":5,"cgroup":1,"cgroup_v1":0,"latency":1234567,"address":"10.0.0.1","local_address":"fe80::1","result":-115,"port":443,"family":"inet","outcome":"refused"}"#,
    "\n",
    r#"{"kind":"exit","time_ns":4000,"pid":7,"tid":7,"ns_pid":7,"comm":"curl","uid":5,"cgroup":1,"cgroup_v1":0,"code":0,"signal":9}"#,
    "\n",
);

#[test]
fn json_is_read_back_exactly() {
    let printed = to_json(EVENTS);
    assert_eq!(to_json(&printed), printed);
    // What the file did not say, the process table knew.
    let lines: Vec<_> = printed.lines().zip(EVENTS.lines()).collect();
    for (index, (printed, given)) in lines.into_iter().enumerate() {
        let printed: serde_json::Value = serde_json::from_str(printed).unwrap();
        let given: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(given).unwrap();
        for (key, value) in &given {
            assert_eq!(&printed[key], value, "{key} of line {index}");
        }
    }
}

#[test]
fn a_line_for_eyes_is_one_line_whatever_is_in_it() {
    let text = to_text(EVENTS);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(!text.contains('\x1b'));
    assert_eq!(
        lines[1],
        "+0.000002000 exec      a\\x1b[31m[7/8] path=/t\\xffst… args=[x \"\" a\\nb] file_state=memfd \
         proc.exe=/t\\xffst proc.args=[x \"\" a\\nb] user.name=me ns_pid=7 uid=5 cgroup=1 cgroup_v1=0"
    );
    assert_eq!(
        lines[2],
        "2023-11-14T22:13:20.000002Z gap       3 exec events lost within 2.500ms: ring_full"
    );
    assert!(lines[3].contains("latency=1.234ms address=10.0.0.1 local_address=fe80::1 result=-115 (Operation now in progress) port=443"));
    assert!(lines[4].contains("code=0 signal=9 (SIGKILL)"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_survive_json(
        path in prop::collection::vec(any::<u8>(), 0..30),
        args in prop::collection::vec(prop::collection::vec(1..=255u8, 0..10), 0..5),
        cut: bool,
        time: u64,
    ) {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
        };
        let args: Vec<String> = args.iter().map(|arg| hex(arg)).collect();
        let line = serde_json::json!({
            "kind": "exec",
            "time_ns": time,
            "path_hex": hex(&path),
            "args_hex": args,
            "cut": if cut { vec!["path", "args"] } else { vec![] },
        });
        let printed = to_json(&line.to_string());
        prop_assert_eq!(&to_json(&printed), &printed);
        let object: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let exact = |name: &str| object.get(format!("{name}_hex")).unwrap_or(&object[name]).clone();
        if std::str::from_utf8(&path).is_ok() {
            prop_assert_eq!(exact("path"), std::str::from_utf8(&path).unwrap());
        } else {
            prop_assert_eq!(exact("path"), hex(&path));
        }
        prop_assert_eq!(object["time_ns"].as_u64(), Some(time));
    }
}
