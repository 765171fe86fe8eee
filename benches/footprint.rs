//! How fast the agent starts and how much memory it takes, with 0, 1 and 10 policies in Rust and with
//! one in other languages, its cache filled. Ten are made of one by giving it other names of the same
//! length.

#[path = "../tests/court/mod.rs"]
mod court;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Runs of each, of which the median counts. The first one fills the cache and does not count.
const RUNS: usize = 7;

use court::language::{Language, built, new};

fn main() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies/tests/tally.wasm");
    let policy = fs::read(file).expect("run tools/build-policies.sh tests");
    let ten = (b'a'..=b'j').map(|last| format!("tall{}", char::from(last)));
    let ten: Vec<Vec<u8>> = ten.map(|name| renamed(&policy, &name)).collect();
    let other = |language| {
        let (_directory, folder) = new(language);
        vec![fs::read(built(language, &folder)).expect("built")]
    };
    println!("| policies | start to ready, ms | resident memory, MiB |");
    println!("|---|---|---|");
    for (what, policies) in [
        ("0", Vec::new()),
        ("1 in Rust", vec![policy]),
        ("10 in Rust", ten),
        ("1 in JavaScript", other(Language::Javascript)),
        ("1 in Python", other(Language::Python)),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("policies");
        fs::create_dir(&folder).expect("a folder");
        for (number, policy) in policies.iter().enumerate() {
            fs::write(folder.join(format!("{number}.wasm")), policy).expect("written");
        }
        start(directory.path());
        let (mut times, mut sizes): (Vec<f64>, Vec<f64>) =
            (0..RUNS).map(|_| start(directory.path())).unzip();
        println!("| {what} | {:.0} | {:.1} |", median(&mut times), median(&mut sizes));
    }
}

fn renamed(policy: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = policy.to_vec();
    let at: Vec<usize> =
        (0..bytes.len() - 5).filter(|&at| &bytes[at..at + 5] == b"tally").collect();
    for at in at {
        bytes[at..at + 5].copy_from_slice(name.as_bytes());
    }
    bytes
}

/// Milliseconds until the agent is ready, and MiB of resident memory a second later.
fn start(directory: &Path) -> (f64, f64) {
    let config = directory.join("tipstaff.toml");
    let text = format!(
        "[agent]\npolicies = {:?}\ncache_dir = {:?}\n",
        directory.join("policies").display().to_string(),
        directory.join("cache").display().to_string()
    );
    fs::write(&config, text).expect("written");
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tipstaff"))
        .args(["run", "--name", "bench", "--metrics", "off", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let ready = log.lines().map_while(Result::ok).find(|line| line.contains(" ready "));
    let took = began.elapsed();
    assert!(ready.is_some(), "the agent is not ready");
    thread::sleep(Duration::from_secs(1));
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kibibytes: f64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .expect("it runs");
    child.wait().expect("ends");
    (took.as_secs_f64() * 1000.0, kibibytes / 1024.0)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
