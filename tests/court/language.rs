//! Policies in other languages, built with the tool chains that `tools/languages.sh` installs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::root;

const TIPSTAFF: &str = env!("CARGO_BIN_EXE_tipstaff");

/// A language other than Rust.
#[derive(Clone, Copy)]
pub enum Language {
    Python,
    Javascript,
}

impl Language {
    /// As `--lang` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Javascript => "javascript",
        }
    }

    /// Builds the policy in this folder.
    pub fn build(self, folder: &Path) -> Output {
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

    /// Name and version of a policy are written here.
    pub const fn project(self) -> &'static str {
        match self {
            Self::Python => "pyproject.toml",
            Self::Javascript => "package.json",
        }
    }

    /// Where its policy is written.
    pub const fn source(self) -> &'static str {
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

/// Runs the command in a folder.
pub fn tipstaff(arguments: &[&str], folder: &Path) -> Output {
    Command::new(TIPSTAFF).args(arguments).current_dir(folder).output().unwrap()
}

/// A new policy `shells`, and the folder that holds it.
pub fn new(language: Language) -> (tempfile::TempDir, PathBuf) {
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

/// Builds the policy `shells` in this folder. Its file.
pub fn built(language: Language, folder: &Path) -> PathBuf {
    let output = language.build(folder);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let file = folder.join("build/shells.wasm");
    assert_eq!(Path::new(text(&output.stdout).trim()).file_name(), file.file_name());
    file
}
