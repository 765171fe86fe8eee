//! What a test has of the machine that it runs on, and what becomes of it where that is missing.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

/// How long anything here may take before the test fails. Generous: the machine may be busy, or a VM on
/// a busy one.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Says that a test, or a part of it, is skipped; fails in CI, where everything is that it needs.
pub fn skip(what: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}: {why}, also in CI");
    eprintln!("SKIPPED {what}: {why}");
}

/// Whether this test can load eBPF programs; says so if not, and fails in CI.
pub fn can_probe(test: &str) -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        skip(test, "kernel tests need root");
    }
    can
}

/// Copies a program that is to be run under another name. Another process does it: while one of our
/// threads has a file open for writing, the children of other threads have it too, and until they run
/// their own program it is busy.
pub fn copy_program(program: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").arg("--").arg(program.as_ref()).arg(to.as_ref()).status();
    assert!(copied.expect("cp runs").success(), "{} is copied", to.as_ref().display());
}

/// The program that `SOURCE.c` in `tests/kernel` makes, under this name, in a folder of its own.
pub fn compiled(source: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    // Where there is no compiler, as in a VM, it was compiled before.
    if let Some(programs) = std::env::var_os("TIPSTAFF_PROGRAMS") {
        copy_program(Path::new(&programs).join(source), &program);
    } else {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kernel");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-pthread", "-o"]).arg(&program);
        compiler.arg(sources.join(source).with_extension("c"));
        assert!(compiler.status().unwrap().success());
    }
    (folder, program)
}

/// The program of `ways.c`: system calls by the 32-bit table and by `io_uring`.
pub fn ways_program() -> &'static Path {
    static PROGRAM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &PROGRAM.get_or_init(|| compiled("ways", "ways")).1
}
