//! The commands for authors of policies, run as a user runs them.

mod court;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use court::{build, guest::guest, root};

const TIPSTAFF: &str = env!("CARGO_BIN_EXE_tipstaff");

fn tipstaff(arguments: &[&str], directory: &Path) -> Output {
    Command::new(TIPSTAFF).args(arguments).current_dir(directory).output().unwrap()
}

/// Whether `cargo build` makes WebAssembly here without further ado.
fn has_wasm_target() -> bool {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"])
        .output();
    output.is_ok_and(|output| Path::new(text(&output.stdout).trim()).is_dir())
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn inspect_reads_the_custom_section_and_runs_nothing() {
    let policy = build("exec-audit");
    let output = tipstaff(&["inspect", policy.to_str().unwrap()], root());
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(said.starts_with("exec-audit 0.1.0\n"), "{said}");
    assert!(said.contains("read from the file's custom section; nothing was run"), "{said}");
    assert!(said.contains("    proc.ancestors: text, optional\n"), "{said}");
}

#[test]
fn inspect_asks_a_policy_without_a_section_and_prints_json() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("p.wasm"), guest("hand-made", "")).unwrap();
    let output = tipstaff(&["inspect", "--format", "json", "p.wasm"], directory.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["manifest_from"], "describe");
    assert_eq!(
        said["subscriptions"][0]["fields"][0],
        serde_json::json!({"name": "path_given", "type": "text", "optional": false})
    );
    assert_eq!(said["imports"], serde_json::json!([]));
}

#[test]
fn inspect_of_a_text_file_is_one_clear_error() {
    let output = tipstaff(&["inspect", "Cargo.toml"], root());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "tipstaff: Cargo.toml: is a text file, expected a compiled WebAssembly component or module\n"
    );
}

#[test]
fn the_cases_of_every_shipped_policy_pass() {
    for policy in [
        "exec-audit",
        "connect-watch",
        "file-watch",
        "syscall-profile",
        "sched-latency",
        "io-monitor",
    ] {
        build(policy);
        let output = tipstaff(&["test", &format!("policies/{policy}")], root());
        assert!(
            output.status.success(),
            "{policy}:\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}

#[test]
fn a_case_that_fails_shows_the_difference_and_bless_rewrites_it() {
    let directory = tempfile::tempdir().unwrap();
    let cases = directory.path().join("cases");
    fs::create_dir(&cases).unwrap();
    fs::write(
        cases.join("one.jsonl"),
        "{\"kind\":\"exec\",\"path\":\"/bin/ls\",\"uid\":0,\"pid\":1,\"args\":[]}\n",
    )
    .unwrap();
    let policy = build("exec-audit");
    let run = |bless: &str| {
        Command::new(TIPSTAFF)
            .env("BLESS", bless)
            .args(["test", policy.to_str().unwrap(), "--cases", cases.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let output = run("");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout).contains(
            "+ {\"labels\":{\"exe\":\"/bin/ls\",\"parent\":\"unknown\"},\"name\":\"exec_total\""
        ),
        "{output:?}"
    );
    assert!(run("1").status.success());
    assert!(run("").status.success());
    assert_eq!(fs::read_to_string(cases.join("one.expected.jsonl")).unwrap().lines().count(), 1);
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("cases")).unwrap();
    fs::write(directory.path().join("cases/x.jsonl"), "{\"kind\":\"exec\",\"pth\":\"/bin/ls\"}\n")
        .unwrap();
    let policy = build("exec-audit");
    let cases = directory.path().join("cases");
    let output =
        tipstaff(&["test", policy.to_str().unwrap(), "--cases", cases.to_str().unwrap()], root());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("x.jsonl:1: event `exec` has no field `pth`"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_new_policy_builds_and_its_case_passes() {
    if !has_wasm_target() {
        eprintln!(
            "skipped: rustc has no target wasm32-unknown-unknown here (tools/setup.sh says more)"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let sdk = root().join("sdk/rust");
    let output = tipstaff(
        &["new", "shell-count", "--lang", "rust", "--sdk", sdk.to_str().unwrap()],
        directory.path(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folder = directory.path().join("shell-count");
    // The versions that are locked here, so that nothing has to be fetched.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let built = Command::new(env!("CARGO"))
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", root().join("target"))
        .args(["build", "--quiet", "--release"])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let policy = root().join("target/wasm32-unknown-unknown/release/shell_count.wasm");
    let cases = folder.join("cases");
    let output =
        tipstaff(&["test", policy.to_str().unwrap(), "--cases", cases.to_str().unwrap()], root());
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(fs::read_to_string(folder.join("src/lib.rs")).unwrap().lines().count() <= 30);
}

#[test]
fn new_outside_a_clone_says_how_to_name_the_sdk_and_keeps_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let output = tipstaff(&["new", "a", "--lang", "rust"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("say with --sdk where its folder sdk/rust is"));
    fs::create_dir(directory.path().join("a")).unwrap();
    let sdk = root().join("sdk/rust");
    let output =
        tipstaff(&["new", "a", "--lang", "rust", "--sdk", sdk.to_str().unwrap()], directory.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("a exists already"));
}
