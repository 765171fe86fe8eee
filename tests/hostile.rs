//! Files and guests that break the rules: each gives one clear error, and nothing else stops.

mod court;
#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use court::{
    Court, build,
    guest::{bomb, guest, guest_with, hostile, larger},
    root,
};
use support::{
    agent::{Agent, check_tally, steady_load},
    can_probe, fixture, scrape, series, until,
};
use tipstaff_runtime::{
    config::{Config, Flags},
    guard::{Grant, Mode},
    policy::{Reason, Refusal},
};

/// What becomes of a hostile policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It does not load.
    Refused,
    /// It loses one instance after the other, each for this reason.
    Quarantined,
    /// It loses an instance now and then, and goes on with the next.
    Restarted,
    /// It runs on, and this limit is counted.
    Limited,
    /// It runs on, and the log says this once.
    Noted,
    /// It runs on, and so does the generation that takes its place; the state is lost, for this reason.
    Replaced,
}
use Then::{Limited, Noted, Quarantined, Refused, Replaced, Restarted};

/// The policies in `tests/hostile`, what becomes of each, and what the agent says about it: a part of
/// the message in its log or, for `Limited`, a metric and a label.
const CORPUS: &[(&str, Then, &str)] = &[
    ("asks-for-a-guard", Refused, "which is not granted; to grant it, write"),
    ("asks-for-what-is-not-there", Refused, "has no field `path_givn`"),
    ("configures-with-a-case-that-is-none", Refused, "`configure` failed: "),
    ("describes-4-gib", Refused, "`describe` failed: "),
    ("describes-misaligned", Refused, "`describe` failed: "),
    ("describes-no-utf8", Refused, "`describe` failed: "),
    ("describes-out-of-bounds", Refused, "`describe` failed: "),
    ("describes-out-of-memory", Refused, "`describe` failed: "),
    ("floods-alerts", Limited, "tipstaff_alerts_limited_total"),
    ("floods-its-state", Limited, "tipstaff_limits_reached_total state"),
    ("floods-metrics", Limited, "tipstaff_limits_reached_total series"),
    ("floods-the-log", Limited, "tipstaff_log_lines_limited_total"),
    ("grows-a-table", Quarantined, "table elements, its limit is 100000 (`table_elements`)"),
    ("grows-memory", Quarantined, "bytes of memory, its limit is 67108864 (`memory`)"),
    ("has-a-huge-memory", Refused, "needs 4294967296 bytes of memory, its limit is 67108864"),
    ("has-a-setting-of-another-type", Refused, "which is not of its type `integer`"),
    ("has-another-manifest-in-its-section", Noted, "is not the one that the policy tells"),
    ("is-named-like-a-path", Refused, "name \"../../etc/cron.d/x\" is not a policy's name"),
    ("is-named-with-a-newline", Refused, "name \"good\\nERROR\" is not a policy's name"),
    ("is-named-with-control-characters", Refused, "is not a policy's name"),
    ("labels-of-half-a-megabyte", Noted, "running"),
    ("labels-of-two-megabytes", Quarantined, "it reached its limit (`host_call`)"),
    ("leaks-handles", Quarantined, "it reached its limit (`handles`)"),
    ("loops-in-configure", Refused, "`configure` failed: it ran for "),
    ("loops-in-describe", Refused, "`describe` failed: it ran for "),
    ("loops-in-on-batch", Quarantined, "`on-batch` failed: it ran for "),
    ("loops-in-on-tick", Quarantined, "`on-tick` failed: it ran for "),
    ("loops-in-realloc", Quarantined, "`on-batch` failed: it ran for "),
    ("loops-in-restore", Replaced, "`restore` failed: it ran for "),
    ("loops-in-save", Replaced, "`save` failed: it ran for "),
    ("loops-in-start", Refused, "`describe` failed: it ran for "),
    ("names-a-metric-badly", Quarantined, "metric name \"a 1\\ntipstaff_traps_total\": expected"),
    ("passes-a-list-of-4-gib", Quarantined, "`on-batch` failed: "),
    ("passes-overlapping-lists", Limited, "tipstaff_alerts_limited_total"),
    ("points-at-one-string-a-million-times", Quarantined, "it reached its limit (`host_call`)"),
    ("re-enters", Quarantined, "cannot leave component instance"),
    ("reallocates-misaligned", Refused, "`configure` failed: "),
    ("reallocates-out-of-bounds", Quarantined, "`on-batch` failed: "),
    ("reallocates-over-itself", Noted, "running"),
    ("recurses", Quarantined, "call stack exhausted"),
    ("refuses-in-no-utf8", Refused, "`configure` failed: "),
    ("refuses-with-control-characters", Refused, "refuses its settings: "),
    ("saves-out-of-bounds", Replaced, "`save` failed: "),
    ("saves-too-much", Replaced, "it has more than 1048576 bytes (`state`)"),
    ("says-another-name-later", Refused, "says in `configure` that its name is `tally`"),
    ("traps-in-describe", Refused, "`describe` failed: the guest trapped: "),
    ("traps-on-every-batch", Quarantined, "(in at-once)"),
    ("traps-on-the-first-batch", Restarted, "`unreachable` instruction executed"),
    ("traps-on-the-thousandth-batch", Restarted, "`unreachable` instruction executed"),
];

/// More of them, which are too large to be kept: their files, what becomes of them, and what is said.
fn made() -> Vec<(&'static str, Vec<u8>, Then, &'static str)> {
    vec![
        (
            "has-ten-thousand-subscriptions",
            guest_with(
                &format!(
                    "name = \"many\"\nversion = \"1\"\nsubscribe = [{}]\n",
                    "{event=\"a\",fields=[]},".repeat(10_000)
                ),
                "",
            ),
            Refused,
            "10000 subscriptions, at most 255 are allowed",
        ),
        (
            "has-a-manifest-of-a-megabyte",
            guest_with(&format!("name = \"long\"\n#{}", "x".repeat(900_000)), ""),
            Refused,
            "at most 262144 are allowed",
        ),
        (
            "nests-its-manifest",
            guest_with(
                &format!(
                    "name = \"nests\"\nversion = \"1\"\n[[setting]]\nname = \"a\"\ntype = \"text\"\ndoc = \"\"\ndefault{} = 1\n",
                    ".a".repeat(120_000)
                ),
                "",
            ),
            Refused,
            "manifest",
        ),
        ("is-huge", huge(129 << 20), Refused, "is longer than 134217728 bytes"),
        (
            "is-larger-than-it-may-be",
            larger(&guest("is-larger-than-it-may-be", ""), 65 << 20),
            Refused,
            "its limit is 67108864; if it may have more, write",
        ),
        (
            "takes-minutes-to-compile",
            bomb("takes-minutes-to-compile"),
            Refused,
            // By its limit of processor time or of memory, whichever is used up first.
            "[compiler]",
        ),
    ]
}

fn huge(size: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.resize(size, 0);
    bytes
}

/// Lines of the agent's log, as they come.
struct Said(Vec<serde_json::Value>);

impl Said {
    fn read(&mut self, agent: &mut Agent) {
        for line in agent.tipstaff.log_so_far().split_off(self.0.len()) {
            assert!(
                line.chars().all(|char| !char.is_control()),
                "a raw control character: {line:?}"
            );
            assert!(line.len() < 16 << 10, "a line of {} bytes: {:.200}", line.len(), line);
            self.0.push(serde_json::from_str(&line).expect("a line is an object"));
        }
    }

    /// How many lines are about this policy or its file and contain the text.
    fn times(&self, policy: &str, text: &str) -> usize {
        let about = |line: &&serde_json::Value| {
            let message = line["message"].as_str().expect("a message");
            (line["policy"] == policy || message.contains(&format!("/{policy}.wasm")))
                && (message.contains(text) || line["state"] == text)
        };
        self.0.iter().filter(about).count()
    }
}

/// Whether what should become of a policy has become of it.
fn has_become(said: &Said, metrics: &str, (name, then, text): (&str, Then, &str)) -> bool {
    let value = |metric: &str, labels: &[&str]| {
        let policy = format!("policy={name:?}");
        let labels: Vec<&str> = labels.iter().copied().chain([policy.as_str()]).collect();
        series(metrics, metric, &labels).unwrap_or(0)
    };
    let entered = |state: &str| value("tipstaff_transitions_total", &[&format!("state={state:?}")]);
    let times = said.times(name, text);
    match then {
        Refused => times == 1 && entered("running") == 0,
        Quarantined => times == 5 && entered("quarantined") == 1 && entered("restarting") == 4,
        Restarted => {
            times >= 1 && entered("restarting") == times as u64 && entered("quarantined") == 0
        }
        Limited => {
            let (metric, limit) = text.split_once(' ').unwrap_or((text, ""));
            let limit = format!("limit={limit:?}");
            let labels = if limit.len() > 8 { &[limit.as_str()][..] } else { &[] };
            value(metric, labels) > 0 && entered("running") == 1 && entered("restarting") == 0
        }
        Noted => times == 1 && entered("running") == 1 && entered("restarting") == 0,
        Replaced => times == 1 && entered("running") == 2 && entered("replaced") == 1,
    }
}

#[test]
fn every_hostile_policy_is_reported_and_a_healthy_one_misses_nothing() {
    if !can_probe("every_hostile_policy_is_reported_and_a_healthy_one_misses_nothing") {
        return;
    }
    let mut files: Vec<_> = fs::read_dir(root().join("tests/hostile"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let listed: Vec<_> = CORPUS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(files, listed, "the table and the directory");

    let mut agent = Agent::start(&[&fixture("tally")], "");
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady_load(&stop, 50);
    let made = made();
    let mut waiting: BTreeMap<&str, (Then, &str)> = BTreeMap::new();
    for &(name, then, said) in CORPUS {
        agent.put(&format!("{name}.wasm"), &hostile(name));
        waiting.insert(name, (then, said));
    }
    for (name, bytes, then, said) in &made {
        agent.put(&format!("{name}.wasm"), bytes);
        waiting.insert(name, (*then, said));
    }

    let mut said = Said(Vec::new());
    let mut replaced = Vec::new();
    // The compiler may take half a minute of processor time, at the lowest priority.
    let deadline = Instant::now() + Duration::from_mins(4);
    while !waiting.is_empty() {
        said.read(&mut agent);
        let metrics = scrape(&agent.metrics);
        for (&name, &(then, _)) in &waiting {
            let runs = said.times(name, "running") > 0;
            if then == Replaced && runs && !replaced.contains(&name) {
                // The same, as another file.
                agent.put(&format!("{name}.wasm"), &larger(&hostile(name), 8));
                replaced.push(name);
            }
        }
        waiting.retain(|&name, &mut (then, text)| !has_become(&said, &metrics, (name, then, text)));
        assert!(
            Instant::now() < deadline,
            "never happened: {waiting:#?}; the log:\n{}",
            said.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        );
        thread::sleep(Duration::from_millis(200));
    }
    // Nothing that was settled became unsettled, and nothing was said of any other. What is told and what is
    // counted are looked at one after the other.
    let all = CORPUS.iter().copied();
    for case in all.chain(made.iter().map(|(name, _, then, said)| (*name, *then, *said))) {
        until(&format!("{case:?}, still"), || {
            said.read(&mut agent);
            has_become(&said, &scrape(&agent.metrics), case).then_some(())
        });
    }
    let metrics = scrape(&agent.metrics);
    let long = metrics.lines().find(|line| line.starts_with("long_total")).expect("a series");
    assert!(long.len() < 512, "{long}");
    let flood = metrics.lines().filter(|line| line.starts_with("flood_total")).count();
    assert!(flood <= 1001, "{flood} series");

    stop.store(true, Ordering::Relaxed);
    let produced = load.join().expect("the load ends");
    check_tally(&agent, produced);
    assert_eq!(agent.value("tally_lost_total", &[]), 0, "of {produced}");
    for state in ["restarting", "quarantined"] {
        let labels = [r#"policy="tally""#, &format!("state={state:?}")];
        assert_eq!(agent.value("tipstaff_transitions_total", &labels), 0, "{state}");
    }
    let (output, code) = agent.tipstaff.stop();
    assert_eq!(code, 0);
    assert!(output.iter().all(|line| line.chars().all(|char| !char.is_control())));
}

/// Why these bytes do not load.
fn refusal(bytes: &[u8]) -> Refusal {
    Court::new()
        .compiler
        .load_bytes(Path::new("x.wasm"), bytes)
        .err()
        .expect("it must not load")
        .reason
}

fn message(bytes: &[u8]) -> String {
    refusal(bytes).to_string()
}

#[test]
fn what_is_no_policy_is_named() {
    let policy = fs::read(build("fixture")).unwrap();
    assert!(message(&policy[..policy.len() / 2]).starts_with("is truncated: "));
    assert!(message(b"").starts_with("is empty"));
    assert!(message(b"fn main() {}").starts_with("is a text file"));
    assert!(
        message(&wat::parse_str("(module)").unwrap())
            .starts_with("is a core module without the metadata")
    );
    let mut broken = policy.clone();
    broken[8] = 0x7f;
    assert!(message(&broken).starts_with("is not valid WebAssembly"), "{}", message(&broken));
    let other =
        wat::parse_str("(component (core module $m) (export \"run\" (core module $m)))").unwrap();
    assert_eq!(
        message(&other),
        "is a component of another world: it exports run, expected tipstaff:policy/policy@0.1.0"
    );
}

#[test]
fn an_import_that_is_not_granted_is_refused_with_the_lines_that_would_grant_it() {
    let court = Court::new();
    let bytes = hostile("asks-for-a-guard");
    let loaded = court.compiler.load_bytes(Path::new("policy.wasm"), &bytes).unwrap();
    let mut section = Config::load(None, &Flags::default()).unwrap().policy("asks-for-a-guard");
    let refused = |section: &_, mode| {
        loaded.check_grants(section, mode).err().map(|error| error.reason.to_string())
    };
    let lines = "[policy.asks-for-a-guard]\n    grants = [\"guard-network\"]";
    let error = refused(&section, Mode::Observe).unwrap();
    assert!(error.ends_with(lines), "{error}");
    section.grants.push(Grant::Network);
    assert_eq!(refused(&section, Mode::Audit), None);
    // Where it may act, it has to be this very file.
    let error = refused(&section, Mode::Enforce).unwrap();
    let digest = loaded.digest.to_string();
    assert!(error.contains(&format!("{lines}\n    digest = [\"{digest}\"]\n")), "{error}");
    section.digest.push(digest);
    assert_eq!(refused(&section, Mode::Enforce), None);
    section.digest.clear();
    section.unpinned = true;
    assert_eq!(refused(&section, Mode::Enforce), None);
    let text = include_str!("hostile/asks-for-a-guard.wat");
    let other = text.replace("tipstaff:policy/guard-network@0.1.0", "example:other/thing@0.2.0");
    assert!(
        message(&guest("", &other))
            .starts_with("imports `example:other/thing@0.2.0`, which this agent does not have")
    );
}

#[test]
fn an_endless_describe_ends_at_the_deadline() {
    let Refusal::Call(error) = refusal(&hostile("loops-in-describe")) else {
        panic!("another refusal")
    };
    assert_eq!(error.function, "describe");
    assert!(
        matches!(error.reason, Reason::Time { limit, .. } if limit == Duration::from_millis(500)),
        "{error}"
    );
}

#[test]
fn the_guests_function_is_named_in_the_error() {
    let policy = "(func $oops unreachable)
        (func $describe (export \"describe\") (result i32) (call $oops) i32.const 8)";
    let Refusal::Call(error) = refusal(&guest("oops", policy)) else { panic!("another refusal") };
    assert_eq!(error.backtrace, ["oops", "describe"]);
    assert_eq!(
        error.to_string(),
        "`describe` failed: the guest trapped: wasm `unreachable` instruction executed (in oops < describe)"
    );
}
