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
use support::{agent::Agent, can_probe, fixture, until};
use tipstaff_runtime::mountinfo;
use world::World;

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
}

impl Place {
    fn new(table: &str) -> Self {
        let place = Self { world: World::new(), port: server() };
        let text = format!(
            "[agent]\ncache_dir = {:?}\n[policy.guarded]\ngrants = [\"guard-network\"]\nunpinned = true\n\
             [policy.guarded.settings]\nscope = \"command\"\ntable = {table:?}\n",
            place.path("cache").display().to_string(),
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
        command.arg("--policy").arg(fixture("guarded")).args(["--user", "root"]);
        command.args(["--format", "json", "--report"]).arg(self.path("report"));
        let output = command.arg("--").arg(deploy).stdin(Stdio::null()).output().expect("runs");
        let codes = fs::read_to_string(self.path("codes")).unwrap_or_default();
        let _ = fs::remove_file(self.path("codes"));
        (codes.lines().map(str::to_owned).collect(), output)
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
    if !can_probe("a_name_that_a_rule_denies_is_refused_to_every_program_and_the_others_resolve") {
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
    if !can_probe("an_address_is_allowed_by_the_name_that_was_asked_for_and_for_its_time") {
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
    if !can_probe("the_agent_judges_names_in_its_scope_alone_as_its_mode_says") {
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
