//! Cgroups of a test, in the v2 hierarchy wherever it is mounted.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tipstaff_runtime::mountinfo;

/// A cgroup, gone with all that runs in it and below it when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A new one, which nothing is in.
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("tipstaff-test-{}-{number}", std::process::id());
        Self::at(mountinfo::cgroup_v2().expect("a v2 hierarchy is mounted").join(name))
    }

    /// A new one below this.
    pub fn below(&self, name: &str) -> Self {
        Self::at(self.0.join(name))
    }

    fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its id in events.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.0).unwrap().ino()
    }

    /// A command that runs in it, from its first instruction.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(&self.0)
            .arg(program);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while !remove(&self.0) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether it is gone, with all below it. What still runs there is killed.
fn remove(path: &Path) -> bool {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    fs::remove_dir(path).is_ok() || !path.exists()
}
