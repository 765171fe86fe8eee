//! The agent on the running kernel: policies come and go while events flow, and every event is
//! accounted for.

mod court;
#[expect(dead_code, reason = "the tests with hostile policies use the rest")]
mod support;

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use court::guest::guest_with;
use rustix::process::Signal;
use support::{
    Tipstaff,
    agent::{Agent, check_tally, full_load, tally_load},
    can_probe, copy_program, fixture,
    shipped::shipped,
    until,
    vm::rounds,
};
use tempfile::TempDir;

#[test]
fn a_policy_that_is_dropped_in_runs_without_a_restart() {
    if !can_probe("a_policy_that_is_dropped_in_runs_without_a_restart") {
        return;
    }
    let agent = Agent::start(&[], "");
    agent.drop_in(&shipped("exec-audit"));
    until("exec_total of /usr/bin/env", || {
        Command::new("/usr/bin/env").arg("true").output().expect("runs");
        (agent.value("exec_total", &[r#"exe="/usr/bin/env""#, r#"policy="exec-audit""#]) > 0)
            .then_some(())
    });
}

#[test]
fn each_execution_is_counted_once_while_unrelated_load_runs() {
    if !can_probe("each_execution_is_counted_once_while_unrelated_load_runs") {
        return;
    }
    let agent = Agent::start(&[&shipped("exec-audit")], "");
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("a program\nwith \u{1b}[31m");
    copy_program("/bin/true", &program);
    let load = tally_load(rounds(200_000).into());
    let runs = u64::from(rounds(200));
    for _ in 0..runs {
        assert!(Command::new(&program).status().expect("runs").success());
    }
    load.join().expect("the load ends");
    // Control characters are escaped once by us, and the backslash once more by the format.
    let label = directory.path().join(r"a program\\nwith ").display().to_string();
    until("as many executions", || (agent.value("exec_total", &[&label]) >= runs).then_some(()));
    assert_eq!(agent.value("exec_total", &[&label]), runs);
    // What a policy says never reaches a terminal raw.
    let (output, code) = agent.tipstaff.stop();
    assert_eq!(code, 0);
    assert!(output.iter().all(|line| !line.contains('\u{1b}')));
}

#[test]
fn adding_and_removing_a_policy_fifty_times_loses_and_doubles_nothing_for_another() {
    if !can_probe("adding_and_removing_a_policy_fifty_times_loses_and_doubles_nothing_for_another")
    {
        return;
    }
    let agent = Agent::start(&[&fixture("tally")], "");
    let more = fixture("tally-more");
    let running = |wanted: u64| {
        until("the second policy comes and goes", || {
            (agent.value("tipstaff_policies", &[r#"state="running""#]) == wanted).then_some(())
        });
    };
    let stop = Arc::new(AtomicBool::new(false));
    let load = full_load(&agent, &stop);
    for _ in 0..rounds(50) {
        agent.drop_in(&more);
        running(2);
        agent.remove(&more);
        running(1);
    }
    stop.store(true, Ordering::Relaxed);
    let produced = load.join().expect("the load ends");
    check_tally(&agent, produced);
    assert_eq!(agent.value("tally_lost_total", &[]), 0, "of {produced}");
}

#[test]
fn what_overflows_the_ring_is_counted_exactly() {
    if !can_probe("what_overflows_the_ring_is_counted_exactly") {
        return;
    }
    let agent = Agent::start(&[&fixture("tally")], "");
    // Nobody drains the ring, and more is produced than it holds.
    agent.tipstaff.signal(Signal::STOP);
    tally_load(150_000).join().expect("the load ends");
    agent.tipstaff.signal(Signal::CONT);
    check_tally(&agent, 150_000);
    let lost = agent.value("tally_lost_total", &[]);
    assert!(lost > 0, "the load must be larger than the ring");
    let counted =
        agent.value("tipstaff_events_lost_total", &[r#"kind="unlink""#, r#"cause="ring_full""#]);
    assert_eq!(counted, lost);
}

#[test]
fn a_shutdown_delivers_what_is_in_the_rings_and_batches() {
    if !can_probe("a_shutdown_delivers_what_is_in_the_rings_and_batches") {
        return;
    }
    let agent = Agent::start(&[&fixture("tally")], "");
    tally_load(20_000).join().expect("the load ends");
    let (output, code) = agent.tipstaff.stop();
    assert_eq!(code, 0);
    let line = output
        .iter()
        .find(|line| line.contains("\"tally_events_total\""))
        .expect("a last word on metrics");
    assert!(line.contains("20000"), "{line}");
}

#[test]
fn a_file_that_is_no_policy_is_named_and_the_rest_goes_on() {
    if !can_probe("a_file_that_is_no_policy_is_named_and_the_rest_goes_on") {
        return;
    }
    let mut agent = Agent::start(&[&fixture("tally")], "");
    let good = fs::read(fixture("tally-more")).expect("readable");
    let bad: &[(&str, &[u8])] = &[
        ("empty.wasm", b""),
        ("truncated.wasm", &good[..good.len() / 2]),
        ("text.wasm", b"# a text file\nthat someone renamed\n"),
        ("bare.wasm", b"\0asm\x01\0\0\0"),
        ("duplicate.wasm", &fs::read(fixture("tally")).expect("readable")),
    ];
    for (name, bytes) in bad {
        fs::write(agent.policies.join(name), bytes).expect("written");
        let line = agent.tipstaff.wait_for_log(name);
        assert!(line.contains("error") || line.contains("warning"), "{line}");
    }
    // A file that others may write decides nothing.
    let open = agent.policies.join("open.wasm");
    fs::write(&open, &good).expect("written");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("changed");
    assert!(agent.tipstaff.wait_for_log("open.wasm").contains("chmod"));
    tally_load(1_000).join().expect("the load ends");
    check_tally(&agent, 1_000);
    assert_eq!(agent.value("tipstaff_policies", &[r#"state="running""#]), 1);
}

#[test]
fn a_file_that_is_written_in_pieces_is_loaded_when_it_is_whole() {
    if !can_probe("a_file_that_is_written_in_pieces_is_loaded_when_it_is_whole") {
        return;
    }
    let mut agent = Agent::start(&[], "");
    let bytes = fs::read(fixture("tally")).expect("readable");
    let mut file = fs::File::create(agent.policies.join("tally.wasm")).expect("created");
    for piece in bytes.chunks(bytes.len() / 5) {
        file.write_all(piece).expect("written");
        thread::sleep(Duration::from_millis(100));
    }
    drop(file);
    until("the policy runs", || {
        (agent.value("tipstaff_policies", &[r#"state="running""#]) == 1).then_some(())
    });
    let log = agent.tipstaff.log_so_far().join("\n");
    assert!(log.contains("policy runs") && !log.contains("error"), "{log}");
}

#[test]
fn a_busy_metrics_port_is_a_named_error() {
    if !can_probe("a_busy_metrics_port_is_a_named_error") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let policies = directory.path().display().to_string();
    let name = format!("test-busy-port-{}", std::process::id());
    let mut tipstaff =
        Tipstaff::spawn(&["run", "--name", &name, "--policies", &policies, "--metrics", &address]);
    let (_, code) = tipstaff.wait();
    assert_ne!(code, 0);
    let log = tipstaff.log.join("\n");
    assert!(log.contains(&address) && log.contains("another program listens there"), "{log}");
}

#[test]
fn a_generation_that_fails_again_and_again_makes_way_for_the_last_good_one() {
    if !can_probe("a_generation_that_fails_again_and_again_makes_way_for_the_last_good_one") {
        return;
    }
    let good = fixture("heir");
    let agent = Agent::start(&[&good], "");
    let manifest = "name = \"heir\"\nversion = \"2\"\n[[subscribe]]\nevent = \"open\"\nfields = [\"pid:u32\"]\n";
    let bad = "(func (export \"on-batch\") (param i32 i32) unreachable)";
    agent.put("heir.wasm", &guest_with(manifest, bad));
    let entered = |state: &str| {
        let state = format!("state={state:?}");
        agent.value("tipstaff_transitions_total", &[r#"policy="heir""#, &state])
    };
    // Reading the metrics opens nothing, so that there is something to fail upon.
    until("the good one replaces the bad one", || {
        fs::File::open("/etc/passwd").expect("it is there");
        (entered("replaced") == 2).then_some(())
    });
    assert_eq!((entered("loaded"), entered("quarantined"), entered("restarting")), (3, 1, 4));
    let before = agent.value("events_total", &[r#"policy="heir""#]);
    until("the good one goes on", || {
        fs::File::open("/etc/passwd").expect("it is there");
        (agent.value("events_total", &[r#"policy="heir""#]) > before).then_some(())
    });
    assert!(agent.value("lost_total", &[r#"policy="heir""#]) > 0, "it is told what was lost");
}

/// Writes a policy made by hand into a directory.
fn by_hand(directory: &TempDir, manifest: &str, text: &str) -> PathBuf {
    let path = directory.path().join("hand-made.wasm");
    fs::write(&path, guest_with(manifest, text)).expect("written");
    path
}

#[test]
fn a_generation_to_fall_back_to_gets_no_field_that_was_withheld_since() {
    if !can_probe("a_generation_to_fall_back_to_gets_no_field_that_was_withheld_since") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // It fails without its optional field, whose bit is the first of the row's.
    let policy = by_hand(
        &directory,
        "name = \"hand-made\"\nversion = \"1\"\n[[subscribe]]\nevent = \"exec\"\nfields = [\"pid:u32\", \"uid:u32?\"]\n",
        "(func (export \"on-batch\") (param i32 i32) (if (i32.and (i32.load offset=8 (local.get 0)) (i32.const 1)) (then unreachable)))",
    );
    let mut agent = Agent::start(&[&policy], "");
    let run = || assert!(Command::new("true").status().expect("runs").success());
    until("it takes events", || {
        run();
        (agent.value("tipstaff_rows_total", &[r#"policy="hand-made""#]) > 0).then_some(())
    });
    assert_eq!((agent.entered("loaded"), agent.entered("restarting")), (1, 0));
    agent.configure("[policy.hand-made]\ndeny_fields = [\"uid\"]\n");
    // The generation that it falls back to has the field no more than the one that failed.
    until("both generations are in quarantine", || {
        run();
        (agent.entered("quarantined") == 2).then_some(())
    });
    let entered = ["loaded", "replaced", "restarting"].map(|state| agent.entered(state));
    assert_eq!(entered, [3, 2, 8]);

    // The same file once more is another try.
    let ran = agent.entered("running");
    agent.drop_in(&policy);
    until("it is tried again", || (agent.entered("loaded") >= 4).then_some(()));
    // Others may run programs meanwhile, at which it fails again.
    until("it runs again", || (agent.entered("running") > ran).then_some(()));
}

#[test]
fn a_policy_ends_when_the_configuration_does_not_allow_it_any_more() {
    if !can_probe("a_policy_ends_when_the_configuration_does_not_allow_it_any_more") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = format!(
        "# {}\nname = \"hand-made\"\nversion = \"1\"\n[[subscribe]]\nevent = \"exec\"\nfields = [\"uid:u32\", \"path:text?\"]\n",
        "long ".repeat(500)
    );
    let mut agent = Agent::start(&[&by_hand(&directory, &manifest, "")], "");
    let runs = |agent: &Agent, runs: u64| {
        until("it runs, or runs no more", || {
            let running = agent.value("tipstaff_policies", &[r#"state="running""#]);
            (running == runs).then_some(())
        });
    };
    runs(&agent, 1);
    let bad_setting = agent.configure("[policy.hand-made.settings]\nunknown = 1\n");
    assert!(bad_setting.contains("goes on"), "{bad_setting}");
    assert_eq!(agent.entered("removed"), 0);
    let withdrawn = [
        ("deny_fields = [\"uid\"]".to_owned(), "is withheld by"),
        // What is withdrawn ends it whatever else is wrong, be it of no need to the policy.
        ("deny_fields = [\"uid\"]\nsettings.unknown = 1".to_owned(), "unknown"),
        ("deny_fields = [\"path\"]\nsettings.unknown = 1".to_owned(), "unknown"),
        (format!("digest = [\"sha256:{}\"]", "0".repeat(64)), "its digest is"),
        ("limits.file = \"1KiB\"".to_owned(), "its limit is 1024"),
    ];
    for (times, (line, why)) in (1..).zip(withdrawn) {
        let said = agent.configure(&format!("[policy.hand-made]\n{line}\n"));
        assert!(
            said.contains(why) && said.contains("policy removed: the configuration "),
            "{said}"
        );
        assert!(!said.contains("goes on"), "{said}");
        assert_eq!(agent.entered("removed"), times);
        runs(&agent, 0);
        // Its file is looked at again when the configuration allows it.
        agent.configure("");
        runs(&agent, 1);
    }
}

#[test]
fn a_tracepoint_from_the_configuration_is_a_kind_that_policies_can_ask_for() {
    if !can_probe("a_tracepoint_from_the_configuration_is_a_kind_that_policies_can_ask_for") {
        return;
    }
    let own = "[[probe]]\nname = \"run\"\nattach = \"tracepoint:sched:sched_process_exec\"\n";
    let agent = Agent::start(&[&fixture("tally-tracepoint")], own);
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("unusual name");
    copy_program("/bin/true", &program);
    for _ in 0..50 {
        assert!(Command::new(&program).status().expect("runs").success());
    }
    let label = program.display().to_string();
    until("50 runs", || (agent.value("tally_runs_total", &[&label]) >= 50).then_some(()));
    assert_eq!(agent.value("tally_runs_total", &[&label]), 50);
}

#[test]
fn a_tracepoint_shows_the_values_that_tracefs_shows() {
    if !can_probe("a_tracepoint_shows_the_values_that_tracefs_shows") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("unusual-name");
    copy_program("/bin/true", &program);
    let reference = Tracefs::start("sched/sched_process_exec");
    let mut events =
        Tipstaff::ready(&["events", "tracepoint:sched:sched_process_exec", "--format", "json"]);
    let mut child = Command::new(&program).spawn().expect("runs");
    let line = events.wait_for_output("unusual-name");
    child.wait().expect("ends");
    let event: serde_json::Value = serde_json::from_str(&line).expect("an object");
    // As the kernel itself prints it: `sched_process_exec: filename=... pid=... old_pid=...`
    let printed = reference.line_with("unusual-name");
    let expected = format!(
        "filename={} pid={} old_pid={}",
        event["filename"].as_str().expect("a text"),
        event["pid"],
        event["old_pid"],
    );
    assert!(printed.ends_with(&expected), "{printed:?} does not end with {expected:?}");
    assert_eq!(event["pid"], child.id());
}

/// Where the kernel's own traces are.
const TRACEFS: &str = "/sys/kernel/tracing";

/// A trace of the kernel's own, in an instance of its own that goes with this.
struct Tracefs {
    instance: PathBuf,
    is_ours: bool,
}

impl Tracefs {
    fn start(event: &str) -> Self {
        let root = Path::new(TRACEFS);
        let is_ours = !root.join("instances").exists();
        if is_ours {
            let mount = Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]).status();
            assert!(mount.expect("mount runs").success());
        }
        let instance = root.join(format!("instances/tipstaff-test-{}", std::process::id()));
        fs::create_dir(&instance).expect("an instance");
        let tracefs = Self { instance, is_ours };
        fs::write(tracefs.instance.join(format!("events/{event}/enable")), "1").expect("enabled");
        tracefs
    }

    fn line_with(&self, text: &str) -> String {
        let trace = fs::read_to_string(self.instance.join("trace")).expect("readable");
        trace.lines().find(|line| line.contains(text)).unwrap_or_default().to_owned()
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
        if self.is_ours {
            let _ = Command::new("umount").arg(TRACEFS).status();
        }
    }
}

#[test]
fn what_is_urgent_is_granted_and_exact() {
    const EVENTS: u64 = 20_000;
    if !can_probe("what_is_urgent_is_granted_and_exact") {
        return;
    }
    let grants = "grants = [\"urgent\"]";
    for (configuration, is_granted) in
        [(String::new(), false), (format!("[policy.tally-urgent]\n{grants}\n"), true)]
    {
        let agent = Agent::start(&[&fixture("tally-urgent")], &configuration);
        tally_load(EVENTS).join().expect("the load ends");
        check_tally(&agent, EVENTS);
        let late = agent.value("tipstaff_rows_late_total", &[]);
        assert!(is_granted || late == 0, "{late} late rows");
        let log = agent.tipstaff.log.join("\n");
        assert_eq!(log.contains("its urgent events wait like all others"), !is_granted, "{log}");
        assert_eq!(log.contains("[policy.tally-urgent]"), !is_granted, "{log}");
    }
}

#[test]
fn a_grant_that_is_withdrawn_ends_the_policy_whatever_else_is_wrong() {
    if !can_probe("a_grant_that_is_withdrawn_ends_the_policy_whatever_else_is_wrong") {
        return;
    }
    let mut agent = Agent::start(&[&fixture("tally-urgent")], "");
    agent.configure("[policy.tally-urgent]\ngrants = [\"urgent\"]\n");
    let said = agent.configure("[policy.tally-urgent]\nsettings.unknown = 1\n");
    assert!(said.contains("policy removed: the configuration withdraws what it may do"), "{said}");
    let running = |agent: &Agent| agent.value("tipstaff_policies", &[r#"state="running""#]);
    until("it ends", || (running(&agent) == 0).then_some(()));
    agent.configure("");
    until("it runs again, ungranted", || (running(&agent) == 1).then_some(()));
}
