//! The compiler child of an agent that has the rights of the shipped unit, and no others.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tipstaff_runtime::policy::{CompileLimits, Compiler, Workshop};

const TEST: &str = "a_child_that_became_nobody_is_killed_with_the_rights_of_the_unit";
/// Set where this program runs with the rights of the unit: the folder of the compiler.
const WITHIN: &str = "TIPSTAFF_TEST_COMPILER";
const UNIT: &str = include_str!("../deploy/tipstaff.service");

/// The unit's capabilities, as `setpriv` takes them.
fn capabilities() -> String {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.expect("the unit bounds its capabilities").split_whitespace();
    let names =
        names.map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    format!("-all{}", names.collect::<String>())
}

#[test]
fn a_child_that_became_nobody_is_killed_with_the_rights_of_the_unit() {
    if let Some(folder) = env::var_os(WITHIN) {
        return within(Path::new(&folder));
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED {TEST}: only root has rights to give up");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sleeper = folder.path().join("sleeper");
    let script = format!(
        "#!/bin/sh\necho $$ > {}/pid\nexec setpriv --reuid=65534 --regid=65534 --clear-groups \
         sleep 1000\n",
        folder.path().display()
    );
    fs::write(&sleeper, script).unwrap();
    fs::set_permissions(&sleeper, fs::Permissions::from_mode(0o755)).unwrap();
    let capabilities = capabilities();
    let output = Command::new("setpriv")
        .args([format!("--bounding-set={capabilities}"), format!("--inh-caps={capabilities}")])
        .arg("--no-new-privs")
        .arg(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(WITHIN, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "it is still there");
}

/// Has a child that never ends, until its time is over.
fn within(folder: &Path) {
    let cache = folder.join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    let wall = Duration::from_secs(2);
    let limits = CompileLimits { wall, ..CompileLimits::default() };
    let compiler = Compiler::new(&cache, Workshop::Child(folder.join("sleeper"), limits)).unwrap();
    let begin = Instant::now();
    let error = compiler.load_bytes(Path::new("p.wasm"), b"\0asm\x0d\0\x01\0").err().unwrap();
    assert!(error.to_string().contains("it took more than 2s of wall time"), "{error}");
    assert!(begin.elapsed() >= wall);
}
