//! A policy that is granted `guard-network`, on the running kernel: what it asks for is done within what
//! the operator allows, and nothing else is.

#[path = "support/cgroup.rs"]
mod cgroup;
#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use cgroup::Cgroup;
use rustix::process::Signal;
use support::{agent::Agent, can_probe, copy_program, fixture, shipped::shipped, until};
use tempfile::TempDir;
use tipstaff_runtime::mountinfo;

/// What a test does in a cgroup.
trait Scoped {
    /// As policies write it.
    fn scope(&self) -> String;
    /// A process that stays in it.
    fn hold(&self, program: &str) -> Held;
    /// Exit code of a curl in it.
    fn curl(&self, server: &Server) -> i32;
}

impl Scoped for Cgroup {
    fn scope(&self) -> String {
        let mount = mountinfo::cgroup_v2().expect("the v2 hierarchy is mounted");
        let below = self.path().strip_prefix(mount).expect("it is there");
        format!("cgroup:/{}", below.display())
    }

    fn hold(&self, program: &str) -> Held {
        let child = self.command(program).arg("600").spawn().expect("runs");
        let held = Held(child);
        let procs = self.path().join("cgroup.procs");
        until("the process is in the cgroup, and another program", || {
            let is_in = fs::read_to_string(&procs).ok()?.contains(&held.0.id().to_string());
            let runs = fs::read_link(format!("/proc/{}/exe", held.0.id())).ok()?;
            (is_in && runs == Path::new(program)).then_some(())
        });
        held
    }

    fn curl(&self, server: &Server) -> i32 {
        let mut curl = self.command("curl");
        curl.args(["-s", "-o", "/dev/null", "--max-time", "20", &server.url()]);
        curl.stderr(Stdio::null()).status().expect("curl runs").code().expect("not killed")
    }
}

/// This process is in a cgroup until this is dropped.
struct Inside(PathBuf);

impl Inside {
    fn of(cgroup: &Cgroup) -> Self {
        fs::write(cgroup.path().join("cgroup.procs"), std::process::id().to_string()).expect("in");
        Self(mountinfo::cgroup_v2().expect("the v2 hierarchy is mounted").join("cgroup.procs"))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        fs::write(&self.0, std::process::id().to_string()).expect("out");
    }
}

/// The path of a cgroup below the mount.
fn path(cgroup: &Cgroup) -> String {
    cgroup.scope().trim_start_matches("cgroup:").to_owned()
}

/// A process, ended with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers every request with an empty page.
struct Server(u16);

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        });
        Self(port)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.0)
    }

    /// A table that denies it alone.
    fn denied(&self) -> String {
        format!("default allow\ndeny connect tcp 127.0.0.1 {}", self.0)
    }
}

const DENIED: i32 = 7;

/// The section of the policy, granted what it asks for; `more` are lines before its settings.
fn section(cgroup: &Cgroup, table: &str, more: &str, settings: &str) -> String {
    format!(
        "[policy.guarded]\ngrants = [\"guard-network\"]\nunpinned = true\n{more}\n\
         [policy.guarded.settings]\nscope = {:?}\ntable = {table:?}\n{settings}\n",
        cgroup.scope()
    )
}

fn actions(agent: &Agent, action: &str, outcome: &str) -> u64 {
    let labels = [&format!("action={action:?}"), &format!("outcome={outcome:?}")];
    agent.value("tipstaff_actions_total", &labels.map(String::as_str))
}

fn denials(agent: &Agent, verdict: &str) -> u64 {
    agent.value("tipstaff_denials_total", &[&format!("verdict={verdict:?}")])
}

fn wait_for(agent: &Agent, action: &str, outcome: &str, count: u64) {
    until(&format!("{count} times {action} {outcome}"), || {
        (actions(agent, action, outcome) >= count).then_some(())
    });
    assert_eq!(actions(agent, action, outcome), count);
}

fn decision_line(agent: &mut Agent, text: &str) -> String {
    agent.tipstaff.wait_for_log(text)
}

#[test]
fn what_a_policy_denies_fails_in_enforce_is_only_counted_in_audit_and_nothing_is_in_observe() {
    let name = "what_a_policy_denies_fails_in_enforce_is_only_counted_in_audit";
    if !can_probe(name) {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let table = server.denied();
    let more = "require = \"prevent\"";
    for (mode, code, denied, would_deny) in
        [("enforce", DENIED, 3, 0), ("audit", 0, 0, 3), ("observe", 0, 0, 0)]
    {
        let agent =
            Agent::start_in(mode, &[&fixture("guarded")], &section(&cgroup, &table, more, ""));
        match mode {
            "enforce" => wait_for(&agent, "set-table", "done", 1),
            "audit" => wait_for(&agent, "set-table", "audited", 1),
            _ => {
                until("the policy is refused", || {
                    let labels = ["the mode is `observe`, nothing is done"];
                    (agent.value("guarded_results_total", &labels) == 1).then_some(())
                });
                assert_eq!(actions(&agent, "set-table", "done"), 0);
            }
        }
        for _ in 0..3 {
            assert_eq!(cgroup.curl(&server), code, "{mode}");
        }
        let outside = Command::new("curl").args(["-s", &server.url()]).status().expect("runs");
        assert!(outside.success(), "outside of the cgroup nothing is denied");
        until("the kernel's counts", || {
            ((denials(&agent, "denied"), denials(&agent, "would_deny")) == (denied, would_deny))
                .then_some(())
        });
        let (_, code) = agent.tipstaff.stop();
        assert_eq!(code, 0);
        assert_eq!(cgroup.curl(&server), 0, "rules end with their agent");
    }
}

#[test]
fn what_is_not_granted_is_refused_with_the_lines_that_grant_it() {
    if !can_probe("what_is_not_granted_is_refused_with_the_lines_that_grant_it") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let settings = format!("[policy.guarded.settings]\nscope = {:?}\n", cgroup.scope());
    let mut agent = Agent::start_in("enforce", &[&fixture("guarded")], &settings);
    let said = agent.tipstaff.log.join("\n");
    assert!(said.contains("which is not granted"), "{said}");
    let granted = "[policy.guarded]\ngrants = [\"guard-network\"]\n";
    // One line of JSON.
    assert!(said.contains("[policy.guarded]\\n    grants = [\\\"guard-network\\\"]"), "{said}");
    agent.configure(granted);
    let line = decision_line(&mut agent, "only if that is granted to this very file");
    let at = line.find("sha256:").expect("the digest");
    let digest = &line[at..at + "sha256:".len() + 64];
    let inspected = Command::new(env!("CARGO_BIN_EXE_tipstaff"))
        .args(["inspect"])
        .arg(fixture("guarded"))
        .output()
        .expect("runs");
    let inspected = String::from_utf8(inspected.stdout).expect("UTF-8");
    assert!(inspected.contains(&format!("digest = [{digest:?}]")), "{inspected}");
    assert!(inspected.contains("grants = [\"guard-network\"]"), "{inspected}");
    drop(agent);
    let pinned = section(&cgroup, &server.denied(), "", "")
        .replace("unpinned = true", &format!("digest = [{digest:?}]"));
    let agent = Agent::start_in("enforce", &[&fixture("guarded")], &pinned);
    wait_for(&agent, "set-table", "done", 1);
    assert_eq!(cgroup.curl(&server), DENIED);
}

#[test]
fn the_mode_changes_while_the_agent_runs_and_release_lets_go_at_once() {
    if !can_probe("the_mode_changes_while_the_agent_runs_and_release_lets_go_at_once") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let table = server.denied();
    let mut agent =
        Agent::start_in("audit", &[&fixture("guarded")], &section(&cgroup, &table, "", ""));
    wait_for(&agent, "set-table", "audited", 1);
    assert_eq!(cgroup.curl(&server), 0);
    let (code, out, error) = agent.command(&["mode", "enforce"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("agent enforce\npolicy guarded enforce\n  table in cgroup:/"), "{out}");
    assert_eq!(cgroup.curl(&server), DENIED);
    let (_, out, _) = agent.command(&["mode", "audit", "--policy", "guarded"]);
    assert!(
        out.contains(
            "policy guarded audit (the mode of the policy is `audit`, as the operator said)"
        ),
        "{out}"
    );
    assert_eq!(cgroup.curl(&server), 0);
    agent.command(&["mode", "enforce", "--policy", "guarded"]);
    assert_eq!(cgroup.curl(&server), DENIED);
    // The same by the configuration.
    let lines = |mode: &str| section(&cgroup, &table, &format!("mode = {mode:?}"), "");
    let text = fs::read_to_string(agent.configuration()).expect("readable");
    let (head, _) = text.split_once("[policy.guarded]").expect("the section");
    fs::write(agent.configuration(), head).expect("written");
    agent.configure(&lines("audit"));
    assert_eq!(cgroup.curl(&server), 0);
    agent.configure(&lines("enforce"));
    until("denied again", || (cgroup.curl(&server) == DENIED).then_some(()));

    let (code, out, _) = agent.command(&["release", "--all"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("released 1 tables\nagent observe\npolicy guarded observe"), "{out}");
    assert_eq!(cgroup.curl(&server), 0);
    let (_, out, _) = agent.command(&["mode", "enforce"]);
    assert!(out.starts_with("agent enforce\npolicy guarded enforce"), "{out}");
    until("the policy is asked anew", || (cgroup.curl(&server) == DENIED).then_some(()));
    let (code, _, error) = agent.command(&["mode", "audit", "--policy", "nobody"]);
    assert_eq!((code, error.as_str()), (1, "tipstaff: there is no policy `nobody` that runs\n"));

    // Each step is a decision that can be explained, also when the agent is gone.
    let configuration = agent.configuration().display().to_string();
    let explain = ["explain", "--config", &configuration, "--last", "1000", "--format", "json"];
    let (code, out, error) = agent.command(&explain);
    assert_eq!(code, 0, "{error}");
    let released = out
        .lines()
        .find(|line| {
            line.contains("\"action\":\"release\"") && line.contains("\"scope\":\"cgroup:/")
        })
        .expect("the release is recorded");
    let id = released.split('"').nth(3).expect("the id comes first").to_owned();
    agent.tipstaff.signal(Signal::KILL);
    agent.tipstaff.wait();
    assert_eq!(cgroup.curl(&server), 0, "rules end with their agent, however that ends");
    let (code, out, _) = agent.command(&["explain", &id, "--config", &configuration]);
    assert_eq!(code, 0);
    assert!(out.contains(&id) && out.contains("asked for by  operator"), "{out}");
    let (code, _, error) = agent.command(&["mode"]);
    assert!(code == 1 && error.contains("no agent `test-"), "{error}");
    let (code, _, error) = agent.command(&["release", "--all"]);
    assert!(code == 1 && error.contains("no agent `test-"), "{error}");
}

#[test]
fn who_exceeds_his_budget_ends_in_audit_and_what_he_denied_before_stays_denied() {
    if !can_probe("who_exceeds_his_budget_ends_in_audit") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let directory = TempDir::new().expect("a directory");
    let program = directory.path().join("flood");
    copy_program("/bin/true", &program);
    let settings = format!("upon = {:?}\nthen = \"flood\"", program.display().to_string());
    let mut lines = section(&cgroup, &server.denied(), "", &settings);
    lines += "[policy.guarded.limits]\nactions_per_minute = 10\n[guard]\nbreaker = 20\n";
    let mut agent = Agent::start_in("enforce", &[&fixture("guarded")], &lines);
    wait_for(&agent, "set-table", "done", 1);
    let before = agent.value("tipstaff_limits_reached_total", &[r#"limit="actions_per_minute""#]);
    assert_eq!(before, 0);
    assert!(Command::new(&program).status().expect("runs").success());
    wait_for(&agent, "breaker", "done", 1);
    until("all 200 are answered", || {
        let ok = agent.value("guarded_results_total", &[r#"result="ok""#]);
        let limited =
            agent.value("tipstaff_limits_reached_total", &[r#"limit="actions_per_minute""#]);
        // The first was the table of the settings; then nine more are within the budget.
        (ok == 10 && limited == 191).then_some(())
    });
    // The breaker opened in the call: what that asked for was decided afterwards.
    wait_for(&agent, "set-table", "audited", 9);
    assert_eq!(actions(&agent, "set-table", "done"), 1);
    assert_eq!(cgroup.curl(&server), DENIED);
    let (_, out, _) = agent.command(&["mode"]);
    assert!(out.contains("policy guarded audit (it asked for more actions"), "{out}");
    assert!(out.contains(": denies"), "{out}");
    agent.command(&["mode", "enforce", "--policy", "guarded"]);
    let (_, out, _) = agent.command(&["mode"]);
    assert!(out.contains("policy guarded enforce\n"), "{out}");
    let _ = agent.tipstaff.log_so_far();
}

#[test]
fn what_is_protected_is_never_reached() {
    if !can_probe("what_is_protected_is_never_reached") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let directory = TempDir::new().expect("a directory");
    let sleep = directory.path().join("protected sleep");
    copy_program("/bin/sleep", &sleep);
    let sleep = sleep.to_str().expect("UTF-8");
    let guard = format!("[guard]\nprotected = [{sleep:?}]\n");
    let table = server.denied();
    let start = |scope: &str, guard: &str| {
        let lines = section(&cgroup, &table, "", "").replace(&cgroup.scope(), scope) + guard;
        let agent = Agent::start_in("enforce", &[&fixture("guarded")], &lines);
        // It is decided before the agent is ready.
        let said = agent.tipstaff.log.iter();
        let line = said.clone().find(|line| line.contains("set-table refused")).cloned();
        let line = line.unwrap_or_else(|| panic!("no refusal: {said:?}"));
        wait_for(&agent, "set-table", "refused", 1);
        assert_eq!(actions(&agent, "set-table", "done"), 0);
        line
    };
    let line = start("cgroup:/", "");
    assert!(line.contains("it is the root cgroup"), "{line}");
    let line = start("cgroup:/no/such", "");
    assert!(line.contains("there is no cgroup /no/such"), "{line}");
    let held = cgroup.hold(sleep);
    let line = start(&cgroup.scope(), &guard);
    let pid = held.0.id();
    assert!(
        line.contains(&format!("process {pid} is in it ({}): it runs ", path(&cgroup))),
        "{line}"
    );
    drop(held);
    let line = start(&cgroup.scope(), &format!("[guard]\nprotected = [{:?}]\n", cgroup.scope()));
    assert!(line.contains("is protected (`protected` in [guard])"), "{line}");
    // Its own cgroup: this process and the agent are in it for a moment.
    let inside = Inside::of(&cgroup);
    let line = start(&cgroup.scope(), "");
    drop(inside);
    assert!(line.contains("it is the agent") || line.contains("the agent descends"), "{line}");
}

#[test]
fn a_table_goes_with_its_policy_and_in_quarantine_stays_or_goes_as_configured() {
    if !can_probe("a_table_goes_with_its_policy") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let table = server.denied();
    let directory = TempDir::new().expect("a directory");
    let program = directory.path().join("panic");
    copy_program("/bin/true", &program);
    let settings = format!("upon = {:?}\nthen = \"set and panic\"", program.display().to_string());
    for (then, code) in [("hold", DENIED), ("release", 0)] {
        let more = format!("on_quarantine = {then:?}");
        let lines = section(&cgroup, &table, &more, &settings);
        let mut agent = Agent::start_in("enforce", &[&fixture("guarded")], &lines);
        wait_for(&agent, "set-table", "done", 1);
        until("quarantined", || {
            assert!(Command::new(&program).status().expect("runs").success());
            let labels = [r#"policy="guarded""#, r#"state="quarantined""#];
            (agent.value("tipstaff_transitions_total", &labels) == 1).then_some(())
        });
        wait_for(&agent, "quarantine", "done", 1);
        // What was asked for in a call that failed was never done.
        assert_eq!(actions(&agent, "set-table", "done"), 1);
        assert_eq!(cgroup.curl(&server), code, "{then}");
        let alert = agent.tipstaff.wait_for_output("the policy is quarantined, and its rules");
        assert!(alert.contains("critical"), "{alert}");
        agent.remove(&fixture("guarded"));
        until("nothing is denied", || (cgroup.curl(&server) == 0).then_some(()));
        // The rules go first, then it is told.
        wait_for(&agent, "release", "done", u64::from(then == "hold"));
    }
}

#[test]
fn deploy_guard_tells_which_command_tried_and_of_two_policies_the_one_that_denies_counts() {
    if !can_probe("deploy_guard_tells_which_command_tried") {
        return;
    }
    let (cgroup, wanted, unwanted) = (Cgroup::new(), Server::start(), Server::start());
    let mut lines = format!(
        "[policy.deploy-guard]\ngrants = [\"guard-network\"]\nunpinned = true\n\
         [policy.deploy-guard.settings]\nscope = {:?}\nallow = [\"tcp 127.0.0.1 {}\"]\ndeny_the_rest = true\n",
        cgroup.scope(),
        wanted.0
    );
    lines += &section(&cgroup, &wanted.denied(), "", "");
    let mut agent = Agent::start_in("enforce", &[&shipped("deploy-guard")], &lines);
    wait_for(&agent, "set-table", "done", 1);
    assert_eq!((cgroup.curl(&wanted), cgroup.curl(&unwanted)), (0, DENIED));
    let alert = agent.tipstaff.wait_for_output("was kept from");
    let command = format!("`curl -s -o /dev/null --max-time 20 {}`", unwanted.url());
    let told =
        format!("{command} was kept from tcp 127.0.0.1:{} (connect): the default", unwanted.0);
    assert!(alert.contains(&told) && alert.contains("critical"), "{alert}");
    let attempts = |agent: &Agent, server: &Server, verdict: &str| {
        let name = format!("name=\"127.0.0.1:{}\"", server.0);
        let verdict = format!("verdict={verdict:?}");
        agent.value("deploy_egress_attempts_total", &[&name, &verdict, r#"kind="connect""#])
    };
    until("both attempts are counted", || {
        let counted = (attempts(&agent, &wanted, "allowed"), attempts(&agent, &unwanted, "denied"));
        (counted == (1, 1)).then_some(())
    });
    assert_eq!(attempts(&agent, &unwanted, "allowed"), 0);
    assert_eq!(agent.value("deploy_egress_blocked_total", &[r#"stage="connect""#]), 1);

    agent.drop_in(&fixture("guarded"));
    let line = agent.tipstaff.wait_for_log("denies what");
    let conflict = format!(
        "this table, against that of `deploy-guard` in {}: `deny connect tcp 127.0.0.1 {}` denies what",
        cgroup.scope(),
        wanted.0
    );
    assert!(line.contains(&conflict), "{line}");
    assert_eq!(cgroup.curl(&wanted), DENIED, "one that denies is enough");
    // The other policy's denial is not counted by this one.
    assert_eq!(attempts(&agent, &wanted, "denied"), 0);
    agent.configure(&format!("[guard]\nalways_allow = [\"tcp 127.0.0.1 {}\"]\n", wanted.0));
    assert_eq!(cgroup.curl(&wanted), 0, "what the operator always allows nobody denies");
    assert_eq!(cgroup.curl(&unwanted), DENIED);
}

#[test]
fn in_audit_the_agent_does_nothing_to_any_process_or_cgroup() {
    if !can_probe("in_audit_the_agent_does_nothing_to_any_process_or_cgroup") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let table = server.denied();
    let trace = TempDir::new().expect("a directory");
    let file = trace.path().join("calls");
    // What could be done to a process or a cgroup, as the kernel is asked for it.
    let calls = "trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo,ptrace,open,openat,openat2,creat,mkdir,mkdirat,rmdir";
    let watched = |mode: &str| {
        let agent = Agent::start_in(mode, &[], &section(&cgroup, &table, "", ""));
        let mut strace = Command::new("strace")
            .args(["-f", "-qq", "-e", calls, "-o"])
            .arg(&file)
            .args(["-p", &agent.tipstaff.pid().to_string()])
            .spawn()
            .expect("strace runs");
        let status = format!("/proc/{}/status", agent.tipstaff.pid());
        until("the agent is traced", || {
            let text = fs::read_to_string(&status).ok()?;
            text.lines().find(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))?;
            Some(())
        });
        agent.drop_in(&fixture("guarded"));
        let outcome = if mode == "audit" { "audited" } else { "done" };
        wait_for(&agent, "set-table", outcome, 1);
        let code = cgroup.curl(&server);
        let tracer = rustix::process::Pid::from_child(&strace);
        rustix::process::kill_process(tracer, Signal::INT).expect("it runs");
        strace.wait().expect("it ends");
        let text = fs::read_to_string(&file).expect("a trace");
        let does = |line: &&str| {
            let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rmdir"];
            let opens = line.contains("/cgroup/") && writes.iter().any(|flag| line.contains(flag));
            let signals = ["kill(", "send_signal(", "sigqueueinfo(", "ptrace("];
            opens || signals.iter().any(|call| line.contains(call))
        };
        assert!(text.contains(&path(&cgroup)), "the trace shows how it looked at the cgroup");
        (code, text.lines().filter(does).map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(watched("audit"), (0, vec![]));
    // The same look finds what enforce does: the canary in its cgroup.
    let (code, did) = watched("enforce");
    assert_eq!(code, DENIED);
    assert!(did.iter().any(|line| line.contains("/tipstaff/exec-")), "{did:?}");
}

#[test]
fn what_is_asked_for_at_the_start_is_in_force_when_the_agent_is_ready() {
    if !can_probe("what_is_asked_for_at_the_start_is_in_force_when_the_agent_is_ready") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let lines = section(&cgroup, &server.denied(), "", "");
    let agent = Agent::start_in("enforce", &[&fixture("guarded")], &lines);
    assert_eq!(cgroup.curl(&server), DENIED);
    // The log as it was until then.
    let said = agent.tipstaff.log.join("\n");
    assert!(said.contains("set-table done"), "{said}");
}

#[test]
fn what_became_of_a_policys_file_takes_no_rules_and_keeps_no_mode_from_being_lowered() {
    if !can_probe("what_became_of_a_policys_file_takes_no_rules") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let lines = section(&cgroup, &server.denied(), "", "");
    let mut agent = Agent::start_in("enforce", &[&fixture("guarded")], &lines);
    let guarded = fixture("guarded");
    let file = guarded.file_name().and_then(|name| name.to_str()).expect("a name");
    agent.put(file, b"no policy");
    agent.tipstaff.wait_for_log("the policy that was loaded from there before goes on");
    agent.configure("[guard]\nbreaker = 99\n");
    assert_eq!(cgroup.curl(&server), DENIED);
    assert_eq!(actions(&agent, "release", "done"), 0);
    let (code, _, error) = agent.command(&["mode", "audit"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(cgroup.curl(&server), 0);
    // It was read as root's, and so is what runs.
    let (code, _, error) = agent.command(&["mode", "enforce"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(cgroup.curl(&server), DENIED);
    // From observe it is asked what the file is.
    agent.command(&["mode", "observe"]);
    let (code, _, error) = agent.command(&["mode", "enforce"]);
    assert!(code == 1 && error.contains("has changed since it was loaded"), "{error}");
}

#[test]
fn the_mode_is_not_raised_on_the_word_of_files_that_others_can_change() {
    if !can_probe("the_mode_is_not_raised_on_the_word_of_files_that_others_can_change") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let lines = section(&cgroup, &server.denied(), "", "");
    let agent = Agent::start_in("observe", &[&fixture("guarded")], &lines);
    for path in [agent.configuration(), &agent.policies] {
        let before = fs::metadata(path).expect("there").permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("ours");
        let (code, _, error) = agent.command(&["mode", "enforce"]);
        assert!(code == 1 && error.contains("can be written by others"), "{error}");
        fs::set_permissions(path, before).expect("ours");
        assert_eq!(cgroup.curl(&server), 0);
    }
    let (code, _, error) = agent.command(&["mode", "enforce"]);
    assert_eq!((code, error.as_str()), (0, ""));
    until("the policy is asked anew", || (cgroup.curl(&server) == DENIED).then_some(()));
}

#[test]
fn who_is_protected_from_now_on_is_let_out() {
    if !can_probe("who_is_protected_from_now_on_is_let_out") {
        return;
    }
    let (cgroup, server) = (Cgroup::new(), Server::start());
    let directory = TempDir::new().expect("a directory");
    let sleep = directory.path().join("sleep");
    copy_program("/bin/sleep", &sleep);
    let sleep = sleep.to_str().expect("UTF-8");
    let lines = section(&cgroup, &server.denied(), "", "");
    let mut agent = Agent::start_in("enforce", &[&fixture("guarded")], &lines);
    let held = cgroup.hold(sleep);
    assert_eq!(cgroup.curl(&server), DENIED);
    agent.configure(&format!("[guard]\nprotected = [{sleep:?}]\n"));
    assert_eq!(cgroup.curl(&server), 0);
    assert_eq!(actions(&agent, "protect", "undone"), 1);
    drop(held);
}
