//! The cgroup of a command: made, found again, emptied, removed.
//!
//! Cgroups of ours lie in a folder `tipstaff`: at the root of the v2 hierarchy, or in a cgroup that
//! systemd has delegated to the unit that we are in, or in the cgroup of the command that we are part
//! of. Who uses one holds a shared lock on its directory, which the kernel lets go when the last such
//! process is gone: so a cgroup whose lock is free belongs to nobody, whatever its name says.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::anchor::{FOLDER, PREFIX, anchor, is_roots};
use crate::{escape, mountinfo};

/// How often to look where the kernel does not tell.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long others may hold the lock of the folder, each for a moment.
const LOCKED: Duration = Duration::from_secs(5);
/// How long the kernel may take to let an empty cgroup go.
const REMOVAL: Duration = Duration::from_secs(1);
/// Processes that a message names.
const NAMED: usize = 8;

/// Why there is no cgroup for the command.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// No v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted, and the command needs a cgroup there: mount one with `mount -t cgroup2 none DIR`, or start the kernel without cgroup_no_v1 or systemd.unified_cgroup_hierarchy=0"
    )]
    NoHierarchy,
    /// Whoever is not root may move processes there.
    #[error(
        "{} is not root's alone, so that a command could leave its cgroup: make it and its cgroup.procs root's, and not writable for others", .0.display()
    )]
    NotRoots(PathBuf),
    /// A lock that somebody does not let go.
    #[error(
        "another process has held the lock of {} for {} seconds: `fuser {}` names it", .0.display(), LOCKED.as_secs(), .0.display()
    )]
    Locked(PathBuf),
    /// A file or directory of the hierarchy.
    #[error("cannot {what} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was to be done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, for example with sudo",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; this container may not make cgroups: give it a cgroup hierarchy that can be written"
        }
        _ => "",
    }
}

/// A process in a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command name.
    pub comm: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Scope {
    path: PathBuf,
    /// The directory, with the lock.
    _locked: File,
}

impl Scope {
    /// Makes a cgroup that nobody is in. Removes those of ours that nobody uses any more and that are
    /// empty; `left` is told of those where processes are left.
    pub fn make(left: impl FnMut(&Path, &[Process])) -> Result<Self, ScopeError> {
        let mount = mountinfo::cgroup_v2().map_err(|_| ScopeError::NoHierarchy)?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let anchor = anchor(&mount, Path::new(own), is_roots);
        if !is_roots(&anchor) {
            return Err(ScopeError::NotRoots(anchor));
        }
        Self::make_in(&anchor.join(FOLDER), left)
    }

    fn make_in(folder: &Path, mut left: impl FnMut(&Path, &[Process])) -> Result<Self, ScopeError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ScopeError::Io { what, path, source }
        };
        let since = Instant::now();
        loop {
            // Whoever can open it can hold its lock.
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(folder)
                .map_err(failed("make the cgroup", folder))?;
            let locked = File::open(folder).and_then(|file| {
                if !is_roots(folder) {
                    return Ok(None);
                }
                file.set_permissions(Permissions::from_mode(0o700))?;
                flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                Ok(Some(file))
            });
            let _all = match locked {
                Ok(Some(locked)) => locked,
                // The last one to use it may just have removed it.
                Ok(None) if !folder.exists() => continue,
                Ok(None) => return Err(ScopeError::NotRoots(folder.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if since.elapsed() > LOCKED {
                        return Err(ScopeError::Locked(folder.to_owned()));
                    }
                    std::thread::sleep(LOOK_EVERY);
                    continue;
                }
                Err(error) => return Err(failed("lock the cgroup", folder)(error)),
            };
            sweep(folder, &mut left);
            let name = format!("{PREFIX}{}-{:08x}", std::process::id(), random());
            let path = folder.join(name);
            match DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => return Self::open(&path).map_err(failed("open the cgroup", &path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("make the cgroup", &path)(error)),
            }
        }
    }

    /// The cgroup in this directory, which is used from now on.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory = File::open(path)?;
        flock(&directory, FlockOperation::LockShared)?;
        Ok(Self { path: path.to_owned(), _locked: directory })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes in it and below it.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        processes(&self.path)
    }

    /// Kills all processes in it and below it, and waits until none is left. `late` is called once if
    /// that takes longer than `patience`.
    pub fn kill(&self, patience: Duration, late: impl FnOnce()) -> io::Result<()> {
        // Not there before Linux 5.14.
        match write(&self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.kill_each(patience, late),
            result => result.and_then(|()| self.wait(patience, late)),
        }
    }

    /// Kills them one by one: frozen, so that none can make another.
    fn kill_each(&self, patience: Duration, late: impl FnOnce()) -> io::Result<()> {
        write(&self.path.join("cgroup.freeze"), "1")?;
        let (since, mut late) = (Instant::now(), Some(late));
        while self.is_populated()? {
            for pid in pids(&self.path) {
                let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                    continue;
                };
                let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { continue };
                // Not another one that has its number by now.
                if pids(&self.path).contains(&pid) {
                    let _gone = pidfd_send_signal(&process, Signal::KILL);
                }
            }
            if since.elapsed() > patience
                && let Some(late) = late.take()
            {
                late();
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until nobody is in it.
    fn wait(&self, patience: Duration, late: impl FnOnce()) -> io::Result<()> {
        let (since, mut late) = (Instant::now(), Some(late));
        let events = File::open(self.path.join("cgroup.events"))?;
        while is_populated(&events)? {
            let timeout = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
            let mut changes = [PollFd::new(&events, PollFlags::PRI)];
            // Interrupted or not: it is looked at again.
            let _ = poll(&mut changes, Some(&timeout));
            if since.elapsed() > patience
                && let Some(late) = late.take()
            {
                late();
            }
        }
        Ok(())
    }

    /// Whether a process is in it or below it.
    pub fn is_populated(&self) -> io::Result<bool> {
        is_populated(&File::open(self.path.join("cgroup.events"))?)
    }

    /// Removes it and the cgroups below it, in which nobody may be, and the folder of our cgroups if
    /// it was the last one.
    pub fn remove(self) -> io::Result<()> {
        let since = Instant::now();
        loop {
            match self.try_remove() {
                // The kernel may still be busy with the last process.
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && since.elapsed() < REMOVAL =>
                {
                    std::thread::sleep(LOOK_EVERY);
                }
                result => return result,
            }
        }
    }

    /// Removes it like [`Self::remove`], but does not wait for who has just gone; busy where somebody is in
    /// it.
    pub fn try_remove(&self) -> io::Result<()> {
        match remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(folder) = self.path.parent() {
            // Others may be in it.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

/// Removes what nobody uses and nobody is in.
fn sweep(folder: &Path, left: &mut impl FnMut(&Path, &[Process])) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(directory) = File::open(&path) else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let inside = processes(&path);
        if inside.is_empty() {
            // Somebody may have entered it just now.
            let _ = remove(&path);
        } else {
            left(&path, &inside);
        }
    }
}

/// Removes a cgroup and those below it.
fn remove(path: &Path) -> io::Result<()> {
    for below in folders(path) {
        remove(&below)?;
    }
    fs::remove_dir(path)
}

/// The cgroups in this one.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn pids(path: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // 0: not in our pid namespace.
    let own = listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0);
    own.chain(folders(path).flat_map(|below| pids(&below))).collect()
}

fn processes(path: &Path) -> Vec<Process> {
    let comm = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids(path)
        .into_iter()
        .map(|pid| Process { pid, comm: comm(pid).trim_end_matches('\n').to_owned() })
        .collect()
}

fn is_populated(mut events: &File) -> io::Result<bool> {
    let mut text = String::new();
    events.rewind()?;
    match events.read_to_string(&mut text) {
        Ok(_) => Ok(text.lines().any(|line| line == "populated 1")),
        // It was removed.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Writes to a file of the kernel's, which is not made if it is missing.
fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without it the name is less random, and another one is tried where it is taken.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

/// Processes for a message: `12 (sleep), 13 (sh)`.
#[must_use]
pub fn named(processes: &[Process]) -> String {
    let name = |process: &Process| format!("{} ({})", process.pid, escape::control(&process.comm));
    let mut named: Vec<_> = processes.iter().take(NAMED).map(name).collect();
    if processes.len() > NAMED {
        named.push(format!("and {} more", processes.len() - NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests;
