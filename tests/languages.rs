//! Policies in other languages, built with the tool chains that `tools/setup.sh test` installs: the same
//! policy gives the same metrics, and what it may not do it cannot.

mod court;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use court::{
    Court, batch, eventually,
    language::{Language, built, new, tipstaff},
    root,
};
use tipstaff_runtime::{
    outcome::Severity,
    policy::{Limits, Refusal},
};

/// Compilers take a core and half a gigabyte each.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// A new policy builds, passes its case, and shows its manifest without being run.
fn a_new_policy_works(language: Language) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (_directory, folder) = new(language);
    let unbuilt = tipstaff(&["test", "."], &folder);
    assert!(text(&unbuilt.stderr).contains("is not built"), "{}", text(&unbuilt.stderr));
    built(language, &folder);
    let source = fs::read_to_string(folder.join(language.source())).unwrap();
    assert!(source.lines().count() <= 30, "{source}");

    let output = tipstaff(&["inspect", "build/shells.wasm"], &folder);
    let said = text(&output.stdout);
    assert!(said.starts_with("shells 0.1.0\n"), "{said}{}", text(&output.stderr));
    assert!(said.contains("read from the file's custom section; nothing was run"), "{said}");
    assert!(said.contains("    path: text\n    uid: u32\n"), "{said}");

    let output = tipstaff(&["test", "."], &folder);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!text(&output.stderr).contains("is not the one that the policy tells"));
}

#[test]
fn a_new_policy_in_python_builds_and_its_case_passes() {
    a_new_policy_works(Language::Python);
}

#[test]
fn a_new_policy_in_javascript_builds_and_its_case_passes() {
    a_new_policy_works(Language::Javascript);
}

/// A policy of `tests/languages`, built in this folder.
fn copied(language: Language, name: &str, folder: &Path) -> PathBuf {
    for file in [language.project(), language.source()] {
        fs::copy(root().join("tests/languages").join(name).join(file), folder.join(file)).unwrap();
    }
    let output = language.build(folder);
    assert!(output.status.success(), "{}", text(&output.stderr));
    folder.join(format!("build/{name}.wasm"))
}

/// All that an SDK has, in one policy, of which the same is expected in each language: kinds, types and
/// conditions, sums, settings, all metrics, alerts, log, ticks, state, windows, losses, hand-over.
fn all_of_the_sdk_works(language: Language) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let file = copied(language, "whole", folder);
    let cases = folder.join("cases");
    fs::create_dir(&cases).unwrap();
    for case in ["all.jsonl", "all.expected.jsonl", "all.settings.toml"] {
        fs::copy(root().join("tests/languages/whole/cases").join(case), cases.join(case)).unwrap();
    }
    let output = tipstaff(&["-v", "test", "."], folder);
    let log = text(&output.stderr);
    assert!(output.status.success(), "{}{log}", text(&output.stdout));
    for line in [
        r#"60,0.5,true,["x","y z"],[1,-2]] policy=whole"#,
        "info    information policy=whole",
        "warning a warning policy=whole",
        "error   an error policy=whole",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let output = tipstaff(&["inspect", "build/whole.wasm"], folder);
    let said = text(&output.stdout);
    assert!(said.contains("subscribes to syscall_stats, every 2s\n"), "{said}");
    assert!(said.contains("subscribes to of_a_newer_agent (if there is such a kind)\n"), "{said}");
    assert!(said.contains("    where result < 0 and path ^= /etc/\n"), "{said}");
    // Python's components import all of WASI, which is one line, and each by its name for programs.
    let wasi: Vec<_> = said.lines().filter(|line| line.contains("wasi:")).collect();
    let json = tipstaff(&["inspect", "--format", "json", "build/whole.wasm"], folder);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let imports = json["imports"].as_array().unwrap();
    let imported =
        imports.iter().filter(|name| name.as_str().unwrap().starts_with("wasi:")).count();
    match language {
        Language::Python => {
            assert_eq!(wasi.len(), 1, "{said}");
            assert!(
                wasi[0].trim().starts_with("wasi:* (closed: clocks, random numbers,"),
                "{said}"
            );
            assert!(wasi[0].contains(&format!("; {imported} interfaces of ")), "{said}");
            assert!(imported > 20, "{imports:?}");
        }
        Language::Javascript => assert_eq!((wasi.len(), imported), (0, 0), "{said}"),
    }

    let court = Court::new();
    let loaded = court.compiler.load(&file).unwrap();
    // As much as a busy machine needs.
    let much = Duration::from_secs(5);
    let limits = Limits { start_up: much, cpu_per_call: much, ..Limits::default() };
    let refused = court.configure(&loaded, "quiet = -1", &limits).err().expect("it is refused");
    assert!(refused.to_string().ends_with("`quiet` must not be negative"), "{refused}");

    let configured = |settings| court.configure(&loaded, settings, &limits).unwrap();
    let mut running = court.pool.start(configured("quiet = 1")).unwrap();
    let begin = 100_000_000_000;
    running.queue().push(&batch(begin, &["/bin/a", "/bin/b"]));
    eventually("both are counted", || court.count("execs", Some(("uid", "7"))) == 2);
    // The next generation is handed the window, and finds what the agent keeps.
    let next = running.prepare(configured("quiet = 2"), true).unwrap();
    running.replace(next);
    running.queue().push(&batch(begin + 1_000_000_000, &["/bin/report"]));
    let alert = court.alerts.recv_timeout(Duration::from_mins(1)).unwrap();
    assert_eq!((alert.severity, &*alert.message), (Severity::Critical, "report"));
    let label = |name: &str| &alert.labels.iter().find(|label| label.0 == name).unwrap().1;
    for (name, value) in [("recent", "3"), ("seen", "3"), ("counted", "3"), ("last", "/bin/report")]
    {
        assert_eq!(label(name), value, "{name}");
    }
    assert!(running.stop(Duration::from_mins(1)));
    assert_eq!(court.count("path_length", None), 3);
}

#[test]
fn all_of_the_sdk_works_in_python() {
    all_of_the_sdk_works(Language::Python);
}

#[test]
fn all_of_the_sdk_works_in_javascript() {
    all_of_the_sdk_works(Language::Javascript);
}

#[test]
fn a_policy_in_python_has_clocks_and_a_log_and_nothing_else_of_its_machine() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let file = copied(Language::Python, "nosy", folder);

    let court = Court::new();
    let loaded = court.compiler.load(&file).unwrap();
    let look = |what: &str, limits: &Limits| {
        court.configure(&loaded, &format!("look = \"{what}\""), limits).map(|_| ())
    };
    // As much as a busy machine needs.
    let limits = Limits { start_up: Duration::from_secs(5), ..Limits::default() };
    for (what, found) in [
        ("read", "[]"),
        ("environment", "[{}, []]"),
        ("clocks", "[True, True]"),
        ("randomness", "101"),
    ] {
        look(what, &limits).unwrap();
        assert_eq!(court.alerts.try_recv().unwrap().message, found, "{what}");
    }
    let mut wrong = Vec::new();
    for (what, why) in [
        ("fail", "the guest trapped"),
        // Where there is no network it does not come to a call.
        ("connect", "the guest trapped"),
        ("listen", "it called `wasi:sockets/"),
        ("sleep", "it called `wasi:clocks/monotonic-clock#subscribe-"),
        ("exit", "it called `wasi:cli/exit#exit"),
        ("grow", "(`memory`)"),
        ("loop", "(`start_up`)"),
        ("recurse", "the guest trapped"),
    ] {
        let Err(error) = look(what, &limits) else {
            wrong.push(format!("{what}: it worked: {:?}", court.alerts.try_recv()));
            continue;
        };
        assert!(matches!(error.reason, Refusal::Call(_)), "{what}: {error}");
        if !error.to_string().contains(why) {
            wrong.push(format!("{what}: {error}"));
        }
        assert!(court.alerts.is_empty(), "{what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    fs::create_dir(folder.join("cases")).unwrap();
    fs::write(folder.join("cases/x.jsonl"), "{\"kind\":\"exec\",\"uid\":0}\n").unwrap();
    fs::write(folder.join("cases/x.settings.toml"), "look = \"output\"\n").unwrap();
    let output = tipstaff(&["test", "."], folder);
    let log = text(&output.stderr);
    assert!(log.contains("info    to standard output\\x1b[31m policy=nosy"), "{log}");
    assert!(log.contains("warning to standard error policy=nosy"), "{log}");
}
