//! Policies in other languages, built with the tool chains that `tools/setup.sh test` installs: the same
//! policy gives the same metrics, and what it may not do it cannot.

mod court;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Mutex,
    time::Duration,
};

use court::{Court, root};
use tipstaff_runtime::policy::{Limits, Refusal};

const TIPSTAFF: &str = env!("CARGO_BIN_EXE_tipstaff");

/// Compilers take a core and half a gigabyte each.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy)]
enum Language {
    Python,
    Javascript,
}

impl Language {
    const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Javascript => "javascript",
        }
    }

    /// Builds the policy in this folder.
    fn build(self, folder: &Path) -> Output {
        let mut command = match self {
            Self::Python => {
                let python = root().join("target/languages/python/bin/python");
                assert!(python.exists(), "{} is missing: tools/setup.sh test", python.display());
                let mut command = Command::new(python);
                command.args(["-m", "tipstaff", "build"]);
                command
            }
            Self::Javascript => {
                // As `npm install` leaves it.
                let installed = root().join("target/languages/javascript/node_modules");
                assert!(
                    installed.exists(),
                    "{} is missing: tools/setup.sh test",
                    installed.display()
                );
                let modules = folder.join("node_modules");
                fs::create_dir_all(&modules).unwrap();
                for entry in fs::read_dir(installed).unwrap() {
                    let entry = entry.unwrap();
                    let _ = symlink(entry.path(), modules.join(entry.file_name()));
                }
                let _ = symlink(root().join("sdk/javascript"), modules.join("tipstaff"));
                let mut command = Command::new("node");
                command.args(["node_modules/tipstaff/src/command.js", "build"]);
                command
            }
        };
        command.current_dir(folder);
        without_network(&mut command);
        command.output().unwrap()
    }

    /// Where its policy is written.
    const fn source(self) -> &'static str {
        match self {
            Self::Python => "policy.py",
            Self::Javascript => "policy.js",
        }
    }
}

/// Whoever asks for the network gets an error at once.
fn without_network(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn tipstaff(arguments: &[&str], folder: &Path) -> Output {
    Command::new(TIPSTAFF).args(arguments).current_dir(folder).output().unwrap()
}

/// A new policy `shells`, and the folder that holds it.
fn new(language: Language) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let sdk = root().join("sdk").join(language.name());
    let output = tipstaff(
        &["new", "shells", "--lang", language.name(), "--sdk", sdk.to_str().unwrap()],
        directory.path(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folder = directory.path().join("shells");
    (directory, folder)
}

fn built(language: Language, folder: &Path) -> PathBuf {
    let output = language.build(folder);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let file = folder.join("build/shells.wasm");
    assert_eq!(Path::new(text(&output.stdout).trim()).file_name(), file.file_name());
    file
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

#[test]
fn a_policy_in_python_has_clocks_and_a_log_and_nothing_else_of_its_machine() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    for name in ["pyproject.toml", "policy.py"] {
        fs::copy(root().join("tests/languages/nosy").join(name), folder.join(name)).unwrap();
    }
    let output = Language::Python.build(folder);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let court = Court::new();
    let loaded = court.compiler.load(&folder.join("build/nosy.wasm")).unwrap();
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
