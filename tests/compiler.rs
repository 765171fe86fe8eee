//! The compiler child: what it makes, what it may take, and what it has no right to.

mod court;
#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use court::{
    build,
    guest::{bomb, guest},
};
use support::{
    agent::{Agent, check_tally, steady_load},
    can_probe, copy_program, fixture, until,
};
use tempfile::TempDir;
use tipstaff_runtime::policy::{CompileLimits, Compiler, Refusal, Workshop};

const TIPSTAFF: &str = env!("CARGO_BIN_EXE_tipstaff");

fn compiler(cache: &TempDir, program: &str, limits: CompileLimits) -> Compiler {
    Compiler::new(cache.path(), Workshop::Child(program.into(), limits)).unwrap()
}

#[test]
fn the_compiler_child_fills_the_cache_and_is_not_needed_again() {
    let cache = tempfile::tempdir().unwrap();
    let policy = build("exec-audit");
    let compiler = |program: &str| {
        Compiler::new(cache.path(), Workshop::Child(program.into(), CompileLimits::default()))
            .unwrap()
    };
    let first = compiler(TIPSTAFF).load(&policy).unwrap();
    let second = compiler("/nonexistent").load(&policy).unwrap();
    assert_eq!(first.manifest, second.manifest);
    assert_eq!(first.digest, second.digest);
}

#[test]
fn what_the_compiler_child_refuses_is_told_as_it_is() {
    let cache = tempfile::tempdir().unwrap();
    let compiler =
        Compiler::new(cache.path(), Workshop::Child(TIPSTAFF.into(), CompileLimits::default()))
            .unwrap();
    let load = |bytes: &[u8]| compiler.load_bytes(Path::new("p.wasm"), bytes).err().unwrap();
    let endless = guest("endless", include_str!("hostile/loops-in-describe.wat"));
    let error = load(&endless).to_string();
    assert!(error.starts_with("p.wasm: `describe` failed: it ran for "), "{error}");
    assert!(
        load(&wat::parse_str("(module)").unwrap())
            .to_string()
            .contains("core module without the metadata")
    );
}

#[test]
fn a_compiler_that_dies_is_a_refusal() {
    let cache = tempfile::tempdir().unwrap();
    let compiler =
        Compiler::new(cache.path(), Workshop::Child("/bin/false".into(), CompileLimits::default()))
            .unwrap();
    let error = compiler.load_bytes(Path::new("p.wasm"), &guest("hand-made", "")).err().unwrap();
    assert!(matches!(error.reason, Refusal::Compiler(_)), "{error}");
    assert!(error.to_string().contains("exit status: 1"), "{error}");
}

/// Processor time and memory that are not enough, each with what is said of it.
#[test]
fn a_compiler_that_takes_more_than_it_may_is_ended_and_the_message_names_the_limit() {
    let cache = tempfile::tempdir().unwrap();
    let (second, long, much) = (Duration::from_secs(1), Duration::from_mins(10), 8 << 30);
    let file = bomb("bomb");
    for (limits, said) in [
        (
            CompileLimits { cpu: second, wall: long, memory: much },
            "p.wasm: could not be compiled: it took more than 1 s of processor time; if it may take longer, write\n    \
             [compiler]\n    cpu = \"2s\"",
        ),
        (
            CompileLimits { cpu: long, wall: long, memory: 96 << 20 },
            "it may use 96 MiB of memory (`memory` under [compiler])",
        ),
    ] {
        let compiler = compiler(&cache, TIPSTAFF, limits);
        let error = compiler.load_bytes(Path::new("p.wasm"), &file).err().unwrap();
        assert!(matches!(error.reason, Refusal::Compiler(_)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_compiler_that_does_nothing_for_too_long_is_killed() {
    let cache = tempfile::tempdir().unwrap();
    let (script, program) = (cache.path().join("script"), cache.path().join("sleeper"));
    fs::write(&script, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&script, &program);
    let limits = CompileLimits { wall: Duration::from_millis(100), ..CompileLimits::default() };
    let compiler = compiler(&cache, program.to_str().unwrap(), limits);
    let error = compiler.load_bytes(Path::new("p.wasm"), &guest("p", "")).err().unwrap();
    assert!(error.to_string().contains("it took more than 100ms of wall time"), "{error}");
}

#[test]
fn an_agent_goes_on_while_a_file_takes_too_long_to_compile() {
    if !can_probe("an_agent_goes_on_while_a_file_takes_too_long_to_compile") {
        return;
    }
    let mut agent =
        Agent::start(&[&fixture("tally")], "[compiler]\ncpu = \"3s\"\nmemory = \"8GiB\"\n");
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady_load(&stop, 50);
    agent.put("bomb.wasm", &bomb("bomb"));
    // Meanwhile the child has the rights of nobody.
    let child = until("the child has given up its rights", || {
        children(agent.tipstaff.pid()).into_iter().find_map(|child| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
            let has = |line: &str| status.lines().any(|found| found == line);
            let none = "0000000000000000";
            let nobody = "65534\t65534\t65534\t65534";
            (has(&format!("Uid:\t{nobody}"))
                && has(&format!("Gid:\t{nobody}"))
                && has("Groups:\t ")
                && has("NoNewPrivs:\t1")
                && ["CapInh", "CapPrm", "CapEff"].iter().all(|set| has(&format!("{set}:\t{none}"))))
            .then_some(child)
        })
    });
    // Another policy comes, and runs before this one is done with.
    agent.put("other.wasm", &guest("other", ""));
    agent.tipstaff.wait_for_log("bomb.wasm: could not be compiled: it took more than ");
    let running = r#"state="running""#;
    until("the other policy runs", || {
        (agent.value("tipstaff_policies", &[running]) == 2).then_some(())
    });
    assert!(!Path::new(&format!("/proc/{child}")).exists(), "the child is gone, and no zombie");
    stop.store(true, Ordering::Relaxed);
    let produced = load.join().expect("the load ends");
    check_tally(&agent, produced);
    assert_eq!(agent.value("tally_lost_total", &[]), 0, "of {produced}");
    assert_eq!(agent.tipstaff.stop().1, 0);
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|children| {
            children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}
