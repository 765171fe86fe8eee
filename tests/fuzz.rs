//! A short run of every fuzz target, from the kept corpus: nothing that a policy's author, a file or a
//! kernel says makes the agent panic or run on. Not guided by coverage, as `make fuzz` is: what either finds
//! is kept in the corpus.
//!
//! `TIPSTAFF_FUZZ_SECONDS` is how long each target runs (3), `TIPSTAFF_FUZZ_SEED` repeats a run.

mod court;
#[path = "../fuzz/mutate.rs"]
mod mutate;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use mutate::Mutator;
use targets::TARGETS;

/// What takes longer for a few kilobytes would take for ever for many.
const SLOW: Duration = Duration::from_secs(10);

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = court::root().join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a corpus").map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn run(name: &str) {
    let target = targets::target(name);
    let seeds = corpus(name);
    assert!(!seeds.is_empty());
    let once = |what: &str, bytes: &[u8]| {
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| target(bytes)));
        if result.is_err() || begin.elapsed() > SLOW {
            let found = env::temp_dir().join(format!("tipstaff-fuzz-{name}"));
            fs::write(&found, bytes).unwrap();
            eprintln!("{what}: the input is in {}, took {:?}", found.display(), begin.elapsed());
            resume_unwind(result.err().unwrap_or_else(|| Box::new("too slow")));
        }
    };
    for (path, bytes) in &seeds {
        once(&path.display().to_string(), bytes);
    }
    let seed = number("TIPSTAFF_FUZZ_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into()
    });
    let mut mutator = Mutator::new(seed, seeds.into_iter().map(|seed| seed.1).collect());
    let until = Instant::now() + Duration::from_secs(number("TIPSTAFF_FUZZ_SECONDS").unwrap_or(3));
    let mut runs = 0;
    while runs == 0 || Instant::now() < until {
        once(&format!("TIPSTAFF_FUZZ_SEED={seed}, run {runs}"), &mutator.next());
        runs += 1;
    }
    println!("{name}: {runs} runs");
}

#[test]
fn every_target_has_a_corpus_and_a_program_and_the_other_way_round() {
    let mut known: Vec<_> = TARGETS.iter().map(|target| target.0.to_owned()).collect();
    known.sort_unstable();
    for folder in ["fuzz/corpus", "fuzz/fuzz_targets"] {
        let files = fs::read_dir(court::root().join(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut found: Vec<_> = files.map(|file| stem(file.unwrap().path())).collect();
        found.sort();
        assert_eq!(found, known, "{folder}");
    }
}

#[test]
fn manifests() {
    run("manifest");
}

#[test]
fn settings() {
    run("settings");
}

#[test]
fn records_and_rows() {
    run("record");
}

#[test]
fn conditions() {
    run("predicate");
}

#[test]
fn files_of_events() {
    run("events");
}

#[test]
fn types_of_a_kernel() {
    run("btf");
}

#[test]
fn files_that_are_inspected() {
    run("inspect");
}

#[test]
fn tables_of_rules() {
    run("table");
}

#[test]
fn messages_of_dns() {
    run("dns");
}
