//! `make install` and the systemd unit.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn install(dest: &Path) -> Output {
    let agent = Path::new(env!("CARGO_BIN_EXE_tipstaff"));
    Command::new(root().join("tools/install.sh"))
        .env("DESTDIR", dest)
        .env("PREFIX", "/usr")
        .env("CARGO_TARGET_DIR", agent.ancestors().nth(2).unwrap())
        .output()
        .unwrap()
}

#[test]
fn everything_is_installed_and_nobody_but_its_owner_can_write_it() {
    let dest = tempfile::tempdir().unwrap();
    let output = install(dest.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (file, mode) in [
        ("usr/bin/tipstaff", 0o755),
        ("usr/share/man/man1/tipstaff.1", 0o644),
        ("usr/share/man/man1/tipstaff-check.1", 0o644),
        ("usr/share/bash-completion/completions/tipstaff", 0o644),
        ("usr/lib/systemd/system/tipstaff.service", 0o644),
        ("etc/tipstaff/tipstaff.toml", 0o644),
        ("etc/tipstaff/policies", 0o755),
    ] {
        let found =
            fs::metadata(dest.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }
    let unit =
        fs::read_to_string(dest.path().join("usr/lib/systemd/system/tipstaff.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/tipstaff run\n"));
}

#[test]
fn the_configuration_is_not_overwritten() {
    let dest = tempfile::tempdir().unwrap();
    assert!(install(dest.path()).status.success());
    let file = dest.path().join("etc/tipstaff/tipstaff.toml");
    fs::write(&file, "agent.name = \"mine\"").unwrap();
    assert!(install(dest.path()).status.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), "agent.name = \"mine\"");
}

#[test]
fn the_example_configuration_says_what_the_defaults_are() {
    use tipstaff_runtime::config::{Config, Flags};
    let file = root().join("deploy/tipstaff.toml");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("tipstaff.toml");
    let text = fs::read_to_string(file).unwrap();
    fs::write(&copy, &text).unwrap();
    let example = Config::load(Some(&copy), &Flags::default()).unwrap();
    fs::write(&copy, "").unwrap();
    let mut empty = Config::load(Some(&copy), &Flags::default()).unwrap();
    empty.metrics.asked = true;
    assert_eq!(example, empty);

    // What is commented out must be right, too.
    let all: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')).unwrap_or(line))
        .collect();
    fs::write(&copy, all.join("\n")).unwrap();
    let all = Config::load(Some(&copy), &Flags::default()).unwrap();
    assert_eq!((all.probes.len(), all.policies.len()), (1, 1));
}

#[test]
fn systemd_accepts_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(root().join("deploy/tipstaff.service")).unwrap();
    let copy = dir.path().join("tipstaff.service");
    fs::write(&copy, unit.replace("/usr/local/bin/tipstaff", env!("CARGO_BIN_EXE_tipstaff")))
        .unwrap();
    let output =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("tipstaff.service:"), "{said}");
}
