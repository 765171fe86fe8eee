//! How old an event is when a policy is called with it: one that waits for its batch, and an urgent one;
//! with nothing else going on, and beside a flood of other events. The agent itself measures it
//! (`tipstaff_delivery_delay_seconds`), for the oldest event of each batch.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Events of each way and round.
const EVENTS: u32 = 1_000;
/// The ways take turns in each round.
const ROUNDS: usize = 5;
/// Time between two events.
const PAUSE: Duration = Duration::from_millis(3);

struct Way {
    name: &'static str,
    urgent: bool,
    flood: bool,
    /// Number of batches by the upper bound of their delay.
    buckets: Vec<(f64, u64)>,
    /// Other events a second.
    others: Vec<f64>,
}

fn main() {
    let way =
        |name, urgent, flood| Way { name, urgent, flood, buckets: Vec::new(), others: Vec::new() };
    let mut ways = [
        way("waits for its batch", false, false),
        way("urgent", true, false),
        way("waits for its batch, flood", false, true),
        way("urgent, flood", true, true),
    ];
    for _ in 0..ROUNDS {
        ways.iter_mut().for_each(run);
    }
    println!("| way | other events/s | half within | 99 of 100 within | all within |");
    println!("|---|---|---|---|---|");
    for Way { name, buckets, others, .. } in &mut ways {
        others.sort_by(f64::total_cmp);
        let others = others[others.len() / 2];
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| within(buckets, part));
        println!("| {name} | {others:.0} | {half} | {most} | {all} |");
    }
}

/// The bound below which that part of the batches is.
fn within(buckets: &[(f64, u64)], part: f64) -> String {
    let total = buckets.last().map_or(0, |(_, count)| *count);
    let at = buckets.iter().find(|(_, count)| number(*count) >= number(total) * part);
    at.map_or_else(String::new, |(bound, _)| format!("{:?}", Duration::from_secs_f64(*bound)))
}

/// Counts of a bench are no larger than what this holds exactly.
fn number(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn run(way: &mut Way) {
    let directory = tempfile::tempdir().expect("a directory");
    let metrics = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let grants = if way.urgent { "grants = [\"urgent\"]" } else { "" };
    let config = directory.path().join("tipstaff.toml");
    let cache = directory.path().join("cache").display().to_string();
    let text = format!(
        "[agent]\ncache_dir = {cache:?}\n[policy.tally-urgent]\n{grants}\n[policy.file-watch.settings]\npaths = [\"/nowhere\"]\n"
    );
    fs::write(&config, text).expect("written");
    let mut agent = start(&config, &metrics.to_string(), way.flood);
    let stop = Arc::new(AtomicBool::new(false));
    let others = Arc::new(AtomicU64::new(0));
    let flood = way.flood.then(|| flood(Arc::clone(&stop), Arc::clone(&others)));
    let began = Instant::now();
    for number in 0..EVENTS {
        let _ = fs::remove_file(format!("/tally/{number}"));
        thread::sleep(PAUSE);
    }
    let seconds = began.elapsed().as_secs_f64();
    thread::sleep(Duration::from_millis(300));
    way.others.push(number(others.load(Ordering::Relaxed)) / seconds);
    take(&scrape(&metrics.to_string()), &mut way.buckets);
    stop.store(true, Ordering::Relaxed);
    flood.map(thread::JoinHandle::join);
    agent.kill().expect("killed");
    agent.wait().expect("ended");
}

fn start(config: &Path, metrics: &str, watched: bool) -> Child {
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
    command.args(["run", "--name", "bench-latency", "--metrics", metrics, "--config"]).arg(config);
    command.arg("--policy").arg(format!("{policies}/tests/tally-urgent.wasm"));
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

fn scrape(metrics: &str) -> String {
    let mut stream = TcpStream::connect(metrics).expect("reachable");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

/// Adds the counts of the histogram's buckets.
fn take(text: &str, buckets: &mut Vec<(f64, u64)>) {
    let lines = text.lines().filter(|line| {
        line.starts_with("tipstaff_delivery_delay_seconds_bucket")
            && line.contains("\"tally-urgent\"")
    });
    let found: Vec<(f64, u64)> = lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("le=\"")?;
            let (bound, rest) = rest.split_once('"')?;
            Some((bound.parse().ok()?, rest.rsplit(' ').next()?.parse().ok()?))
        })
        .filter(|(bound, _): &(f64, u64)| bound.is_finite())
        .collect();
    assert!(!found.is_empty(), "no histogram");
    buckets.resize(found.len(), (0.0, 0));
    for (sum, (bound, count)) in buckets.iter_mut().zip(found) {
        *sum = (bound, sum.1 + count);
    }
}
