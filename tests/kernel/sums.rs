//! An agent without policies that adds up, and what its subscribers get.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tipstaff_events::aggregate::BUCKETS;
use tipstaff_runtime::{
    batch::rows,
    decode::{Decoded, Decoder, Event, Value, subscription},
    feed::MemberId,
    kind::Kinds,
    outcome::AgentMetrics,
    plan::{self, Plan, bind_to_decode},
    probe::{Probes, RingSizes},
    queue::{Cause, Queue},
    reader::{Reader, Subscriber},
    source::Rings,
};

use crate::kernel::{self, Load};

/// Short, so that a test has many ticks.
pub const EVERY: Duration = Duration::from_millis(100);

/// An agent without policies.
pub struct Agent {
    pub probes: Probes,
    pub reader: Reader,
    pub kinds: Kinds,
    kind: &'static str,
}

/// What one of its subscribers gets.
pub struct Member {
    pub id: MemberId,
    pub queue: Arc<Queue>,
    pub plan: Arc<Plan>,
}

/// The fields of each row, as text.
#[derive(Debug, Default)]
pub struct Rows(pub Vec<BTreeMap<String, String>>);

impl Rows {
    /// Those with these values.
    pub fn with(&self, values: &[(&str, &str)]) -> impl Iterator<Item = &BTreeMap<String, String>> {
        self.0.iter().filter(move |row| {
            values.iter().all(|(key, value)| row.get(*key).is_some_and(|v| v == value))
        })
    }

    /// The sum of a field of all rows with these values.
    pub fn sum(&self, field: &str, values: &[(&str, &str)]) -> u64 {
        self.with(values).filter_map(|row| row.get(field)?.parse::<u64>().ok()).sum()
    }

    /// The sums of a histogram's numbers.
    pub fn histogram(&self, field: &str, values: &[(&str, &str)]) -> [u64; BUCKETS] {
        let mut sums = [0; BUCKETS];
        for row in self.with(values).filter_map(|row| row.get(field)) {
            let numbers = row.trim_matches(['[', ']']).split(", ");
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum += number.parse::<u64>().unwrap();
            }
        }
        sums
    }

    /// The sum of their calls.
    pub fn count(&self, values: &[(&str, &str)]) -> u64 {
        self.sum("count", values)
    }
}

impl Agent {
    /// Of this kind.
    pub fn start(kind: &'static str) -> Self {
        let probes = Probes::open(RingSizes::default()).unwrap();
        let kinds = Kinds::built_in();
        let metrics = Arc::new(AgentMetrics::default());
        let reader =
            Reader::start(Rings::new(&probes).unwrap(), &kinds, metrics, Vec::new()).unwrap();
        Self { probes, reader, kinds, kind }
    }

    pub fn plan(&self, fields: &[&str]) -> Arc<Plan> {
        let kind = self.kinds.named(self.kind).unwrap();
        let mut asked = subscription(kind, fields.iter().copied());
        asked.every_ns = Some(u64::try_from(EVERY.as_nanos()).unwrap());
        Arc::new(bind_to_decode("test", &[asked], &self.kinds).unwrap())
    }

    /// Makes the probes deliver what these plans want.
    pub fn want(&mut self, plans: &[&Arc<Plan>]) {
        let union = plan::union(plans.iter().map(|plan| &***plan));
        kernel::assert_seen(&self.probes.apply(&union).unwrap());
    }

    pub fn join(&self, plan: Arc<Plan>) -> Member {
        let queue = Arc::new(Queue::new(usize::MAX, || {}));
        let latency = Duration::from_millis(1);
        self.probes.aggregates().read_now();
        let id = self.reader.add(Subscriber {
            plan: Arc::clone(&plan),
            queue: Arc::clone(&queue),
            latency,
        });
        Member { id, queue, plan }
    }

    pub fn leave(&self, member: &Member) -> (Rows, u64) {
        self.probes.aggregates().read_now();
        self.reader.remove(member.id);
        member.rows(&self.kinds)
    }

    /// Detaches all, and hands out what this one got, with the number of calls that were lost.
    pub fn end(self, member: &Member) -> (Rows, u64) {
        drop(self.probes);
        self.reader.stop();
        member.rows(&self.kinds)
    }

    /// Wants nothing any more, and expects that none of these programs and maps is left in the kernel, and
    /// of our descriptors those that were there before.
    pub fn leave_nothing(
        mut self,
        before: &[String],
        programs: &BTreeSet<u32>,
        maps: &BTreeSet<u32>,
    ) {
        self.want(&[]);
        assert!(kernel::program_ids().is_empty());
        assert_eq!(kernel::bpf_descriptors(), before);
        drop(self.probes);
        self.reader.stop();
        kernel::assert_gone(programs, maps);
    }
}

impl Member {
    /// All rows so far, and the number of calls that were lost.
    pub fn rows(&self, kinds: &Kinds) -> (Rows, u64) {
        let decoder = Decoder::new(&self.plan, kinds);
        let (mut found, mut lost) = (Rows::default(), 0);
        while let Some(delivery) = self.queue.pop() {
            for row in rows(&delivery.batch.bytes) {
                match decoder.decode(&delivery.batch.bytes, row).unwrap() {
                    Decoded::Event(event) => found.0.push(texts(&event)),
                    Decoded::Gap(_, gap) => {
                        assert_eq!(gap.cause, Cause::MapFull);
                        lost += gap.lost;
                    }
                }
            }
        }
        (found, lost)
    }
}

fn texts(event: &Event<'_>) -> BTreeMap<String, String> {
    let text = |value: &Value<'_>| match value {
        Value::Unsigned(number) => number.to_string(),
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Name(name) => (*name).to_owned(),
        Value::Histogram(buckets) => format!("{buckets:?}"),
        other => panic!("{other:?}"),
    };
    event.fields.iter().map(|said| (said.name.to_owned(), text(&said.value))).collect()
}

/// Name of the program that makes calls: another run of these tests has another one.
pub fn name() -> String {
    format!("calls-{}", std::process::id())
}

/// `calls.c`, compiled.
pub fn calls() -> &'static Path {
    static PROGRAM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &PROGRAM.get_or_init(|| kernel::here::compiled("calls", &name())).1
}

/// Runs `calls` with these arguments to its end; its pid.
pub fn run_calls(arguments: &[&str]) -> String {
    let mut child = Command::new(calls()).args(arguments).spawn().unwrap();
    let pid = child.id().to_string();
    assert!(child.wait().unwrap().success());
    pid
}

/// Programs that live for some milliseconds, all the time.
pub fn short_lives() -> Load {
    let script = "while :; do /bin/true; /bin/true | /bin/cat; done";
    Load::start(Command::new("/bin/sh").args(["-c", script]))
}

/// Runs a whole agent with a shipped policy and these lines of its section while something is done. The
/// lines that it says, with the metrics at the end.
pub fn run_policy(name: &str, section: &str, work: impl FnOnce()) -> Vec<serde_json::Value> {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = place.path().join("t.toml");
    // Time enough also for an emulated processor.
    let text = format!(
        "agent.cache_dir = \"cache\"\n[policy.{name}]\nlimits.cpu_per_call = \"10s\"\n\
         limits.cpu_percent = 100\nlimits.start_up = \"10s\"\n{section}"
    );
    fs::write(&config, text).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_tipstaff"))
        .args(["run", "--format", "json", "--metrics", "off", "--config"])
        .arg(config)
        .args(["--name", &format!("{name}-{}", std::process::id()), "--policy"])
        .arg(kernel::shipped::shipped(name))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("ready")));
    work();
    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    let mut said = String::new();
    agent.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    drop(log);
    assert!(agent.wait().unwrap().success());
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The sum of the values of a metric's series with these labels.
pub fn value(said: &[serde_json::Value], metric: &str, labels: &[(&str, &str)]) -> u64 {
    said.iter()
        .filter(|line| line["name"] == metric)
        .filter(|line| labels.iter().all(|(label, value)| line["labels"][label] == *value))
        .map(|line| line["value"].as_u64().unwrap())
        .sum()
}
