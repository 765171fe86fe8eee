//! Rules about files and programs for the command of `tipstaff exec`, with real programs: what a table denies
//! fails by whatever way it is tried, what it allows works, and what is no way of a table's is shown as that.

#[path = "exec_paths/agent.rs"]
mod agent;
#[path = "exec_paths/limits.rs"]
mod limits;
#[path = "exec_paths/report.rs"]
mod report;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;
#[path = "exec_paths/wrong.rs"]
mod wrong;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use support::{can_probe, fixture, ways_program};
use tempfile::TempDir;
use tipstaff_runtime::{
    exec::{Domain, DomainError},
    guard::paths::{Access, Home, Resolved},
};

/// Not the `python3` that is first on PATH, which may be a script that runs others.
const PYTHON: &str = "/usr/bin/python3";
/// What nobody may read.
const SECRET: &str = "the secret";

/// Whether this kernel keeps rules about files; where not, with the reason.
fn keeps_rules() -> Result<(), DomainError> {
    let table = "default deny".parse().expect("a table");
    let table = Resolved::new(&table, &Home::default())?;
    Domain::new(&table, &[Access::List, Access::Read, Access::Write]).map(drop)
}

/// Whether this test can put a command under rules; says so if not, and fails in CI.
fn can_confine(test: &str) -> bool {
    can_probe(test)
        && keeps_rules().map_err(|error| support::skip(test, &error.to_string())).is_ok()
}

/// A working directory, a secret beside it, and all that a `tipstaff exec` needs.
struct Place {
    directory: TempDir,
    policy: &'static str,
    /// Who runs the command.
    user: &'static str,
}

impl Place {
    /// With these tables about files and programs; `ROOT` in them is the directory.
    fn new(files: &str, programs: &str) -> Self {
        let place = Self::bare();
        place.configure(&format!("files = {files:?}\nprograms = {programs:?}\n"));
        place
    }

    fn bare() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // Nothing is to be denied by permissions.
        let open = |path: &str, mode| {
            let path = directory.path().join(path);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        };
        for name in ["work", "outside", "outside/secret", "outside/open"] {
            fs::create_dir(directory.path().join(name)).expect("ours");
            open(name, 0o777);
        }
        open("", 0o755);
        for (name, text) in [
            ("outside/secret/key", SECRET),
            ("outside/file", "outside"),
            ("outside/open/file", "open"),
        ] {
            fs::write(directory.path().join(name), text).expect("ours");
            open(name, 0o666);
        }
        Self { directory, policy: "confined", user: "root" }
    }

    fn configure(&self, settings: &str) {
        let settings = settings.replace("ROOT", self.directory.path().to_str().expect("text"));
        let text = format!(
            "[agent]\ncache_dir = {:?}\n[policy.{}]\n\
             grants = [\"guard-network\", \"guard-file\", \"guard-exec\"]\nunpinned = true\n[policy.{}.settings]\n{settings}",
            self.path("cache").display().to_string(),
            self.policy,
            self.policy
        );
        fs::write(self.path("tipstaff.toml"), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `tipstaff exec` with these flags and this command, in the working directory.
    fn exec(&self, flags: &[&str], command: &[&str]) -> Command {
        let mut exec = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
        exec.arg("exec").args(flags).arg("--config").arg(self.path("tipstaff.toml"));
        let policy = match self.policy {
            "confined" => fixture("confined"),
            shipped => support::shipped::shipped(shipped),
        };
        exec.arg("--policy").arg(policy).args(["--user", self.user]);
        exec.args(["--format", "json", "--report"]).arg(self.path("report"));
        exec.arg("--").args(command).stdin(Stdio::null()).current_dir(self.path("work"));
        exec
    }

    /// The same with a script of the shell's; `ROOT` in it is the directory. Output and errors of it.
    fn sh(&self, flags: &[&str], script: &str) -> (String, Output) {
        let script = script.replace("ROOT", self.directory.path().to_str().expect("text"));
        let output = self.exec(flags, &["/bin/sh", "-c", &script]).output().expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout) + &text(&output.stderr), output)
    }

    /// Each of these scripts in a shell of its own, all within one `tipstaff exec`: what it said, and its
    /// exit code.
    fn each<'a>(
        &self,
        flags: &[&str],
        scripts: impl IntoIterator<Item = &'a str>,
    ) -> Vec<(String, i32)> {
        let scripts =
            scripts.into_iter().map(|script| format!("(\n{script}\n) 2>&1\nprintf '|%s|' $?"));
        let (said, output) = self.sh(flags, &scripts.collect::<Vec<_>>().join("\n"));
        assert_eq!(output.status.code(), Some(0), "{said}");
        let said = String::from_utf8_lossy(&output.stdout);
        let parts: Vec<_> = said.split('|').collect();
        let (each, _) = parts.as_chunks::<2>();
        each.iter().map(|[said, code]| (said.to_string(), code.parse().expect(said))).collect()
    }

    /// The lines of this type in the report.
    fn report(&self, kind: &str) -> Vec<serde_json::Value> {
        let report = self.text("report");
        let lines = report.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &serde_json::Value| line["type"] == kind).collect()
    }

    /// Whether everything outside is as it was.
    fn is_untouched(&self) -> bool {
        let names = |of: &str| {
            let mut names: Vec<_> = fs::read_dir(self.path(of))
                .expect("there")
                .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
                .collect();
            names.sort();
            names.join(" ")
        };
        self.text("outside/secret/key") == SECRET
            && self.text("outside/file") == "outside"
            && self.text("outside/open/file") == "open"
            && (names("outside"), names("outside/secret"), names("outside/open"))
                == ("file open secret".into(), "key".into(), "file".into())
    }
}

/// Everything is read but the secret, and only the working directory is written.
const FILES: &str = "default deny\nallow list,read /\ndeny list,read ROOT/outside/secret # keys\n\
                     allow write .\nallow write /dev/null\n";

#[test]
fn programs_get_what_is_allowed_and_nothing_else() {
    if !can_confine("programs_get_what_is_allowed_and_nothing_else") {
        return;
    }
    for user in ["root", "nobody"] {
        let place = Place { user, ..Place::new(FILES, "") };
        // In the working directory all works.
        let (said, output) = place.sh(
            &["--enforce"],
            "set -e; export HOME=ROOT/work GIT_CONFIG_NOSYSTEM=1
             echo one > a; cat a; cp a b; mv b c; ln c d; ln -s a e; mkdir f; rm -r f d e; truncate -s 0 c; : > c
             git init -q repository && cp a repository && cd repository && git add a && git -c user.name=x -c user.email=x@x commit -qm one && git log --oneline | grep -c .
             /usr/bin/python3 -I -c 'open(\"g\", \"w\").write(\"two\"); print(open(\"g\").read())'
             cat ROOT/outside/file; ls ROOT/outside/open",
        );
        assert_eq!(output.status.code(), Some(0), "{user}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one\n1\ntwo\noutsidefile\n", "{user}");
        // And outside nothing does.
        let commands = [
            "cat ROOT/outside/secret/key",
            "cp ROOT/outside/secret/key .",
            "ls ROOT/outside/secret",
            "/usr/bin/python3 -I -c 'print(open(\"ROOT/outside/secret/key\").read())'",
            "git hash-object ROOT/outside/secret/key",
            "git -c safe.directory='*' -C ROOT/outside init -q .",
            "cp a ROOT/outside/new",
            "echo x > ROOT/outside/file",
            "echo x >> ROOT/outside/file",
            "truncate -s 0 ROOT/outside/file",
            "rm -f ROOT/outside/file",
            "rm -rf ROOT/outside/open",
            "mv ROOT/outside/file ROOT/outside/moved",
            "mv ROOT/outside/file .",
            "mv a ROOT/outside/",
            "ln ROOT/outside/secret/key key",
            "ln a ROOT/outside/a",
            "ln -s a ROOT/outside/a",
            "mkdir ROOT/outside/new",
            "mkfifo ROOT/outside/new",
            "mknod ROOT/outside/new p",
            "dd if=/dev/null of=ROOT/outside/file status=none",
        ];
        let results = place.each(&["--enforce"], commands);
        assert_eq!(results.len(), commands.len());
        for (command, (said, code)) in commands.iter().zip(results) {
            assert_ne!(code, 0, "{user}: {command}: {said}");
            assert!(!said.contains(SECRET), "{user}: {command}: {said}");
        }
        assert!(place.is_untouched(), "{user}");
        assert!(!place.path("work/key").exists());
    }
}

#[test]
fn no_way_around_leads_to_what_is_denied() {
    if !can_confine("no_way_around_leads_to_what_is_denied") {
        return;
    }
    let place = Place::new(FILES, "");
    let ways = ways_program().display().to_string();
    let python = |script: &str| format!("{PYTHON} -I -S -c '{script}'");
    let secret = "ROOT/outside/secret/key";
    fs::write(place.path("work/a"), "x").unwrap();
    let mut outside = Command::new("sleep").arg("600").spawn().unwrap();
    let scripts: Vec<(&str, String)> = vec![
        ("double fork", format!("(setsid sh -c '(setsid cat {secret} &)'; sleep 0.2); sleep 0.3")),
        ("symbolic link", format!("ln -s {secret} link && cat link")),
        ("symbolic link to the directory", "ln -s ROOT/outside dir && cat dir/secret/key".to_owned()),
        ("dots", "cat ROOT/work/../outside/./secret/key".to_owned()),
        ("from within", "cd ROOT/outside/secret && cat key".to_owned()),
        ("hard link", format!("ln {secret} hard; cat hard")),
        ("renamed away", format!("mv {secret} mine; cat mine")),
        ("its directory renamed away", "mv ROOT/outside/secret mine; cat mine/key".to_owned()),
        ("root of this process", format!("cat /proc/self/root{secret}")),
        ("root of process 1", format!("cat /proc/1/root{secret}")),
        ("a mount", "unshare -m sh -c 'mount --bind ROOT/outside/secret ROOT/work && cat key'".to_owned()),
        ("a user namespace", format!("unshare -rm cat {secret}")),
        (
            "a second thread",
            python(&format!(
                "import threading; t = threading.Thread(target=lambda: print(open(\"{secret}\").read())); t.start(); t.join()"
            )),
        ),
        (
            "a path opened before",
            python(&format!(
                "import os; f = os.open(\"{secret}\", os.O_PATH); print(open(f\"/proc/self/fd/{{f}}\").read())"
            )),
        ),
        (
            "from the directory",
            python("import os; d = os.open(\"ROOT/outside\", os.O_PATH); print(os.read(os.open(\"secret/key\", os.O_RDONLY, dir_fd=d), 99))"),
        ),
        (
            "truncated while reading",
            python("import os; os.open(\"ROOT/outside/file\", os.O_RDONLY | os.O_TRUNC)"),
        ),
        ("truncated by its path", python("import os; os.truncate(\"ROOT/outside/file\", 0)")),
        ("exchanged", "/usr/bin/python3 -I -S -c 'import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.renameat2(-100, b\"a\", -100, b\"ROOT/outside/file\", 2), ctypes.get_errno())'".to_owned()),
        ("32-bit calls", format!("{ways} compat-open {secret}; {ways} compat-open ROOT/outside/file")),
        ("io_uring", format!("{ways} uring-open {secret} && {ways} uring-open ROOT/outside/file | tail -n +2 | head -1")),
        ("a debugger of who is outside", python(&format!("import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.ptrace(16, {}, 0, 0), ctypes.get_errno())", outside.id()))),
    ];
    let results = place.each(&["--enforce"], scripts.iter().map(|(_, script)| script.as_str()));
    assert_eq!(results.len(), scripts.len());
    for ((name, _), (said, code)) in scripts.iter().zip(results) {
        assert!(!said.contains(SECRET), "{name}: {said}");
        match *name {
            "32-bit calls" => assert_eq!(said, "-13\n-13\n3\n-13\n"),
            "io_uring" if code != 77 => assert_eq!(said, "-13\n-13\n-13\n-13\n"),
            "io_uring" => support::skip(name, "this kernel gives no ring"),
            "exchanged" => assert!(said.starts_with("-1 "), "{said}"),
            "a debugger of who is outside" => assert_eq!(said, "-1 1\n"),
            "double fork" | "a second thread" => {
                assert!(said.contains("Permission denied"), "{said}");
            }
            _ => assert_ne!(code, 0, "{name}: {said}"),
        }
    }
    assert!(place.is_untouched());
    outside.kill().unwrap();
    outside.wait().unwrap();
    // That these do read it where nothing denies it: else they would prove nothing.
    for script in [format!("cat {secret}"), "cat /proc/self/rootROOT/outside/secret/key".to_owned()]
    {
        let (said, _) = place.sh(&["--audit"], &script);
        assert!(said.contains(SECRET), "{said}");
    }
}

#[test]
fn only_the_programs_of_the_table_are_run() {
    if !can_confine("only_the_programs_of_the_table_are_run") {
        return;
    }
    let place = Place::new(
        "",
        "default deny\nallow execute /bin/sh\nallow execute /bin/cat\nallow execute ./tool\n\
         allow execute -/lib64/ld-linux-x86-64.so.2\n",
    );
    for (name, text) in
        [("tool", "#!/bin/sh\necho tool\n"), ("perl", "#!/usr/bin/env sh\necho env\n")]
    {
        fs::write(place.path("work").join(name), text).unwrap();
        fs::set_permissions(place.path("work").join(name), fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    support::copy_program("/bin/true", place.path("work/copy"));
    std::os::unix::fs::symlink("/bin/true", place.path("work/link")).unwrap();
    let scripts = [
        ("cat /dev/null", 0),
        ("/bin/cat /dev/null", 0),
        ("./tool", 0),
        ("/bin/true", 126),
        ("./copy", 126),
        ("./perl", 126),
        ("./link", 126),
        ("exec /bin/true", 126),
        ("cp /bin/true here", 126),
        ("true; /usr/bin/env true", 126),
    ];
    let results = place.each(&["--enforce"], scripts.map(|(script, _)| script));
    for ((script, expected), (said, code)) in scripts.iter().zip(results) {
        assert_eq!(code, *expected, "{script}: {said}");
    }
    // The command itself is no exception, and the message says what it may be.
    let output = place.exec(&["--enforce"], &["/bin/ls"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(126));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("cannot run `/bin/ls`: Permission denied (os error 13) (or the rules about files and programs"), "{errors}");
}

#[test]
fn what_is_not_the_commands_is_not_changed() {
    if !can_confine("what_is_not_the_commands_is_not_changed") {
        return;
    }
    let place = Place::new(FILES, "");
    let script = "touch began; while [ ! -e go ]; do sleep 0.05; done; cat ROOT/outside/secret/key"
        .replace("ROOT", place.directory.path().to_str().expect("text"));
    let mut child = place
        .exec(&["--enforce"], &["/bin/sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    support::until("the command runs", || place.path("work/began").exists().then_some(()));
    // Beside it everybody reads and writes as ever.
    for _ in 0..20 {
        let read =
            Command::new("cat").arg(place.path("outside/secret/key")).output().expect("runs");
        assert_eq!(read.stdout, SECRET.as_bytes());
        fs::write(place.path("outside/file"), "outside").expect("written");
    }
    fs::write(place.path("work/go"), "").expect("written");
    assert_eq!(child.wait().expect("ours").code(), Some(1), "the command itself is denied");
}
