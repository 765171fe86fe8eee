//! `tipstaff events` on the running kernel, with exact counts. Needs root, except for what is said
//! before anything is asked of the kernel.

#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;
use support::{Tipstaff, can_probe, copy_program};
use tempfile::TempDir;
use tipstaff_runtime::{kind::Kinds, source::Jsonl};

/// A program of our own, so that nobody else runs it.
fn program(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("a program");
    copy_program("/bin/true", &path);
    path
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn every_execution_is_printed_once_with_its_exact_arguments_and_can_be_read_back() {
    if !can_probe("events") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let program = program(&directory);
    let condition = format!("path = '{}'", program.display());
    let arguments =
        ["events", "exec", "--where", &condition, "--fields", "all", "--format", "json"];
    let events = Tipstaff::ready(&arguments);
    let odd: [&[u8]; 4] = [b"", b"two\nlines", b"\x1b[31mred", b"not \xff utf-8"];
    for _ in 0..50 {
        assert!(
            Command::new(&program)
                .args(odd.map(OsStr::from_bytes))
                .status()
                .expect("runs")
                .success()
        );
    }
    let (lines, code) = events.stop();
    assert_eq!((lines.len(), code), (50, 0));
    let own = fs::read_link("/proc/self/exe").expect("a link");
    let hex = odd.map(|argument| {
        argument.iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"))
    });
    for line in &lines {
        assert!(!line.contains('\x1b'), "an escape sequence got through");
        let event = json(line);
        assert_eq!(event["path"], program.to_str().expect("UTF-8"));
        assert_eq!(event["args"][2], "two\nlines");
        assert_eq!(event["args"][4], "not \u{fffd} utf-8");
        assert_eq!(event["args_hex"].as_array().expect("a list")[1..], hex);
        assert_eq!(event["proc.exe"], event["path"]);
        assert_eq!(event["proc.parent.exe"], own.to_str().expect("UTF-8"));
        assert_eq!(event["proc.ancestors"][0], event["proc.parent.exe"]);
        assert_eq!(event["user.name"], "root");
    }
    let source =
        Jsonl::parse("events", &lines.join("\n"), &Kinds::built_in()).expect("is read back");
    assert_eq!(source.len(), 50);
}

#[test]
fn a_condition_lets_exactly_its_events_through_and_text_is_one_line_each() {
    if !can_probe("events") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let condition =
        format!("path ^= '{}/' and result < 0 or path $= '/not-there'", directory.path().display());
    let events = Tipstaff::ready(&[
        "events",
        "open",
        "unlink",
        "--where",
        &condition,
        "--fields",
        "path,result",
    ]);
    for number in 0..20 {
        let path = directory.path().join(format!("{number}\n"));
        File::open(&path).expect_err("is not there");
        File::create(&path).expect("is made");
        fs::remove_file(&path).expect("is removed");
        fs::remove_file(&path).expect_err("is gone");
    }
    let (lines, code) = events.stop();
    assert_eq!((lines.len(), code), (40, 0), "{lines:#?}");
    let failed = |kind: &str| {
        let is = |line: &&String| {
            line.contains(&format!(" {kind} "))
                && line.ends_with("\\n result=-2 (No such file or directory)")
        };
        lines.iter().filter(is).count()
    };
    assert_eq!((failed("open"), failed("unlink")), (20, 20));
}

#[test]
fn it_ends_quietly_when_nobody_reads_and_when_its_time_is_over() {
    if !can_probe("events") {
        return;
    }
    let script = "timeout 60 \"$0\" events exec | head -n 1; exit ${PIPESTATUS[0]}";
    let load = "while /bin/true; do :; done & load=$!; trap 'kill $load' EXIT; ";
    let output = Command::new("/bin/bash")
        .args(["-c", &format!("{load}{script}"), env!("CARGO_BIN_EXE_tipstaff")])
        .output()
        .expect("bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), output.stdout.split(|&byte| byte == b'\n').count()),
        (Some(0), 2),
        "{errors}"
    );
    // Where something is missing of the kind, that is said before.
    let said = |line: &&str| line.ends_with(": ready") || line.contains(": coverage partial: ");
    assert_eq!(errors.lines().find(|line| !said(line)), None, "{errors}");

    let (_, code) = Tipstaff::ready(&["events", "oom", "--duration", "100ms"]).wait();
    assert_eq!(code, 0);
}

#[test]
fn any_tracepoint_can_be_printed() {
    if !can_probe("events") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let program = program(&directory);
    let kind = "tracepoint:sched:sched_process_exec";
    let condition = format!("filename = '{}'", program.display());
    let events = Tipstaff::ready(&["events", kind, "--where", &condition, "--format", "json"]);
    for _ in 0..10 {
        assert!(Command::new(&program).status().expect("runs").success());
    }
    let (lines, _) = events.stop();
    assert_eq!(lines.len(), 10);
    assert_eq!(json(&lines[0])["kind"], "sched:sched_process_exec");
}

#[test]
fn what_was_mistyped_is_an_error_of_usage_and_the_lists_need_no_root() {
    for (arguments, expected) in [
        (&["events", "exce"][..], "there is no event `exce`; the nearest is `exec`"),
        (
            &["events", "exec", "--where", "pth = x"],
            "event `exec` has no field `pth`; the nearest is `path`",
        ),
        (
            &["events", "exec", "--duration", "soon"],
            "expected a time above zero such as 500ms, 10s, 5m or 1h",
        ),
        (&["events"], "required"),
    ] {
        let mut events = Tipstaff::spawn(arguments);
        let (_, code) = events.wait();
        assert_eq!(code, 2, "{arguments:?}");
        assert!(events.log.join("\n").contains(expected), "{:?}", events.log);
    }
    let (lines, code) = Tipstaff::spawn(&["events", "--list"]).wait();
    assert_eq!((lines.len(), code), (Kinds::built_in().iter().count(), 0));
    let (lines, _) = Tipstaff::spawn(&["events", "exec", "--list", "--format", "json"]).wait();
    let fields = json(&lines[0])["fields"].as_array().expect("a list").len();
    assert_eq!(fields, Kinds::built_in().named("exec").expect("exec").fields.len());
}
