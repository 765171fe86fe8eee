//! How long it takes from the kernel's timestamp of an `exec` until the program is killed for it by a policy
//! that is urgent: with nothing else going on, and beside a flood of other events. As the decisions
//! say it (`latency_ns`); all of them, and not a sample.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Programs of each way and round.
const PROGRAMS: usize = 200;
/// The ways take turns in each round.
const ROUNDS: usize = 5;
/// Time between two programs.
const PAUSE: Duration = Duration::from_millis(10);

struct Way {
    name: &'static str,
    flood: bool,
    /// Of each kill, in nanoseconds.
    latencies: Vec<u64>,
    /// Other events a second.
    others: Vec<u64>,
}

fn main() {
    let way = |name, flood| Way { name, flood, latencies: Vec::new(), others: Vec::new() };
    let mut ways = [way("nothing else", false), way("flood of `rename`", true)];
    for _ in 0..ROUNDS {
        ways.iter_mut().for_each(run);
    }
    println!("| beside | other events/s | kills | p50 | p99 | most |");
    println!("|---|---|---|---|---|---|");
    for Way { name, latencies, others, .. } in &mut ways {
        latencies.sort_unstable();
        others.sort_unstable();
        let at = |percent: usize| {
            let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
            Duration::from_nanos(latencies[index]).as_micros()
        };
        let (others, kills) = (others[others.len() / 2], latencies.len());
        let [half, most, all] = [50, 99, 100].map(at);
        println!("| {name} | {others} | {kills} | {half} us | {most} us | {all} us |");
    }
}

fn run(way: &mut Way) {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let program = place("marked");
    fs::copy("/bin/sleep", &program).expect("copied");
    let shown = |path: &Path| path.display().to_string();
    let many = "actions_per_minute = 100000";
    let text = format!(
        "[agent]\nmode = \"enforce\"\nname = \"bench-signals\"\ncache_dir = {:?}\nstate_dir = {:?}\n\
         [limits]\n{many}\n[guard]\n{many}\nbreaker = 100000\n\
         [policy.signaller]\ngrants = [\"guard-signal\", \"urgent\"]\nunpinned = true\n\
         [policy.signaller.filter]\nexec = \"path = {}\"\n\
         [policy.signaller.settings]\nbelow = {:?}\n[policy.file-watch.settings]\npaths = [\"/nowhere\"]\n",
        shown(&place("cache")),
        shown(&place("state")),
        shown(&program),
        shown(&program),
    );
    let config = place("tipstaff.toml");
    fs::write(&config, text).expect("written");
    let mut agent = start(&config, way.flood);
    let (stop, others) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = way.flood.then(|| flood(Arc::clone(&stop), Arc::clone(&others)));
    let begun = Instant::now();
    for _ in 0..PROGRAMS {
        let mut child = Command::new(&program).arg("60").spawn().expect("it runs");
        child.wait().expect("it is killed");
        thread::sleep(PAUSE);
    }
    let done = others.load(Ordering::Relaxed) * 1000;
    way.others.push(done / u64::try_from(begun.elapsed().as_millis()).expect("short").max(1));
    stop.store(true, Ordering::Relaxed);
    flood.map(thread::JoinHandle::join);
    thread::sleep(Duration::from_millis(100));
    agent.kill().expect("killed");
    agent.wait().expect("ended");
    let said = fs::read_to_string(place("state/bench-signals/decisions.jsonl")).expect("recorded");
    let decisions = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let done = decisions.filter(|decision| decision["outcome"] == "done");
    let latencies: Vec<_> = done.filter_map(|decision| decision["latency_ns"].as_u64()).collect();
    assert_eq!(latencies.len(), PROGRAMS, "each is killed once");
    way.latencies.extend(latencies);
}

fn start(config: &Path, watched: bool) -> Child {
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
    command.args(["run", "--config"]).arg(config);
    command.arg("--policy").arg(format!("{policies}/tests/signaller.wasm"));
    if watched {
        command.arg("--policy").arg(format!("{policies}/file-watch.wasm"));
    }
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the agent runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(
        log.any(|line| line.is_ok_and(|line| line.contains("ready"))),
        "it does not become ready"
    );
    thread::spawn(move || log.for_each(drop));
    child
}

/// Renames what is not there, as fast as it can.
fn flood(stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..1_000 {
                let _ = fs::rename("/flood/from", "/flood/to");
            }
            count.fetch_add(1_000, Ordering::Relaxed);
        }
    })
}
