//! What no action may reach: an action on a cgroup is one on every process in it and below it.

mod process;

use std::{
    fs, io, iter,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::cgroup_path;
use crate::process::stat::Stat;

pub use process::Reach;

/// Most ancestors that a process is taken to have.
const MOST_ANCESTORS: usize = 4096;

/// What no action may reach, besides process 1 and kernel threads.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    /// The agent and its helpers. What they descend from is protected as well.
    pub agent: Vec<u32>,
    /// Cgroups, by their paths on the v2 hierarchy, with all below them.
    pub cgroups: Vec<String>,
    /// Files, every process that runs one of which is protected.
    pub executables: Vec<PathBuf>,
    /// Directory of the only cgroup whose processes may be signalled, if there is such a one.
    pub within: Option<PathBuf>,
}

/// Why no action may be done on a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum Protected {
    /// It is everything.
    #[error("it is the root cgroup, in which all of the machine is")]
    Root,
    /// The operator says so.
    #[error("the cgroup {0} is protected (`protected` in [guard])")]
    Cgroup(String),
    /// Someone is in it.
    #[error("process {pid} is in it ({cgroup}): {why}")]
    Process {
        /// Number of the process.
        pid: u32,
        /// Its cgroup.
        cgroup: String,
        /// Why it is protected.
        why: String,
    },
    /// Who is in it is not known.
    #[error("who is in it cannot be known: {path}: {error}")]
    Unknown {
        /// The file.
        path: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// It is not there.
    #[error("there is no cgroup {0}")]
    Missing(String),
}

/// A process of the protected set.
struct Known {
    pid: u32,
    why: &'static str,
}

/// What a process that the operator protects runs: path, device, inode.
struct Executable {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Protection {
    /// Whether an action may be done on the cgroup at `directory`, below the mount of the v2 hierarchy.
    pub fn check(&self, mount: &Path, directory: &Path) -> Result<(), Protected> {
        let path = shown_below(mount, directory);
        if path == "/" {
            return Err(Protected::Root);
        }
        if !directory.join("cgroup.procs").exists() {
            return Err(Protected::Missing(path));
        }
        // What is protected is in it, or it is in what is protected.
        let overlaps =
            |protected: &&String| is_within(&path, protected) || is_within(protected, &path);
        if let Some(protected) = self.cgroups.iter().find(overlaps) {
            return Err(Protected::Cgroup(protected.clone()));
        }
        let (known, executables) = (self.known(), self.executables());
        let found = first_process(directory, |here, pid| {
            let why = protects(pid, &known, &executables)?;
            Some(Protected::Process { pid, cgroup: shown_below(mount, here), why })
        });
        found?.map_or(Ok(()), Err)
    }

    fn executables(&self) -> Vec<Executable> {
        let executable = |path: &PathBuf| Executable { path: path.clone(), file: file_id(path) };
        self.executables.iter().map(executable).collect()
    }

    fn known(&self) -> Vec<Known> {
        let mut known = vec![Known { pid: 1, why: "it is the first process" }];
        for &agent in &self.agent {
            known.push(Known { pid: agent, why: "it is the agent, or one of its helpers" });
            known.extend(
                ancestors(agent)
                    .filter(|pid| *pid > 1)
                    .map(|pid| Known { pid, why: "the agent descends from it" }),
            );
        }
        known
    }
}

/// Whether `path` is `of` or below it.
fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| of == "/" || rest.is_empty() || rest.starts_with('/'))
}

/// The path of a cgroup below the mount.
fn shown_below(mount: &Path, directory: &Path) -> String {
    let below = directory.strip_prefix(mount).unwrap_or(directory).to_string_lossy();
    let path = format!("/{}", below.trim_matches('/'));
    cgroup_path(&path).map_or_else(|_| crate::escape::control(&path).into_owned(), str::to_owned)
}

fn unknown(path: &Path, error: io::Error) -> Protected {
    Protected::Unknown { path: crate::escape::control(&path.to_string_lossy()).into_owned(), error }
}

/// A cgroup that was removed in the meantime holds nobody.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

/// What is found first of the processes in a cgroup and below it, each with its cgroup.
fn first_process<T>(
    directory: &Path,
    look: impl Fn(&Path, u32) -> Option<T>,
) -> Result<Option<T>, Protected> {
    let mut waiting = vec![directory.to_owned()];
    while let Some(here) = waiting.pop() {
        if let Some(found) = processes(&here)?.into_iter().find_map(|pid| look(&here, pid)) {
            return Ok(Some(found));
        }
        match fs::read_dir(&here) {
            Ok(entries) => waiting.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            ),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(unknown(&here, error)),
        }
    }
    Ok(None)
}

/// The processes in a cgroup, not in those below it.
fn processes(cgroup: &Path) -> Result<Vec<u32>, Protected> {
    let path = cgroup.join("cgroup.procs");
    let text = match fs::read_to_string(&path) {
        // A threaded cgroup only tells its threads.
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            fs::read_to_string(cgroup.join("cgroup.threads"))
        }
        result => result,
    };
    match text {
        Ok(text) => Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(unknown(&path, error)),
    }
}

/// Why this process is protected, if it is.
fn protects(pid: u32, known: &[Known], executables: &[Executable]) -> Option<String> {
    if pid == 0 {
        return Some(
            "it is of another pid namespace, so that nobody can tell who it is".to_owned(),
        );
    }
    let found = |pid| known.iter().find(|known| known.pid == pid);
    if let Some(known) = found(pid).or_else(|| found(thread_group(pid)?)) {
        return Some(known.why.to_owned());
    }
    if Stat::of_process(pid).is_some_and(|stat| stat.is_kernel_thread()) {
        return Some("it is a thread of the kernel".to_owned());
    }
    if executables.is_empty() {
        return None;
    }
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).ok()?;
    let file = file_id(Path::new(&link));
    let text = path.to_string_lossy();
    let named = text.strip_suffix(" (deleted)").unwrap_or(&text);
    let executable = executables.iter().find(|executable| {
        executable.path.as_os_str() == named || (file.is_some() && executable.file == file)
    })?;
    let shown = crate::escape::control(&executable.path.to_string_lossy()).into_owned();
    Some(format!("it runs {shown}, which is protected (`protected` in [guard])"))
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The processes from which one descends, the nearest first.
fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    let parent = |pid: u32| Some(Stat::of_process(pid)?.parent).filter(|parent| *parent > 0);
    // None is its own ancestor; yet numbers may change hands while we look.
    iter::successors(parent(pid), move |pid| parent(*pid)).take(MOST_ANCESTORS)
}

/// The process of a thread.
fn thread_group(tid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that looks like one of cgroups.
    fn tree(cgroups: &[(&str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for (path, processes) in cgroups {
            let directory = mount.path().join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.procs"), processes).unwrap();
        }
        mount
    }

    fn check(protection: &Protection, mount: &Path, path: &str) -> Result<(), String> {
        protection.check(mount, &mount.join(path)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_root_and_whoever_holds_someone_protected_is_refused_with_the_reason() {
        let own = std::process::id();
        let parent = ancestors(own).next().unwrap();
        let (own, parent_text) = (own.to_string(), parent.to_string());
        let mount = tree(&[
            ("", ""),
            ("empty", ""),
            ("first", ""),
            ("first/deep", ""),
            ("first/deep/below", "1\n"),
            ("mine", &own),
            ("above", &parent_text),
            ("elsewhere", "0\n"),
        ]);
        let protection = Protection { agent: vec![std::process::id()], ..Protection::default() };
        let refused = |path: &str| check(&protection, mount.path(), path).unwrap_err();
        assert_eq!(check(&protection, mount.path(), "empty"), Ok(()));
        assert_eq!(refused(""), "it is the root cgroup, in which all of the machine is");
        assert_eq!(
            refused("first"),
            "process 1 is in it (/first/deep/below): it is the first process"
        );
        assert!(refused("mine").ends_with("it is the agent, or one of its helpers"));
        if parent > 1 {
            assert!(refused("above").ends_with("the agent descends from it"));
        }
        assert!(refused("elsewhere").contains("another pid namespace"));
        assert_eq!(refused("none"), "there is no cgroup /none");
    }

    #[test]
    fn what_the_operator_names_is_protected_from_both_sides() {
        let mount = tree(&[("a/b/c", ""), ("a/bc", ""), ("d", &std::process::id().to_string())]);
        let protection = Protection { cgroups: vec!["/a/b".into()], ..Protection::default() };
        for path in ["a", "a/b", "a/b/c"] {
            fs::write(mount.path().join(path).join("cgroup.procs"), "").unwrap();
            let refused = check(&protection, mount.path(), path).unwrap_err();
            assert_eq!(refused, "the cgroup /a/b is protected (`protected` in [guard])");
        }
        assert_eq!(check(&protection, mount.path(), "a/bc"), Ok(()));
        let executables = vec![std::env::current_exe().unwrap()];
        let protection = Protection { executables, ..Protection::default() };
        let refused = check(&protection, mount.path(), "d").unwrap_err();
        assert!(refused.contains("it runs /"), "{refused}");
    }
}
