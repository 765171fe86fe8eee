//! `tipstaff exec` on the running kernel: what the command finds is what it would find without us, the
//! policies see all of it and nothing else, and whatever dies, nothing is left.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use support::{PATIENCE, can_probe, copy_program, shipped::shipped, until, vm, vm::rounds};
use tempfile::TempDir;

/// What a `tipstaff exec` needs that shares nothing with others.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let cache = vm::cache(directory.path()).display().to_string();
        let text = format!("[agent]\ncache_dir = {cache:?}\n{}", vm::limits());
        fs::write(directory.path().join("tipstaff.toml"), text).expect("written");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `tipstaff exec` without a user and without a command.
    fn exec(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
        command.arg("exec").arg("--config").arg(self.path("tipstaff.toml"));
        command.arg("--policy").arg(shipped("exec-audit"));
        command.args(["--format", "json", "--report"]).arg(self.path("report"));
        for name in ["SUDO_UID", "SUDO_GID"] {
            command.env_remove(name);
        }
        command
    }

    /// The same as root.
    fn exec_as_root(&self) -> Command {
        let mut command = self.exec();
        command.args(["--user", "root"]);
        command
    }

    /// What the report says, line by line.
    fn report(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("report")).expect("a report");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// How many executions the policy has counted, of programs whose path ends so.
    fn executions(&self, ending: &str) -> u64 {
        let report = self.report();
        let summary = report.last().expect("a summary");
        assert_eq!(summary["lost"], serde_json::json!({}), "{summary}");
        let is_it = |line: &&serde_json::Value| {
            let exe = &line["labels"]["exe"];
            line["name"] == "exec_total" && exe.as_str().is_some_and(|exe| exe.ends_with(ending))
        };
        report.iter().filter(is_it).map(|line| line["value"].as_u64().expect("a number")).sum()
    }
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A Python script beside this file, for Debian's interpreter: the first one on PATH may be a shell
/// script.
fn script(name: &str) -> [PathBuf; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/exec").join(name);
    ["/usr/bin/python3".into(), path]
}

/// What there is in the kernel and in the process table of the `tipstaff exec` of that number.
fn left_of(pid: u32) -> Vec<String> {
    let mark = format!("/tipstaff/exec-{pid}-");
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").expect("there").flatten() {
        let arguments = text(&fs::read(entry.path().join("cmdline")).unwrap_or_default());
        let cgroups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if (arguments.contains(&mark) || cgroups.contains(&mark)) && !state.contains(") Z ") {
            left.push(format!("{}: {arguments:?}", entry.path().display()));
        }
    }
    for mount in cgroup_mounts() {
        for entry in fs::read_dir(mount.join("tipstaff")).into_iter().flatten().flatten() {
            if text(entry.file_name().as_bytes()).starts_with(&format!("exec-{pid}-")) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    left
}

fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("there");
    let lines = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
    lines.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Ids of the eBPF programs and maps that a process has open.
fn bpf_of(pid: u32) -> BTreeSet<(&'static str, String)> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let mut ids = BTreeSet::new();
    for info in infos {
        let info = fs::read_to_string(info.path()).unwrap_or_default();
        for (sort, key) in [("prog", "prog_id:"), ("map", "map_id:")] {
            let id = info.lines().find_map(|line| line.strip_prefix(key));
            ids.extend(id.map(|id| (sort, id.trim().to_owned())));
        }
    }
    ids
}

/// Waits until none of these eBPF objects is in the kernel.
fn until_unloaded(ids: &BTreeSet<(&'static str, String)>) {
    assert!(ids.iter().any(|(sort, _)| *sort == "prog"), "it had no program loaded: {ids:?}");
    until("programs and maps are gone", || {
        let is_there = |(sort, id): &(&str, String)| {
            let mut bpftool = Command::new("bpftool");
            bpftool.args([sort, "show", "id", id]).stdout(Stdio::null()).stderr(Stdio::null());
            bpftool.status().expect("bpftool runs").success()
        };
        (!ids.iter().any(is_there)).then_some(())
    });
}

fn until_nothing_is_left_of(pid: u32) {
    let mut left = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        left = left_of(pid);
        if left.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("left: {left:#?}");
}

/// The shell's `$?` after each of these.
fn codes(wrapper: &[&OsStr], commands: &[&[&str]]) -> Vec<String> {
    let code = |command: &&[&str]| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#""$@"; echo $?"#, "sh"]).args(wrapper).args(*command);
        shell.env_remove("SUDO_UID");
        text(&run(&mut shell).stdout)
    };
    commands.iter().map(code).collect()
}

#[test]
fn exit_codes_are_those_of_env() {
    if !can_probe("exit_codes_are_those_of_env") {
        return;
    }
    let place = Place::new();
    let exec = place.exec_as_root();
    let exec: Vec<&OsStr> = [exec.get_program()].into_iter().chain(exec.get_args()).collect();
    let exec = [exec.as_slice(), &["--".as_ref()]].concat();
    let commands: [&[&str]; 13] = [
        &["true"],
        &["sh", "-c", "exit 1"],
        &["sh", "-c", "exit 3"],
        &["sh", "-c", "exit 125"],
        &["sh", "-c", "exit 255"],
        &["sh", "-c", "kill -INT $$"],
        &["sh", "-c", "kill -TERM $$"],
        &["sh", "-c", "kill -KILL $$"],
        &["sh", "-c", "kill -SEGV $$"],
        &["/etc/passwd"],
        &["/"],
        &["/no/such/program"],
        &["no-such-program"],
    ];
    assert_eq!(codes(&exec, &commands), codes(&["env".as_ref()], &commands));
}

#[test]
fn a_failure_of_our_own_is_125_and_runs_nothing() {
    if !can_probe("a_failure_of_our_own_is_125_and_runs_nothing") {
        return;
    }
    let place = Place::new();
    let made = place.path("made");
    let bad = place.path("bad.wasm");
    fs::write(&bad, "no policy").expect("written");
    let missing = place.path("missing.wasm");
    let cases: [(&str, &[&OsStr], &str); 5] = [
        ("root", &["--no-such-flag".as_ref()], "--no-such-flag"),
        ("root", &["--policy".as_ref(), bad.as_ref()], "1 of 2 policies"),
        ("root", &["--policy".as_ref(), missing.as_ref()], "missing.wasm"),
        ("no such user", &[], "no such user"),
        ("", &[], "--user root"),
    ];
    for (user, more, expected) in cases {
        let mut command = place.exec();
        if !user.is_empty() {
            command.args(["--user", user]);
        }
        let output = run(command.args(more).args(["--", "touch"]).arg(&made));
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{errors}");
        assert!(errors.contains(expected), "no {expected:?} in: {errors}");
        assert!(!made.exists(), "the command was run: {errors}");
    }
}

/// What a program finds of who started it, run by `wrapper`.
fn inherited(wrapper: &[&OsStr], directory: &Path) -> serde_json::Value {
    let odd = OsStr::from_bytes(b"\xff\xfe \n\t'\"\\$x");
    // Descriptors, ignored and blocked signals, limits and the like that are not the usual ones.
    let set_up = "exec 7</etc/hostname 9>/dev/null; trap '' HUP USR2; umask 037; ulimit -S -n 700 -l 48; \
        echo 17 > /proc/self/oom_score_adj; export GROUP=$(ps -o pgid= -p $$ | tr -d ' ') \
        SESSION=$(ps -o sid= -p $$ | tr -d ' '); nice -n 3 \"$@\"";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", set_up, "sh"]).args(wrapper).args(script("inherited.py"));
    shell.args(["one".as_ref(), "".as_ref(), "--two".as_ref(), "--".as_ref(), odd]);
    shell.current_dir(directory).env_remove("SUDO_UID");
    shell.env("ODD", odd).env("HOME", "/root").env("USER", "root").env("LOGNAME", "root");
    let output = run(&mut shell);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn the_command_finds_what_it_would_find_without_us() {
    if !can_probe("the_command_finds_what_it_would_find_without_us") {
        return;
    }
    let place = Place::new();
    let exec = place.exec_as_root();
    let exec: Vec<&OsStr> = [exec.get_program()].into_iter().chain(exec.get_args()).collect();
    let exec = [exec.as_slice(), &["--".as_ref()]].concat();
    let mut with = inherited(&exec, place.directory.path());
    let mut without = inherited(&["env".as_ref()], place.directory.path());
    for found in [&mut with, &mut without] {
        // The pipes of each run have other numbers.
        for pipe in ["1", "2"] {
            let target = found["descriptors"][pipe][0].take();
            assert!(target.as_str().is_some_and(|target| target.starts_with("pipe:")), "{target}");
        }
    }
    assert_eq!(with["status"]["SigIgn"], without["status"]["SigIgn"]);
    assert_eq!(with, without);
}

#[test]
fn standard_input_and_output_pass_as_they_are_and_end_when_the_command_closes_them() {
    let test = "standard_input_and_output_pass_as_they_are_and_end_when_the_command_closes_them";
    if !can_probe(test) {
        return;
    }
    let place = Place::new();
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let seen = place.directory.path().join("seen");
    let mut child = place
        .exec_as_root()
        .args([
            "--",
            "sh",
            "-c",
            "cat; exec >&- <&-; until [ -e \"$0\" ]; do sleep 0.02; done; exit 9",
        ])
        .arg(&seen)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut input = child.stdin.take().expect("piped");
    let sent = bytes.clone();
    let writer = thread::spawn(move || input.write_all(&sent).expect("all is read"));
    let mut received = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut received).expect("read");
    assert!(child.try_wait().expect("ours").is_none(), "the output ended only with the command");
    fs::write(&seen, "").expect("written");
    writer.join().expect("written");
    assert!(received == bytes, "{} bytes of {}", received.len(), bytes.len());
    assert_eq!(child.wait().expect("ours").code(), Some(9));
}

#[test]
fn it_runs_as_who_called_sudo() {
    if !can_probe("it_runs_as_who_called_sudo") {
        return;
    }
    let place = Place::new();
    let show = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; grep -h Cap /proc/self/status | grep -v CapBnd";
    let mut command = place.exec();
    command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").env("HOME", "/root");
    let output = run(command.args(["--", "sh", "-c", show]));
    let groups = text(&run(Command::new("id").args(["-G", "nobody"])).stdout);
    let passwd = text(&run(Command::new("getent").args(["passwd", "nobody"])).stdout);
    let home = passwd.split(':').nth(5).expect("a home directory");
    let none = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:\t{:016x}\n", 0));
    let expected = format!("65534\n65534\n{groups}{home} nobody nobody\n{}", none.concat());
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));

    // Who says so gets root, and is told what that means.
    let output = run(place
        .exec_as_root()
        .env("SUDO_UID", "65534")
        .env("HOME", "/elsewhere")
        .args(["--", "sh", "-c", "id -u; echo $HOME"]));
    assert_eq!(text(&output.stdout), "0\n/root\n");
    assert!(text(&output.stderr).contains("can undo what watches it"), "{}", text(&output.stderr));
}

#[test]
fn it_does_not_run_as_a_user_whose_number_means_no_change() {
    if !can_probe("it_does_not_run_as_a_user_whose_number_means_no_change") {
        return;
    }
    let place = Place::new();
    let made = place.path("made");
    for (uid, gid, expected) in
        [("4294967295", "65534", "SUDO_UID"), ("65534", "4294967295", "SUDO_GID")]
    {
        let mut command = place.exec();
        command.env("SUDO_UID", uid).env("SUDO_GID", gid);
        let output = run(command.args(["--", "touch"]).arg(&made));
        assert_eq!(output.status.code(), Some(125));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
        assert!(!made.exists());
    }
}

/// Cgroups as systemd leaves them to a user: removed at the end, also when the test fails.
struct Delegated(PathBuf);

impl Delegated {
    const USER: &str = "65534";

    fn make() -> Self {
        let mount = cgroup_mounts().into_iter().next().expect("a v2 hierarchy");
        let delegated = Self(mount.join(format!("tipstaff-test-user-{}", std::process::id())));
        for name in ["", "from", "to"] {
            let path = delegated.0.join(name);
            fs::create_dir(&path).expect("a cgroup");
            for owned in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                let user = Some(65_534);
                std::os::unix::fs::chown(path.join(owned), user, user).expect("theirs");
            }
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&delegated.0, "trusted.delegate", b"1", flags).expect("marked");
        delegated
    }

    /// Runs it in the first of the two.
    fn run(&self, command: &Command) -> Output {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.0.join("from/cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        run(shell.env("SUDO_UID", Self::USER).env("SUDO_GID", Self::USER))
    }

    /// A shell that moves itself to the other one, and says where it is.
    fn leave(&self) -> [String; 3] {
        let to = self.0.join("to/cgroup.procs");
        let script =
            format!("echo $$ > {} && echo moved; grep ^0:: /proc/self/cgroup", to.display());
        ["sh".to_owned(), "-c".to_owned(), script]
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for name in ["from", "to", ""] {
            let _ = fs::remove_dir(self.0.join(name));
        }
    }
}

#[test]
fn a_command_does_not_leave_by_a_cgroup_that_is_its_users() {
    if !can_probe("a_command_does_not_leave_by_a_cgroup_that_is_its_users") {
        return;
    }
    let (place, delegated) = (Place::new(), Delegated::make());
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", Delegated::USER, "--regid", Delegated::USER, "--clear-groups"]);
    let free = delegated.run(setpriv.args(delegated.leave()));
    assert!(text(&free.stdout).starts_with("moved\n"), "nothing is tried: {free:?}");

    let output = delegated.run(place.exec().arg("--").args(delegated.leave()));
    let where_it_is = text(&output.stdout);
    assert!(where_it_is.starts_with("0::/tipstaff/exec-"), "{output:?}");
    assert!(text(&output.stderr).contains("echo"), "{output:?}");
}

/// Tells a thread to stop when the test ends, also when it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A tree of processes of all sorts, in a folder of its own, that runs `$1` and programs of this machine.
const TREE: &str = r#"
"$1"; "$1" & wait
(("$1" &) &)
setsid "$1"
setsid sh -c 'setsid "$0"; (setsid "$0" &)' "$1"
sh -c 'exec "$0"' "$1"
echo a b c | xargs -n 1 -P 3 "$1"
env sh -c 'for i in 1 2 3 4 5; do "$0"; done' "$1"
/usr/bin/python3 -S -c '
import os, subprocess, sys
subprocess.run([sys.argv[1]])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.argv[1], ["renamed", "x"])
    os._exit(0)
os.wait()
' "$1"
curl --silent http://127.0.0.1:1/ || true
sleep 0.5
"#;

#[test]
fn policies_see_each_program_of_the_tree_once_and_none_of_anybody_else() {
    if !can_probe("policies_see_each_program_of_the_tree_once_and_none_of_anybody_else") {
        return;
    }
    let place = Place::new();
    let program = place.path("program");
    copy_program("/bin/true", &program);
    // What others run has a name of its own, and the same one.
    let (other, stop) = (place.path("other"), AtomicBool::new(false));
    copy_program("/bin/true", &other);
    let calls = place.path("calls");
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for program in [&other, &program] {
                    Command::new(program).status().expect("it runs");
                }
            }
        });
        let status = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=execve,execveat", "-e", "signal=none", "-o"])
            .arg(&calls)
            .args(["sh", "-c", TREE, "sh"])
            .arg(&program)
            .status()
            .expect("strace runs");
        assert!(status.success());
        for _ in 0..rounds(3) {
            let output =
                run(place.exec_as_root().args(["--", "sh", "-c", TREE, "sh"]).arg(&program));
            assert!(output.status.success(), "{}", text(&output.stderr));
            let calls = fs::read_to_string(&calls).expect("strace wrote it");
            let done = |line: &&str| line.ends_with(" = 0");
            let all = calls.lines().filter(done).count() as u64;
            let call = format!("execve({program:?}, ");
            let own = calls.lines().filter(|line| line.contains(&call)).count();
            assert_eq!(place.executions("/program"), own as u64);
            assert_eq!(place.executions(""), all, "{calls}");
            assert_eq!(place.executions("/other"), 0);
        }
    });
}

#[test]
fn cgroups_below_are_seen_and_so_is_a_command_in_a_command() {
    if !can_probe("cgroups_below_are_seen_and_so_is_a_command_in_a_command") {
        return;
    }
    let place = Place::new();
    let program = place.path("program");
    copy_program("/bin/true", &program);
    let mount = cgroup_mounts().remove(0);
    let inside = r#"
        own=$1$(sed -n s/^0:://p /proc/self/cgroup)
        mkdir -p "$own/a/b/c"
        sh -c 'echo $$ > "$0/a/b/c/cgroup.procs"; "$1"; sh -c "$1"' "$own" "$2"
        rmdir "$own/a/b/c" "$own/a/b" "$own/a"
        shift 2
        "$@"
    "#;
    let mut within = place.exec_as_root();
    within.arg("--").arg(&program);
    let within: Vec<_> = [within.get_program()].into_iter().chain(within.get_args()).collect();
    let mut command = place.exec_as_root();
    // Its report is another one.
    let report = place.path("outer");
    let mut outer = Command::new(command.get_program());
    outer.args(command.get_args().map(|argument| {
        if argument == place.path("report") { report.as_os_str() } else { argument }
    }));
    command = outer;
    command.env_remove("SUDO_UID").args(["--", "sh", "-c", inside, "sh"]);
    let output = run(command.arg(&mount).arg(&program).args(within));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(place.executions("/program"), 1, "the inner one sees its own command");
    fs::rename(report, place.path("report")).expect("there");
    assert_eq!(place.executions("/program"), 3, "the outer one sees all: {:#?}", place.report());
}

#[test]
fn signals_to_tipstaff_reach_the_command_once() {
    if !can_probe("signals_to_tipstaff_reach_the_command_once") {
        return;
    }
    let place = Place::new();
    let exec = place.exec_as_root();
    // What started the tests may have them ignore some.
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(exec.get_program()).args(exec.get_args());
    let mut child = command
        .env_remove("SUDO_UID")
        .arg("--")
        .args(script("signals.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("it runs");
    let input = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert_eq!(next(), "listening");
    let pid = Pid::from_child(&child);
    let signals = [
        (Signal::INT, "SIGINT"),
        (Signal::TERM, "SIGTERM"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::WINCH, "SIGWINCH"),
        (Signal::TSTP, "SIGTSTP"),
        (Signal::CONT, "SIGCONT"),
    ];
    // Each comes before the next one, so that one that came twice would be read in its place.
    for (signal, name) in signals {
        kill_process(pid, signal).expect("it runs");
        assert_eq!(next(), name, "to tipstaff alone");
    }
    for (signal, name) in signals {
        kill_process_group(pid, signal).expect("it runs");
        assert_eq!(next(), name, "to the group");
    }
    drop(input);
    assert_eq!(lines.next().map(|line| line.expect("UTF-8")), None);
    assert_eq!(child.wait().expect("ours").code(), Some(0));
}

#[test]
fn on_a_terminal_job_control_is_as_without_us() {
    if !can_probe("on_a_terminal_job_control_is_as_without_us") {
        return;
    }
    let place = Place::new();
    let exec = place.exec_as_root();
    let mut python = Command::new("env");
    python
        .args(["--default-signal", "setsid", "-w"])
        .args(script("terminal.py"))
        .arg(exec.get_program())
        .args(exec.get_args());
    let output = run(python.env_remove("SUDO_UID"));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Starts a tree of processes that does not end by itself. It has begun when there is an output.
fn endless(place: &Place, more: &[&str]) -> Child {
    let tree = "setsid sleep 1000 & (sleep 1000 &); (setsid sh -c 'sleep 1000; true' &); echo begun; sleep 1000";
    place
        .exec_as_root()
        .args(more)
        .args(["--", "sh", "-c", tree])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs")
}

fn wait_for_output(child: &mut Child) {
    let output = child.stdout.as_mut().expect("piped");
    output.read_exact(&mut [0; 6]).expect("the command begins");
}

fn kill_and_wait(child: &mut Child) -> ExitStatus {
    child.kill().expect("ours");
    child.wait().expect("ours")
}

#[test]
fn when_tipstaff_is_killed_at_any_moment_the_tree_dies_and_nothing_is_left() {
    if !can_probe("when_tipstaff_is_killed_at_any_moment_the_tree_dies_and_nothing_is_left") {
        return;
    }
    let place = Place::new();
    // How far it gets in that time is another matter in a VM.
    for delay in [0, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300]
        .into_iter()
        .step_by(if vm::emulated() { 3 } else { 1 })
    {
        let mut child = endless(&place, &["--on-death", "kill"]);
        thread::sleep(Duration::from_millis(if vm::emulated() { delay * 20 } else { delay }));
        kill_and_wait(&mut child);
        // Before the keeper is there, an empty cgroup may be left to the next one that comes when the last
        // process of this one is gone.
        until("nothing is left", || {
            run(place.exec_as_root().args(["--", "true"]));
            left_of(child.id()).is_empty().then_some(())
        });
    }
    for _ in 0..rounds(5) {
        let mut child = endless(&place, &["--on-death", "kill"]);
        wait_for_output(&mut child);
        let bpf = bpf_of(child.id());
        kill_and_wait(&mut child);
        until_nothing_is_left_of(child.id());
        until_unloaded(&bpf);
    }
}

#[test]
fn with_release_the_command_lives_on_when_tipstaff_is_killed() {
    if !can_probe("with_release_the_command_lives_on_when_tipstaff_is_killed") {
        return;
    }
    let place = Place::new();
    let stop = place.path("stop");
    let wait = r#"echo begun; until [ -e "$0" ]; do sleep 0.02; done; echo "went on" > "$0""#;
    let mut child = place
        .exec_as_root()
        .args(["--", "sh", "-c", wait])
        .arg(&stop)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    wait_for_output(&mut child);
    kill_and_wait(&mut child);
    until("the keeper is gone", || {
        (!left_of(child.id()).iter().any(|left| left.contains("exec-keeper"))).then_some(())
    });
    fs::write(&stop, "").expect("written");
    until("it goes on", || (fs::read_to_string(&stop).ok()? == "went on\n").then_some(()));
    until("it has ended", || {
        left_of(child.id()).iter().all(|left| !left.starts_with("/proc")).then_some(())
    });
    run(place.exec_as_root().args(["--", "true"]));
    assert_eq!(left_of(child.id()), [""; 0], "the next one removes its cgroup");
}

#[test]
fn a_keeper_that_is_killed_is_replaced_and_said() {
    if !can_probe("a_keeper_that_is_killed_is_replaced_and_said") {
        return;
    }
    let place = Place::new();
    let mut child = place
        .exec_as_root()
        .args(["--on-death", "kill", "--", "sh", "-c", "echo begun; sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    wait_for_output(&mut child);
    let keeper = || {
        let left = left_of(child.id());
        let of = left.iter().find(|left| left.contains("exec-keeper"))?;
        of.strip_prefix("/proc/")?.split(':').next()?.parse::<i32>().ok()
    };
    let first = keeper().expect("a keeper");
    kill_process(Pid::from_raw(first).expect("a number"), Signal::KILL).expect("it runs");
    let second = until("another keeper", || keeper().filter(|pid| *pid != first));
    assert_ne!(first, second);
    let mut errors = BufReader::new(child.stderr.take().expect("piped")).lines();
    let said = errors.find(|line| line.as_ref().is_ok_and(|line| line.contains("keeper has died")));
    assert!(said.is_some(), "nothing was said");
    kill_and_wait(&mut child);
    until_nothing_is_left_of(child.id());
}

#[test]
fn what_a_command_leaves_behind_lives_on_and_is_named() {
    if !can_probe("what_a_command_leaves_behind_lives_on_and_is_named") {
        return;
    }
    let place = Place::new();
    let child = place
        .exec_as_root()
        .args(["--", "sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!; until grep -q sleep /proc/$!/comm; do :; done; exit 4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let wrapper = child.id();
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(4));
    let left: i32 = text(&output.stdout).trim().parse().expect("a number");
    let name = format!("{left} (sleep)");
    assert!(text(&output.stderr).contains(&name), "{}", text(&output.stderr));
    let next = run(place.exec_as_root().args(["--", "true"]));
    assert!(text(&next.stderr).contains(&name), "{}", text(&next.stderr));
    let left = Pid::from_raw(left).expect("a number");
    kill_process(left, Signal::KILL).expect("it lives on");
    until("it is gone", || {
        left_of(wrapper).iter().all(|left| !left.starts_with("/proc")).then_some(())
    });
    run(place.exec_as_root().args(["--", "true"]));
    assert_eq!(left_of(wrapper), [""; 0]);
}

#[test]
fn after_a_normal_end_nothing_is_left() {
    if !can_probe("after_a_normal_end_nothing_is_left") {
        return;
    }
    let place = Place::new();
    for _ in 0..rounds(5) {
        let mut child = place
            .exec_as_root()
            .args(["--", "sh", "-c", "echo begun; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        wait_for_output(&mut child);
        let bpf = bpf_of(child.id());
        drop(child.stdin.take());
        assert_eq!(child.wait().expect("ours").code(), Some(0));
        assert_eq!(left_of(child.id()), [""; 0]);
        until_unloaded(&bpf);
    }
}
