//! A policy that is granted `guard-signal`, on the running kernel: who is meant is signalled, within what the
//! operator allows, and nobody else is.
//!
//! All that these tests signal was made by them: the operator's filter lets the policy see only the
//! cgroup of the test. What must not be reached is asked for in audit, or is of the test, too.

#[path = "support/cgroup.rs"]
mod cgroup;
#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

#[path = "guard_signal/limits.rs"]
mod limits;
#[path = "guard_signal/trees.rs"]
mod trees;

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use cgroup::Cgroup;
use rustix::process::Signal;
use serde_json::Value;
use support::{agent::Agent, can_probe, copy_program, fixture, until};
use tempfile::TempDir;
use tipstaff_runtime::{mountinfo, process::stat::Stat};

/// A cgroup, and programs that the policy signals.
struct Place {
    cgroup: Cgroup,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let place =
            Self { cgroup: Cgroup::new(), directory: tempfile::tempdir().expect("a directory") };
        copy_program("/bin/sleep", place.program());
        place
    }

    /// A `sleep` that the policy knows.
    fn program(&self) -> PathBuf {
        self.directory.path().join("program")
    }

    /// Path of the cgroup below the mount.
    fn scope(&self) -> String {
        let mount = mountinfo::cgroup_v2().expect("the v2 hierarchy is mounted");
        let below = self.cgroup.path().strip_prefix(mount).expect("it is there");
        format!("/{}", below.display())
    }

    /// The section of the policy, granted what it asks for; `lines` come before its settings.
    fn section(&self, lines: &str, settings: &str) -> String {
        format!(
            "[policy.signaller]\ngrants = [\"guard-signal\", \"urgent\"]\nunpinned = true\n{lines}\n\
             [policy.signaller.filter]\nexec = \"cgroup = {}\"\n\
             [policy.signaller.settings]\nbelow = {:?}\n{settings}\n",
            self.cgroup.id(),
            self.directory.path().display().to_string(),
        )
    }

    fn agent(&self, mode: &str, lines: &str, settings: &str) -> Agent {
        Agent::start_in(mode, &[&fixture("signaller")], &self.section(lines, settings))
    }

    /// Runs a program in the cgroup, which is then in it and is that program.
    fn run(&self, program: &Path, arguments: &[&str]) -> Process {
        run_in(&self.cgroup, program, arguments)
    }

    /// A program that the policy does not signal, in the cgroup.
    fn bystander(&self) -> Process {
        let process = self.run(Path::new("/bin/sleep"), &["600"]);
        process.wait_for_program(Path::new("/bin/sleep"));
        process
    }
}

fn run_in(cgroup: &Cgroup, program: &Path, arguments: &[&str]) -> Process {
    let mut command = cgroup.command(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().expect("it runs"))
}

/// A process of the test, ended with it.
struct Process(Child);

impl Process {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// As the settings of the policy name it.
    fn named(&self) -> String {
        named(self.pid())
    }

    fn wait_for_program(&self, program: &Path) {
        let program = fs::canonicalize(program).expect("there is such a program");
        until("it runs its program", || {
            let exe = fs::read_link(format!("/proc/{}/exe", self.pid())).ok()?;
            (exe == program).then_some(())
        });
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("ours").is_none()
    }

    fn ends(&mut self) -> ExitStatus {
        until("it ends", || self.0.try_wait().expect("ours"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process as the settings of the policy name it.
fn named(pid: u32) -> String {
    let stat = Stat::of_process(pid).expect("it runs");
    format!("{pid}:{}", stat.start().as_nanos())
}

const KILLED: Option<i32> = Some(Signal::KILL.as_raw());

fn actions(agent: &Agent, action: &str, outcome: &str) -> u64 {
    let labels = [
        r#"policy="signaller""#.to_owned(),
        format!("action={action:?}"),
        format!("outcome={outcome:?}"),
    ];
    agent.value("tipstaff_actions_total", &labels.each_ref().map(String::as_str))
}

fn wait_for(agent: &Agent, action: &str, outcome: &str, count: u64) {
    until(&format!("{count} times {action} {outcome}"), || {
        (actions(agent, action, outcome) >= count).then_some(())
    });
    assert_eq!(actions(agent, action, outcome), count, "{action} {outcome}");
}

/// Gives the policy, which is refused until then, these settings, and waits until it sees what runs.
fn grant(agent: &mut Agent, place: &Place, settings: &str) {
    agent.configure(&place.section("", settings));
    until("the policy sees what runs", || {
        place.run(Path::new("/bin/true"), &[]).ends();
        (agent.value("tipstaff_rows_total", &[r#"policy="signaller""#]) > 0).then_some(())
    });
}

/// The decisions about signals, as `tipstaff explain` has them.
fn decisions(agent: &Agent) -> Vec<Value> {
    let config = agent.configuration().display().to_string();
    let arguments = ["explain", "--last", "1000", "--format", "json", "--config", &config];
    let (code, said, errors) = agent.command(&arguments);
    assert_eq!(code, 0, "{errors}");
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["action"].as_str().unwrap_or("").starts_with("signal")).collect()
}

#[test]
fn each_marked_program_is_killed_and_each_kill_is_a_decision() {
    const MANY: usize = 20;
    if !can_probe("each_marked_program_is_killed_and_each_kill_is_a_decision") {
        return;
    }
    let place = Place::new();
    let agent = place.agent("enforce", "", "marked = \"601\"\n");
    let mut killed: Vec<_> = (0..MANY).map(|_| place.run(&place.program(), &["601"])).collect();
    let mut others: Vec<_> = (0..MANY).map(|_| place.run(&place.program(), &["600"])).collect();
    for process in &mut killed {
        assert_eq!(process.ends().signal(), KILLED);
    }
    wait_for(&agent, "signal", "done", MANY as u64);
    assert!(others.iter_mut().all(Process::is_alive), "nobody else is signalled");
    let decisions = decisions(&agent);
    assert_eq!(decisions.len(), MANY);
    let mut told: Vec<_> = decisions.iter().filter_map(|d| d["target"]["pid"].as_u64()).collect();
    let mut pids: Vec<_> = killed.iter().map(|process| u64::from(process.pid())).collect();
    told.sort_unstable();
    pids.sort_unstable();
    assert_eq!(told, pids, "one for each");
    for decision in &decisions {
        for (key, value) in [
            ("policy", "signaller"),
            ("action", "signal"),
            ("by", "policy"),
            ("mode", "enforce"),
            ("strength", "remediate"),
            ("outcome", "done"),
        ] {
            assert_eq!(decision[key], value, "{decision:#}");
        }
        let target = &decision["target"];
        assert_eq!(target["path"], place.program().display().to_string(), "{decision:#}");
        assert_eq!(target["cgroup"], place.scope());
        // A process that holds them back, or a machine that is too busy, leaves them out.
        let args = target["args"].as_array().map(|args| args.iter().collect::<Vec<_>>());
        assert!(args.is_none_or(|args| args.last().is_some_and(|arg| *arg == "601")), "{target:#}");
        let latency = decision["latency_ns"].as_u64().expect("the call names the event's time");
        assert!(latency > 0, "the clock of events is ours");
    }
    assert_eq!(agent.value("tipstaff_signal_delay_seconds_count", &["signaller"]), MANY as u64);
    let config = agent.configuration().display().to_string();
    let id = decisions[0]["id"].as_str().expect("an id");
    let (code, said, _) = agent.command(&["explain", id, "--config", &config]);
    assert_eq!(code, 0);
    let program = place.program().display().to_string();
    for part in ["signal done: KILL to process", "remediate", &program, "after the event"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn each_signal_is_the_one_that_is_asked_for() {
    if !can_probe("each_signal_is_the_one_that_is_asked_for") {
        return;
    }
    for (name, signal) in [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP)] {
        let place = Place::new();
        let agent = place.agent("enforce", "", &format!("signal = {name:?}\n"));
        // Tests may have been started to ignore some.
        let program = place.program().display().to_string();
        let mut process = place
            .run(Path::new("/usr/bin/env"), &["--default-signal=INT,HUP,TERM", &program, "600"]);
        assert_eq!(process.ends().signal(), Some(signal.as_raw()), "{name}");
        wait_for(&agent, "signal", "done", 1);
    }
}

#[test]
fn a_number_that_is_another_process_s_by_now_is_not_signalled() {
    if !can_probe("a_number_that_is_another_process_s_by_now_is_not_signalled") {
        return;
    }
    let place = Place::new();
    // One tick of the clock by which /proc tells the start, and a whole life.
    for later in [10_000_000_u64, 60_000_000_000] {
        let agent = place.agent("enforce", "", &format!("later = {later}\n"));
        let mut process = place.run(&place.program(), &["600"]);
        wait_for(&agent, "signal", "refused", 1);
        assert!(process.is_alive(), "nothing was sent");
        let [decision] = &decisions(&agent)[..] else { panic!("one decision") };
        assert!(decision["reason"].as_str().unwrap().contains("is another one"), "{decision:#}");
        assert_eq!(decision["target"]["pid"], process.pid());
        assert_eq!(decision["target"].get("path"), None, "nothing is said of the other one");
        assert_eq!(actions(&agent, "signal", "done"), 0);
    }
    // Who has ended is nobody.
    let mut process = place.bystander();
    let others = format!("others = [{:?}]\nmarked = \"never\"\n", process.named());
    process.0.kill().expect("ours");
    process.0.wait().expect("ours");
    let agent = place.agent("enforce", "", &others.replace("never", "602"));
    let mut killed = place.run(&place.program(), &["602"]);
    assert_eq!(killed.ends().signal(), KILLED);
    wait_for(&agent, "signal", "done", 1);
    wait_for(&agent, "signal", "failed", 1);
    let failed = decisions(&agent).into_iter().find(|d| d["outcome"] == "failed").expect("one");
    assert_eq!(failed["reason"], format!("process {} has ended", process.pid()));
}

#[test]
fn what_is_not_granted_or_promises_too_little_is_refused() {
    if !can_probe("what_is_not_granted_or_promises_too_little_is_refused") {
        return;
    }
    let place = Place::new();
    let settings = format!("[policy.signaller.settings]\nbelow = {:?}\n", "/nowhere/");
    let agent = Agent::start_in("enforce", &[&fixture("signaller")], &settings);
    let said = agent.tipstaff.log.join("\n");
    assert!(said.contains("[policy.signaller]\\n    grants = [\\\"guard-signal\\\"]"), "{said}");
    drop(agent);

    let agent = place.agent("enforce", "require = \"prevent\"", "");
    let said = agent.tipstaff.log.join("\n");
    assert!(said.contains("`guard-signal` is `remediate` on every kernel"), "{said}");
    drop(agent);

    let agent = place.agent("observe", "", "");
    let mut process = place.run(&place.program(), &["600"]);
    until("the policy is refused", || {
        let labels = ["the mode is `observe`, nothing is done"];
        (agent.value("signaller_results_total", &labels) == 1).then_some(())
    });
    assert!(process.is_alive());
    drop(agent);

    let config = place.directory.path().join("plan.toml");
    let text = format!("agent.cache_dir = \"cache\"\n{}", place.section("", ""));
    fs::write(&config, text).expect("written");
    let tipstaff = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tipstaff")).args(arguments).output();
        String::from_utf8(output.expect("it runs").stdout).expect("UTF-8")
    };
    let (file, config) = (fixture("signaller"), config.display().to_string());
    let file = file.display().to_string();
    let planned = tipstaff(&["plan", "--config", &config, "--policy", &file]);
    assert!(planned.contains("guard-signal: remediate, "), "{planned}");
    let inspected = tipstaff(&["inspect", &file]);
    assert!(inspected.contains("grants = [\"guard-signal\"]"), "{inspected}");
}
