//! What cannot be kept is refused before the command starts, with the reason.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::{
    FILES, PYTHON, Place, can_confine, can_probe, keeps_rules,
    support::{Tipstaff, fixture},
};

/// What is said of tables that cannot be kept; the command did not run.
fn refused(place: &Place) -> String {
    let (said, output) = place.sh(&["--enforce"], "touch ran");
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(!place.path("work/ran").exists());
    said
}

#[test]
fn a_table_that_cannot_be_kept_is_refused_and_the_command_does_not_start() {
    if !can_confine("a_table_that_cannot_be_kept_is_refused_and_the_command_does_not_start") {
        return;
    }
    let place = Place::bare();
    std::os::unix::fs::symlink("nowhere", place.path("outside/dangling")).unwrap();
    for (files, expected) in [
        ("default deny\nallow read ROOT/none", "only what is there can be allowed"),
        ("default deny\nallow read outside", "line 2: path: expected a path from `/`"),
        ("default deny\nallow read /a/../b", "without `.`, `..` and `//` in it"),
        (
            "default deny\nallow look /",
            "line 2: accesses: expected some of list, read, write, execute",
        ),
        ("allow read /", "no default"),
        ("default deny\nallow execute /", "guard-file knows nothing of `execute`"),
        ("default allow\ndeny read ROOT/outside/dangling", "a symbolic link that leads nowhere"),
        ("default allow\ndeny read ROOT/outside/file/x", "it cannot be found out where"),
    ] {
        place.configure(&format!("files = {files:?}\n"));
        let said = refused(&place);
        assert!(said.contains(expected), "{files}: {said}");
    }
    // What may be missing is no error, and what is denied may be.
    place.configure("files = \"default allow\\nallow read -ROOT/none\\ndeny read ROOT/none/x\"\n");
    let (said, output) =
        place.sh(&["--enforce"], "mkdir ROOT/none && echo x > ROOT/none/x && cat ROOT/none/x");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

#[test]
fn rules_cannot_be_changed_when_the_command_runs() {
    if !can_confine("rules_cannot_be_changed_when_the_command_runs") {
        return;
    }
    let place = Place::bare();
    let files = FILES.replace('\n', "\\n");
    place.configure(&format!("files = \"{files}\"\nupon = \"/usr/bin/id\"\n"));
    let (said, output) =
        place.sh(&["--enforce"], "/usr/bin/id >/dev/null; sleep 0.5; cat ROOT/outside/secret/key");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the command runs: what it may do"), "{said}");
}

#[test]
fn what_this_kernel_cannot_keep_is_refused_with_the_reason() {
    let Err(error) = keeps_rules() else { return };
    if !can_probe("what_this_kernel_cannot_keep_is_refused_with_the_reason") {
        return;
    }
    let said = refused(&Place::new(FILES, ""));
    assert!(said.contains(&error.to_string()), "{said}");
}

/// Runs a command under a filter that makes `landlock_create_ruleset` fail with this error.
const WITHOUT: &str = r"
import ctypes, os, struct, sys
# ld nr; if it is 444, fail with that error; else go on
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | int(sys.argv[1])), (0x06, 0, 0, 0x7fff0000)]
text = b''.join(struct.pack('HBBI', *line) for line in code)
buffer = ctypes.create_string_buffer(text, len(text))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code), ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, program, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn a_kernel_without_landlock_is_told_and_nothing_is_run() {
    if !can_probe("a_kernel_without_landlock_is_told_and_nothing_is_run") {
        return;
    }
    let place = Place::new(FILES, "");
    for (error, expected) in [
        (38, "this kernel has no Landlock, which Linux has since 5.13"),
        (95, "Landlock is not among the security modules of this kernel"),
    ] {
        for require in ["", "require = \"prevent\"\n"] {
            let text = place.text("tipstaff.toml").replace("require = \"prevent\"\n", "");
            let text = text.replace("unpinned = true\n", &format!("unpinned = true\n{require}"));
            fs::write(place.path("tipstaff.toml"), text).unwrap();
            let exec = place.exec(&["--enforce"], &["/usr/bin/touch", "ran"]);
            let mut command = Command::new(PYTHON);
            command.args(["-I", "-S", "-c", WITHOUT, &error.to_string()]).arg(exec.get_program());
            let output =
                command.args(exec.get_args()).current_dir(place.path("work")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(said.contains(expected), "{said}");
            assert!(!place.path("work/ran").exists());
        }
    }
}

#[test]
fn an_agent_refuses_rules_about_files_as_it_starts_no_command() {
    if !can_probe("an_agent_refuses_rules_about_files_as_it_starts_no_command") {
        return;
    }
    let place = Place::new(FILES, "");
    let text = place.text("tipstaff.toml");
    let state = place.path("state").display().to_string();
    let text =
        text.replace("[agent]\n", &format!("[agent]\nmode = \"enforce\"\nstate_dir = {state:?}\n"));
    fs::write(place.path("tipstaff.toml"), text).unwrap();
    let config = place.path("tipstaff.toml");
    let policy = fixture("confined");
    let name = format!("paths-{}", std::process::id());
    let arguments = [
        "run",
        "--name",
        &name,
        "--config",
        config.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
    ];
    let mut tipstaff = Tipstaff::spawn(&arguments);
    let line = tipstaff.wait_for_log("set-files refused");
    assert!(line.contains("there is only the scope `command`, in `tipstaff exec`"), "{line}");
    tipstaff.stop();
}

#[test]
fn without_its_grants_a_policy_does_not_run() {
    if !can_probe("without_its_grants_a_policy_does_not_run") {
        return;
    }
    let place = Place::new(FILES, "");
    let text = place.text("tipstaff.toml").replace(", \"guard-exec\"]", "]");
    fs::write(place.path("tipstaff.toml"), text).unwrap();
    let said = refused(&place);
    assert!(said.contains("\"guard-exec\""), "{said}");
    let inspected = Command::new(env!("CARGO_BIN_EXE_tipstaff"))
        .arg("inspect")
        .arg(fixture("confined"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let inspected = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.contains("guard-file") && inspected.contains("guard-exec"), "{inspected}");
}
