//! What no policy may exceed.

use std::time::{Duration, Instant};

use super::*;

/// What in a trace would be done to another process. Calls that only the agent itself could mean are not
/// made, either.
const CALLS: &str =
    "kill,tkill,tgkill,rt_sigqueueinfo,rt_tgsigqueueinfo,pidfd_open,pidfd_send_signal,ptrace";

/// A trace of a process from now on, or what is made of its calls.
struct Strace(Child);

impl Strace {
    fn of(pid: u32, arguments: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-p", &pid.to_string()]).args(arguments);
        let child = strace.stdin(Stdio::null()).spawn().expect("strace runs");
        until("all threads are traced", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let is_traced = |thread: fs::DirEntry| {
                let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                !status.lines().any(|line| line == "TracerPid:\t0")
            };
            threads.flatten().all(is_traced).then_some(())
        });
        Self(child)
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, Signal::INT).expect("ours");
        self.0.wait().expect("ours");
    }
}

#[test]
fn in_audit_it_is_decided_and_nothing_at_all_is_sent() {
    if !can_probe("in_audit_it_is_decided_and_nothing_at_all_is_sent") {
        return;
    }
    let place = Place::new();
    let trace = place.directory.path().join("trace");
    let agent = place.agent("audit", "", "tree = true\n");
    let strace = Strace::of(
        agent.tipstaff.pid(),
        &["-e", &format!("trace={CALLS}"), "-o", &trace.display().to_string()],
    );
    let mut process = place.run(&place.program(), &["600"]);
    wait_for(&agent, "signal-tree", "audited", 1);
    let [decision] = &decisions(&agent)[..] else { panic!("one decision") };
    assert_eq!(decision["mode"], "audit");
    assert_eq!(decision["target"]["pid"], process.pid());
    assert!(decision["reason"].as_str().unwrap().contains("1 process"), "{decision:#}");
    assert!(process.is_alive());
    let calls = || fs::read_to_string(&trace).expect("strace wrote it");
    assert_eq!(calls(), "", "the agent asks the kernel for nothing");
    // And strace would have seen it.
    let (code, _, errors) = agent.command(&["mode", "enforce"]);
    assert_eq!(code, 0, "{errors}");
    let mut other = place.run(&place.program(), &["600"]);
    assert_eq!(other.ends().signal(), KILLED);
    wait_for(&agent, "signal-tree", "done", 1);
    until("strace has written it", || calls().contains("SIGKILL").then_some(()));
    assert!(process.is_alive());
    strace.stop();
}

#[test]
fn without_pidfd_nothing_is_sent() {
    if !can_probe("without_pidfd_nothing_is_sent") {
        return;
    }
    let place = Place::new();
    let agent = place.agent("enforce", "", "");
    let inject = ["-e", "trace=pidfd_open", "-e", "inject=pidfd_open:error=ENOSYS", "-o"];
    let arguments: Vec<&str> = inject.into_iter().chain(["/dev/null"]).collect();
    let strace = Strace::of(agent.tipstaff.pid(), &arguments);
    let mut process = place.run(&place.program(), &["600"]);
    wait_for(&agent, "signal", "refused", 1);
    assert!(process.is_alive());
    let [decision] = &decisions(&agent)[..] else { panic!("one decision") };
    assert!(decision["reason"].as_str().unwrap().contains("has no pidfd"), "{decision:#}");
    strace.stop();
}

/// In audit, so that nothing can go wrong: what is refused there is not even looked at by what sends.
#[test]
fn the_first_process_the_agent_and_what_it_descends_from_are_never_meant() {
    if !can_probe("the_first_process_the_agent_and_what_it_descends_from_are_never_meant") {
        return;
    }
    let place = Place::new();
    let mut agent = Agent::start_in("audit", &[&fixture("signaller")], "");
    let protected = [1, 2, agent.tipstaff.pid(), std::process::id()];
    let kernel = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
    let protected = protected.into_iter().filter(|pid| *pid != 2 || kernel);
    let named: Vec<_> = protected.map(named).collect();
    let count = named.len() as u64;
    grant(&mut agent, &place, &format!("others = {named:?}\n"));
    let mut process = place.run(&place.program(), &["600"]);
    wait_for(&agent, "signal", "audited", 1);
    wait_for(&agent, "signal", "refused", count);
    assert!(process.is_alive());
    let decisions = decisions(&agent);
    let reasons: Vec<_> = decisions.iter().filter_map(|d| d["reason"].as_str()).collect();
    for why in ["it is the first process", "it is the agent", "the agent descends from it"] {
        let times = reasons.iter().filter(|reason| reason.contains(why)).count();
        assert_eq!(times, 1, "{why}: {reasons:#?}");
    }
}

#[test]
fn a_policy_that_kills_everything_kills_its_budget_and_nobody_protected_and_ends_in_audit() {
    const BUDGET: usize = 6;
    const BREAKER: usize = 12;
    if !can_probe("a_policy_that_kills_everything_kills_its_budget_and_nobody_protected") {
        return;
    }
    let place = Place::new();
    let named = place.directory.path().join("named");
    copy_program("/bin/sleep", &named);
    let spared = place.cgroup.below("spared");
    // It sees what runs in the cgroup below, too.
    let section = place.section(&format!("limits.actions_per_minute = {BUDGET}"), "").replace(
        &format!("cgroup = {}", place.cgroup.id()),
        &format!("cgroup = {} or cgroup = {}", place.cgroup.id(), spared.id()),
    );
    let guard = format!(
        "[guard]\nbreaker = {BREAKER}\nprotected = [{:?}, \"cgroup:{}/spared\"]\n",
        named.display().to_string(),
        place.scope()
    );
    let begun = Instant::now();
    let agent = Agent::start_in("enforce", &[&fixture("signaller")], &format!("{guard}{section}"));
    let mut protected = [place.run(&named, &["600"]), run_in(&spared, &place.program(), &["600"])];
    wait_for(&agent, "signal", "refused", 2);
    let mut victims = Vec::new();
    for _ in 0..2 * BREAKER {
        victims.push(place.run(&place.program(), &["600"]));
    }
    wait_for(&agent, "breaker", "done", 1);
    until("all was asked for", || {
        let ok = agent.value("signaller_results_total", &["result=\"ok\""]);
        let refused = agent.value("signaller_results_total", &["its budget is"]);
        (ok + refused == 2 + 2 * BREAKER as u64).then_some(())
    });
    assert!(begun.elapsed() < Duration::from_mins(1), "a budget is one for a minute");
    // The protected ones took two of it.
    wait_for(&agent, "signal", "done", BUDGET as u64 - 2);
    let killed = until("they have ended", || {
        let killed = victims.iter_mut().filter_map(|process| process.0.try_wait().expect("ours"));
        let killed: Vec<_> = killed.collect();
        (killed.len() >= BUDGET - 2).then_some(killed)
    });
    assert_eq!(killed.len(), BUDGET - 2);
    assert!(killed.iter().all(|status| status.signal() == KILLED));
    assert!(protected.iter_mut().all(Process::is_alive));
    let (_, said, _) = agent.command(&["mode", "--format", "json"]);
    assert!(said.contains("audit") && said.contains("`breaker`"), "{said}");
    let reached = agent.value("tipstaff_limits_reached_total", &["actions_per_minute"]);
    assert_eq!(reached, 2 + 2 * BREAKER as u64 - BUDGET as u64);
    let reasons: Vec<_> = decisions(&agent).iter().map(|d| d["reason"].to_string()).collect();
    for why in ["which is protected", "is in the cgroup"] {
        assert!(reasons.iter().any(|reason| reason.contains(why)), "{why}: {reasons:#?}");
    }
}

#[test]
fn an_agent_in_a_pid_namespace_of_its_own_says_that_it_reaches_nobody() {
    if !can_probe("an_agent_in_a_pid_namespace_of_its_own_says_that_it_reaches_nobody") {
        return;
    }
    let place = Place::new();
    let config = place.directory.path().join("t.toml");
    let directory = |name: &str| place.directory.path().join(name).display().to_string();
    let text = format!(
        "[agent]\nmode = \"enforce\"\nname = \"test-ns-{}\"\ncache_dir = {:?}\nstate_dir = {:?}\n\
         policies = {:?}\n[metrics]\nlisten = \"127.0.0.1:0\"\n{}",
        std::process::id(),
        directory("cache"),
        directory("state"),
        directory("policies"),
        place.section("", "")
    );
    fs::write(&config, text).expect("written");
    fs::create_dir(directory("policies")).expect("made");
    fs::copy(fixture("signaller"), Path::new(&directory("policies")).join("signaller.wasm"))
        .expect("copied");
    // With the host's /proc; with its own the agent does not start.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_tipstaff"), "run"]);
    command.arg("--config").arg(&config);
    let mut tipstaff = support::Tipstaff::start(command);
    tipstaff.wait_for_log("ready");
    let mut process = place.run(&place.program(), &["600"]);
    let said = tipstaff.wait_for_log("signal refused");
    assert!(said.contains("a pid namespace of its own"), "{said}");
    assert!(process.is_alive());
}

#[test]
fn in_exec_nobody_but_the_command_is_signalled() {
    if !can_probe("in_exec_nobody_but_the_command_is_signalled") {
        return;
    }
    let place = Place::new();
    let mut outside = place.bystander();
    let config = place.directory.path().join("t.toml");
    let text = format!(
        "agent.cache_dir = {:?}\n[policy.signaller]\ngrants = [\"guard-signal\", \"urgent\"]\nunpinned = true\n\
         [policy.signaller.settings]\nbelow = {:?}\nothers = [{:?}]\n",
        place.directory.path().join("cache").display().to_string(),
        place.directory.path().display().to_string(),
        outside.named()
    );
    fs::write(&config, text).expect("written");
    let script = format!("{} 600; echo $?", place.program().display());
    let mut exec = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
    exec.args(["exec", "--enforce", "--user", "root", "--config"]).arg(&config);
    exec.arg("--policy").arg(fixture("signaller")).args(["--", "/bin/sh", "-c", &script]);
    let output = exec.stdin(Stdio::null()).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "137\n", "128 and KILL: {errors}");
    assert!(outside.is_alive(), "{errors}");
    assert!(errors.contains("`tipstaff exec` signals nobody else"), "{errors}");
}
