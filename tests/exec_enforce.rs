//! `tipstaff exec --enforce` and `--audit` on the running kernel, with the shipped policy: rules are in
//! force before the command's first act and after its last one, whoever dies.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use support::{can_probe, copy_program, fixture, shipped::shipped, until, vm};
use tempfile::TempDir;

/// What curl says of a call that is denied.
const DENIED: &str = "7";

/// Answers every request with an empty page.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
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

/// Two servers, one of which the rules deny, and all that a `tipstaff exec` needs.
struct Place {
    directory: TempDir,
    denied: u16,
    allowed: u16,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            directory: tempfile::tempdir().expect("a directory"),
            denied: server(),
            allowed: server(),
        };
        place.configure("command");
        place
    }

    fn configure(&self, scope: &str) {
        let text = format!(
            "[agent]\ncache_dir = {:?}\n{}[policy.deploy-guard]\ngrants = [\"guard-network\"]\nunpinned = true\n\
             [policy.deploy-guard.settings]\nscope = {scope:?}\ndeny = [\"tcp 127.0.0.1 {}\"]\n",
            vm::cache(self.directory.path()).display().to_string(),
            vm::limits(),
            self.denied
        );
        fs::write(self.path("tipstaff.toml"), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A curl of the shell's to one of the two, and its exit code to a file.
    fn curl(&self, port: u16, to: &str) -> String {
        let to = self.path(to);
        format!(
            "curl -s -o /dev/null --max-time 20 http://127.0.0.1:{port}/; echo $? >> {}",
            to.display()
        )
    }

    /// `tipstaff exec` with these flags and this script.
    fn exec(&self, flags: &[&str], script: &str) -> Command {
        let deploy = self.path("deploy.sh");
        fs::write(&deploy, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&deploy, fs::Permissions::from_mode(0o755)).expect("ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
        command.arg("exec").args(flags).arg("--config").arg(self.path("tipstaff.toml"));
        command.arg("--policy").arg(shipped("deploy-guard")).args(["--user", "root"]);
        command.args(["--format", "json", "--report"]).arg(self.path("report"));
        command.arg("--").arg(deploy).stdin(Stdio::null());
        command
    }

    fn written(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The alerts of the report.
    fn alerts(&self) -> Vec<serde_json::Value> {
        self.report("alert")
    }

    /// The lines of this type in the report.
    fn report(&self, kind: &str) -> Vec<serde_json::Value> {
        let report = self.written("report");
        let lines = report.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &serde_json::Value| line["type"] == kind).collect()
    }
}

/// Waits until the process whose number is in this file has ended; whoever adopted it may not have
/// looked at that yet.
fn until_ended(place: &Place, file: &str) {
    let pid = place.written(file);
    until("the process has ended", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

fn run(mut command: Command) -> Output {
    command.output().expect("it runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_denied_fails_from_the_first_act_on_and_the_report_names_who_tried() {
    if !can_probe("what_is_denied_fails_from_the_first_act_on_and_the_report_names_who_tried") {
        return;
    }
    let place = Place::new();
    let script = [place.curl(place.denied, "codes"), place.curl(place.allowed, "codes")].join("\n");
    for (flags, codes, verdict, code) in [
        (&["--enforce"][..], format!("{DENIED}\n0\n"), Some("denied"), 0),
        (&["--enforce", "--fail-on-block"], format!("{DENIED}\n0\n"), Some("denied"), 123),
        (&["--audit"], "0\n0\n".to_owned(), Some("would_deny"), 0),
        (&[], "0\n0\n".to_owned(), None, 0),
    ] {
        let output = run(place.exec(flags, &script));
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {}", errors(&output));
        assert_eq!(place.written("codes"), codes, "{flags:?}: {}", errors(&output));
        let alerts = place.alerts();
        let told: Vec<_> = alerts.iter().map(|alert| alert["labels"]["verdict"].as_str()).collect();
        assert_eq!(
            told,
            verdict.iter().map(|verdict| Some(*verdict)).collect::<Vec<_>>(),
            "{alerts:?}"
        );
        for alert in &alerts {
            let message = alert["message"].as_str().expect("text");
            let url =
                format!("`curl -s -o /dev/null --max-time 20 http://127.0.0.1:{}/`", place.denied);
            assert!(message.contains(&url), "{message}");
            assert_eq!(alert["labels"]["address"], format!("127.0.0.1:{}", place.denied));
            assert_eq!(alert["labels"]["protocol"], "tcp");
        }
        // And whatever policies say, the attempt is a line of its own.
        let blocked = place.report("blocked");
        let told: Vec<_> = blocked.iter().map(|line| line["verdict"].as_str()).collect();
        assert_eq!(told, verdict.iter().map(|verdict| Some(*verdict)).collect::<Vec<_>>());
        for line in &blocked {
            let address = format!("127.0.0.1:{}", place.denied);
            let command: Vec<_> = ["curl", "-s", "-o", "/dev/null", "--max-time", "20"].into();
            assert_eq!(line["destination"], address);
            assert_eq!(line["operation"], "connect");
            assert_eq!(
                line["command"].as_array().map(|args| args[..6].to_vec()),
                Some(command.into_iter().map(Into::into).collect())
            );
            assert_eq!(line["rule"], format!("deny connect,send tcp 127.0.0.1 {}", place.denied));
            assert_eq!(line["policy"], "deploy-guard");
        }
        let totals = place.report("blocked-total");
        let of = |name: &str| totals.iter().map(|total| total[name].as_u64()).collect::<Vec<_>>();
        let counted = |of: &str| u64::from(verdict == Some(of));
        if !flags.is_empty() {
            assert_eq!(of("denied"), [Some(counted("denied"))]);
            assert_eq!(of("would_deny"), [Some(counted("would_deny"))]);
            assert_eq!((of("told"), of("lost")), (vec![Some(1)], vec![Some(0)]));
        }
        fs::remove_file(place.path("codes")).expect("there");
    }
}

#[test]
fn without_the_rules_that_were_asked_for_the_command_does_not_start() {
    if !can_probe("without_the_rules_that_were_asked_for_the_command_does_not_start") {
        return;
    }
    let place = Place::new();
    // The root cgroup is never guarded: process 1 is in it.
    place.configure("cgroup:/");
    let script = format!("touch {}", place.path("made").display());
    let output = run(place.exec(&["--enforce"], &script));
    assert_eq!(output.status.code(), Some(125), "{}", errors(&output));
    assert!(errors(&output).contains("not done, so the command is not run"), "{}", errors(&output));
    assert!(!place.path("made").exists());
}

#[test]
fn the_tree_dies_with_the_wrapper_and_rules_hold_to_the_end() {
    if !can_probe("the_tree_dies_with_the_wrapper_and_rules_hold_to_the_end") {
        return;
    }
    let place = Place::new();
    let (curl, pid) = (place.curl(place.denied, "codes"), place.path("pid"));
    let script = format!("echo $$ > {}; while :; do {curl}; done", pid.display());
    let mut child =
        place.exec(&["--enforce"], &script).stderr(Stdio::null()).spawn().expect("runs");
    until("the command has tried", || (place.written("codes").lines().count() >= 5).then_some(()));
    child.kill().expect("ours");
    child.wait().expect("ours");
    until_ended(&place, "pid");
    let codes = place.written("codes");
    assert!(codes.lines().all(|code| code == DENIED), "{codes}");
}

#[test]
fn what_is_left_behind_ends_with_its_rules() {
    if !can_probe("what_is_left_behind_ends_with_its_rules") {
        return;
    }
    let place = Place::new();
    let pid = place.path("pid");
    let curl = place.curl(place.denied, "codes");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; sleep 600; {curl}' & while [ ! -s {0} ]; do sleep 0.01; done; exit 3",
        pid.display()
    );
    let output = run(place.exec(&["--enforce"], &script));
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    assert!(errors(&output).contains("which are killed"), "{}", errors(&output));
    until_ended(&place, "pid");
    assert!(!place.path("codes").exists());
}

#[test]
fn another_session_and_another_parent_are_no_way_out() {
    if !can_probe("another_session_and_another_parent_are_no_way_out") {
        return;
    }
    let place = Place::new();
    let curl = place.curl(place.denied, "codes");
    let codes = place.path("codes");
    let script = format!(
        "(setsid sh -c '(setsid sh -c \"{}\" &)' &)\nwhile [ ! -s {} ]; do sleep 0.01; done",
        curl.replace('$', "\\$"),
        codes.display()
    );
    let output = run(place.exec(&["--enforce"], &script));
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(place.written("codes"), format!("{DENIED}\n"), "{}", errors(&output));
}

#[test]
fn rules_that_come_and_go_often_still_come() {
    if !can_probe("rules_that_come_and_go_often_still_come") {
        return;
    }
    let place = Place::new();
    let upon = place.path("upon");
    copy_program("/bin/true", &upon);
    let text = format!(
        "[agent]\ncache_dir = {:?}\n{}[guard]\nactions_per_minute = 1000\nbreaker = 1000\n[policy.guarded]\n\
         grants = [\"guard-network\"]\nunpinned = true\nlimits.actions_per_minute = 1000\n[policy.guarded.settings]\n\
         scope = \"command\"\ntable = \"default allow\\ndeny connect tcp 127.0.0.1 {}\"\nupon = {upon:?}\nthen = \"flicker\"\n",
        vm::cache(place.directory.path()).display().to_string(),
        vm::limits(),
        place.denied
    );
    fs::write(place.path("tipstaff.toml"), text).expect("written");
    let deploy = place.path("deploy.sh");
    // The last of its actions denies the other server, too.
    let other = place.allowed;
    let script = format!(
        "#!/bin/sh\n{upon}\ntries=0\nuntil ! curl -s -o /dev/null --max-time 20 http://127.0.0.1:{other}/; do\n\
         tries=$((tries + 1)); [ $tries -lt 600 ] || exit 9; sleep 0.1\ndone\n",
        upon = upon.display(),
    );
    fs::write(&deploy, script).expect("written");
    fs::set_permissions(&deploy, fs::Permissions::from_mode(0o755)).expect("ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
    command
        .args(["exec", "--enforce", "--user", "root", "--config"])
        .arg(place.path("tipstaff.toml"));
    command.arg("--policy").arg(fixture("guarded")).arg("--").arg(deploy).stdin(Stdio::null());
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(!errors(&output).contains("Argument list too long"), "{}", errors(&output));
}
