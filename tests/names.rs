//! Rules about names, on the running kernel: `tipstaff exec` and the agent, real programs, and a DNS server
//! that logs what it hears.

#[path = "support/cgroup.rs"]
mod cgroup;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;
#[path = "dns/world.rs"]
mod world;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use cgroup::Cgroup;
use support::{agent::Agent, can_probe, fixture, shipped::shipped, until, vm};
use tipstaff_runtime::mountinfo;
use world::World;

/// Whether this test can have names judged here; says so if not.
fn can_judge(test: &str) -> bool {
    let has_cookies = vm::release() >= (5, 14);
    if !has_cookies {
        eprintln!("SKIPPED {test}: rules about names need Linux 5.14");
    }
    has_cookies && can_probe(test)
}

/// A server that answers every request with an empty page, on all addresses of this network; its port.
fn server() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    port
}

/// A network with a DNS server and another one, and all that a `tipstaff exec` with a table needs.
struct Place {
    world: World,
    port: u16,
    policy: PathBuf,
}

impl Place {
    fn new(table: &str) -> Self {
        Self::with(
            "guarded",
            fixture("guarded"),
            &format!("scope = \"command\"\ntable = {table:?}"),
        )
    }

    fn with(name: &str, policy: PathBuf, settings: &str) -> Self {
        let place = Self { world: World::new(), port: server(), policy };
        let text = format!(
            "[agent]\ncache_dir = {:?}\n{}[policy.{name}]\ngrants = [\"guard-network\"]\nunpinned = true\n\
             [policy.{name}.settings]\n{settings}\n",
            vm::cache(place.world.path()).display().to_string(),
            vm::limits(),
        );
        fs::write(place.path("tipstaff.toml"), text).expect("written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    /// A line of a shell that writes what a program ends with.
    fn code(&self, command: &str) -> String {
        format!("{command} > /dev/null 2>&1; echo $? >> {}", self.path("codes").display())
    }

    fn curl(&self, host: &str) -> String {
        self.code(&format!("curl -s --max-time 20 http://{host}:{}/", self.port))
    }

    /// A line of a shell that writes the state of an answer.
    fn dig(&self, arguments: &str) -> String {
        format!(
            "dig +tries=1 +time=5 {arguments} | sed -n 's/.*status: \\([A-Z]*\\),.*/\\1/p' >> {}",
            self.path("codes").display()
        )
    }

    /// Runs these lines under `tipstaff exec`, in a world whose resolver is our server, and what they wrote.
    fn exec(&self, flags: &[&str], lines: &[String]) -> (Vec<String>, Output) {
        let deploy = self.path("deploy.sh");
        fs::write(&deploy, format!("#!/bin/sh\n{}\n", lines.join("\n"))).expect("written");
        fs::set_permissions(&deploy, fs::Permissions::from_mode(0o755)).expect("ours");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!(
            "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
            self.world.resolv_conf("127.0.0.53").display()
        ));
        command.arg(env!("CARGO_BIN_EXE_tipstaff")).arg("exec").args(flags);
        command.arg("--config").arg(self.path("tipstaff.toml"));
        command.arg("--policy").arg(&self.policy).args(["--user", "root"]);
        command.args(["--format", "json", "--report"]).arg(self.path("report"));
        let output = command.arg("--").arg(deploy).stdin(Stdio::null()).output().expect("runs");
        let codes = fs::read_to_string(self.path("codes")).unwrap_or_default();
        let _ = fs::remove_file(self.path("codes"));
        (codes.lines().map(str::to_owned).collect(), output)
    }

    /// The lines of this type in the report.
    fn report(&self, kind: &str) -> Vec<serde_json::Value> {
        let report = fs::read_to_string(self.path("report")).expect("written");
        let lines = report.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &serde_json::Value| line["type"] == kind).collect()
    }

    /// The names that the server was asked for, each once.
    fn heard(&self) -> Vec<String> {
        let mut names: Vec<_> = self.world.logged().into_iter().map(|(_, name)| name).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_name_that_a_rule_denies_is_refused_to_every_program_and_the_others_resolve() {
    if !can_judge("a_name_that_a_rule_denies_is_refused_to_every_program_and_the_others_resolve") {
        return;
    }
    let place = Place::new("default allow\ndeny name refused.test # deployed by this\n");
    let lines = [
        place.curl("refused.test"),
        place.curl("near.test"),
        place.curl("WWW.Refused.TEST"),
        place.code("getent ahosts refused.test"),
        place.code("/usr/bin/python3 -ISc 'import socket; socket.gethostbyname(\"refused.test\")'"),
        place.dig("@127.0.0.53 refused.test MX"),
        place.dig("@fd00::53 +tcp a.refused.test"),
        place.dig("@127.0.0.54 +tcp near.test"),
        place.dig("@127.0.0.54 unrefused.test"),
    ];
    let expected = ["6", "0", "6", "2", "1", "REFUSED", "REFUSED", "NOERROR", "NXDOMAIN"];
    let (codes, output) = place.exec(&["--enforce", "--fail-on-block"], &lines);
    assert_eq!(codes, expected, "{}", errors(&output));
    assert_eq!(output.status.code(), Some(123), "{}", errors(&output));
    assert_eq!(place.heard(), ["near.test", "unrefused.test"]);
    // Each query that was refused is a line, and all are counted.
    let blocked = place.report("blocked");
    for line in &blocked {
        let destination = line["destination"].as_str().expect("a text");
        assert!(destination.contains("refused.test ("), "{line}");
        assert_eq!(line["rule"], "deny name refused.test");
        assert_eq!(line["reason"], "deployed by this");
        assert_eq!((&line["operation"], &line["verdict"]), (&"resolve".into(), &"denied".into()));
    }
    let by = |program: &str| blocked.iter().filter(|line| line["command"][0] == program).count();
    assert_eq!([by("dig"), by("/usr/bin/python3")], [2, 1], "{blocked:?}");
    assert!(by("curl") >= 2 && by("getent") >= 1, "{blocked:?}");
    let totals = place.report("blocked-total");
    let told = Some(u64::try_from(blocked.len()).expect("few"));
    assert_eq!((totals[0]["denied"].as_u64(), totals[0]["told"].as_u64()), (told, told));
    assert_eq!(totals[0]["lost"], 0);
    // In audit nothing changes, and it is said that nothing is told.
    for flags in [&["--audit"][..], &[]] {
        let (codes, output) = place.exec(flags, &lines[..2]);
        assert_eq!(codes, ["7", "0"], "nothing listens at 192.0.2.9: {}", errors(&output));
        assert_eq!(errors(&output).contains("not tried in audit"), !flags.is_empty());
    }
    assert!(place.heard().contains(&"refused.test".to_owned()));
}

#[test]
fn an_address_is_allowed_by_the_name_that_was_asked_for_and_for_its_time() {
    if !can_judge("an_address_is_allowed_by_the_name_that_was_asked_for_and_for_its_time") {
        return;
    }
    let place = Place::new(
        "default deny\nallow name near.test\nallow name *.test\ndeny name far.test\nallow name brief.test\n\
         deny connect tcp 192.0.2.1\nallow name host.test\n",
    );
    let lines = [
        // By its address, which no name has been asked for.
        place.curl("127.0.0.1"),
        place.curl("near.test"),
        place.curl("127.0.0.1"),
        place.curl("far.test"),
        place.curl("10.7.7.7"),
        // The name stands for another one, and that for the one that is denied.
        place.curl("chain.test"),
        place.curl("10.7.7.7"),
        // What a rule denies no name allows.
        place.curl("host.test"),
        // Another server than that of this machine is not to be reached: what it says would count.
        place.code("dig @127.0.0.54 +tries=1 +time=2 near.test"),
        place.curl("brief.test"),
        "sleep 11".to_owned(),
        place.curl("10.7.7.8"),
        place.curl("10.7.7.7"),
        place.curl("brief.test"),
        // Port 0 of a name's address is no way to bind.
        place
            .code("/usr/bin/python3 -ISc 'import socket; socket.socket().bind((\"10.7.7.7\", 0))'"),
    ];
    let expected = ["7", "0", "0", "6", "7", "0", "0", "7", "9", "0", "7", "0", "0", "1"];
    let (codes, output) = place.exec(&["--enforce"], &lines);
    assert_eq!(codes, expected, "{}", errors(&output));
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn the_shipped_policy_tells_which_name_was_refused_and_who_called_what_is_deployed() {
    if !can_judge("the_shipped_policy_tells_which_name_was_refused_and_who_called_what_is_deployed")
    {
        return;
    }
    let settings = "deny = [\"name refused.test\"]\ndeployed = [\"near.test\"]";
    let place = Place::with("deploy-guard", shipped("deploy-guard"), settings);
    let lines = [place.curl("www.refused.test"), place.curl("near.test"), place.curl("far.test")];
    let (codes, output) = place.exec(&["--enforce"], &lines);
    assert_eq!(codes, ["6", "0", "0"], "{}", errors(&output));
    let command = |host: &str| format!("curl -s --max-time 20 http://{host}:{}/", place.port);
    let alerts = place.report("alert");
    assert!(!alerts.is_empty(), "{}", errors(&output));
    for alert in &alerts {
        let message = alert["message"].as_str().expect("a text");
        let begin = format!("`{}` was kept from udp www.refused.test", command("www.refused.test"));
        assert!(message.starts_with(&begin), "{message}");
        assert_eq!(alert["labels"]["rule"], "deny name refused.test");
    }
    let called: Vec<_> = place
        .report("metric")
        .into_iter()
        .filter(|metric| metric["name"] == "deploy_services_called_total")
        .map(|metric| metric["labels"].clone())
        .collect();
    let expected = serde_json::json!({
        "service": "near.test", "command": command("near.test"), "verdict": "allowed",
    });
    assert_eq!(called, [expected]);
}

fn scope(cgroup: &Cgroup) -> String {
    let mount = mountinfo::cgroup_v2().expect("the v2 hierarchy is mounted");
    let below = cgroup.path().strip_prefix(mount).expect("it is there");
    format!("cgroup:/{}", below.display())
}

/// The state of the answer to a query from this cgroup.
fn asks(cgroup: &Cgroup, arguments: &[&str]) -> String {
    let mut dig = cgroup.command("dig");
    let output = dig.args(["+tries=1", "+time=5"]).args(arguments).output().expect("dig runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let state = text.split_once("status: ").and_then(|(_, rest)| rest.split_once(','));
    state.map_or(text.clone(), |(state, _)| state.to_owned())
}

fn section(policy: &str, scope: &str, table: &str) -> String {
    format!(
        "[policy.{policy}]\ngrants = [\"guard-network\"]\nunpinned = true\n\
         [policy.{policy}.settings]\nscope = {scope:?}\ntable = {table:?}\n"
    )
}

#[test]
fn the_agent_judges_names_in_its_scope_alone_as_its_mode_says() {
    if !can_judge("the_agent_judges_names_in_its_scope_alone_as_its_mode_says") {
        return;
    }
    let world = World::new();
    let (inside, outside) = (Cgroup::new(), Cgroup::new());
    let below = inside.below("below");
    let mut agent = Agent::start_in("enforce", &[&fixture("guarded")], "");
    agent.configure(&section(
        "guarded",
        &scope(&inside),
        "default allow\ndeny name refused.test\n",
    ));
    agent.tipstaff.wait_for_log("set-table done");
    let query = ["@127.0.0.53", "refused.test"];
    let by_tcp = ["@127.0.0.53", "+tcp", "refused.test"];
    let denied = |agent: &Agent| {
        agent.value("tipstaff_denials_total", &["policy=\"guarded\"", "verdict=\"denied\""])
    };
    assert_eq!(asks(&inside, &query), "REFUSED");
    assert_eq!(asks(&below, &by_tcp), "REFUSED");
    assert_eq!(asks(&inside, &["@127.0.0.53", "near.test"]), "NOERROR");
    assert_eq!(world.logged().len(), 1);
    assert_eq!(asks(&outside, &query), "NOERROR");
    until("both are counted", || (denied(&agent) == 2).then_some(()));
    // In audit nothing is led away; back in enforce it is.
    let (code, _, said) = agent.command(&["mode", "audit"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(asks(&inside, &query), "NOERROR");
    let (code, _, said) = agent.command(&["mode", "enforce"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(asks(&inside, &by_tcp), "REFUSED");
    until("it is counted", || (denied(&agent) == 3).then_some(()));
    // Another table, and other names.
    agent.configure(&section("guarded", &scope(&inside), "default allow\ndeny name near.test\n"));
    agent.tipstaff.wait_for_log("set-table done");
    assert_eq!(asks(&inside, &["@127.0.0.53", "near.test"]), "REFUSED");
    assert_eq!(asks(&inside, &query), "NOERROR");
    let (code, _, said) = agent.command(&["release", "--all"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(asks(&inside, &["@127.0.0.53", "near.test"]), "NOERROR");
    agent.tipstaff.stop();
}

#[test]
fn names_are_denied_by_every_table_around_a_process_whichever_was_first() {
    if !can_judge("names_are_denied_by_every_table_around_a_process_whichever_was_first") {
        return;
    }
    let world = World::new();
    let outer = Cgroup::new();
    let inner = outer.below("inner");
    let mut agent =
        Agent::start_in("enforce", &[&fixture("guarded"), &shipped("deploy-guard")], "");
    let inside = format!(
        "[policy.deploy-guard]\ngrants = [\"guard-network\"]\nunpinned = true\n\
         [policy.deploy-guard.settings]\nscope = {:?}\ndeny = [\"name host.test\"]\n",
        scope(&inner)
    );
    let names = ["host.test", "refused.test", "near.test"];
    let states = |cgroup: &Cgroup| names.map(|name| asks(cgroup, &["@127.0.0.53", name]));
    agent.configure(&inside);
    agent.tipstaff.wait_for_log("set-table done");
    assert_eq!(states(&inner), ["REFUSED", "NOERROR", "NOERROR"]);
    assert_eq!(states(&outer), ["NOERROR"; 3]);
    // The outer one comes later; what leads away at the inner one comes first.
    let around = section("guarded", &scope(&outer), "default allow\ndeny name refused.test\n");
    agent.configure(&format!("{inside}{around}"));
    agent.tipstaff.wait_for_log("set-table done");
    assert_eq!(states(&inner), ["REFUSED", "REFUSED", "NOERROR"]);
    assert_eq!(states(&outer), ["NOERROR", "REFUSED", "NOERROR"]);
    // A table without names that denies the server denies it to who is led away, too.
    let table = "default allow\ndeny any any 127.0.0.53 # no server\n";
    agent.configure(&format!("{inside}{}", section("guarded", &scope(&outer), table)));
    agent.tipstaff.wait_for_log("set-table done");
    assert_eq!(states(&inner), ["REFUSED"; 3]);
    assert_eq!(asks(&inner, &["@127.0.0.54", "near.test"]), "NOERROR");
    let logged = world.logged();
    assert_eq!(logged.iter().filter(|(_, name)| name == "host.test").count(), 2, "{logged:?}");
    agent.tipstaff.stop();
}
