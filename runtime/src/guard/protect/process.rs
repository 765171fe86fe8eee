//! Which processes signals may reach.

use std::path::{Path, PathBuf};

use super::{Executable, Known, Protection, ancestors, first_process, protects};
use crate::process::stat::Stat;

/// Which processes signals may reach, as it is when this is made.
pub struct Reach<'a> {
    protection: &'a Protection,
    known: Vec<Known>,
    executables: Vec<Executable>,
    /// Directories of the cgroups that the operator protects.
    cgroups: Vec<(&'a str, PathBuf)>,
}

impl Protection {
    /// What signals may reach. `mount` says where the v2 hierarchy is; where cgroups of it are protected
    /// and that is not known, nobody is reached.
    pub fn reach(
        &self,
        mount: impl FnOnce() -> Result<PathBuf, String>,
    ) -> Result<Reach<'_>, String> {
        let cgroups = if self.cgroups.is_empty() {
            Vec::new()
        } else {
            let mount = mount()?;
            let directory = |path: &'_ str| mount.join(path.trim_start_matches('/'));
            self.cgroups.iter().map(|path| (path.as_str(), directory(path))).collect()
        };
        let (known, executables) = (self.known(), self.executables());
        Ok(Reach { protection: self, known, executables, cgroups })
    }
}

impl Reach<'_> {
    /// Whether this process may be signalled; else why not.
    pub fn check(&self, pid: u32) -> Result<(), String> {
        if let Some(why) = protects(pid, &self.known, &self.executables) {
            return Err(why);
        }
        let Protection { within, agent, .. } = self.protection;
        if let Some(within) = within {
            // The command is no helper, although it descends from us.
            if !is_inside(within, pid)? {
                let why =
                    "it is not in the cgroup of the command: `tipstaff exec` signals nobody else";
                return Err(why.to_owned());
            }
        } else if ancestors(pid).any(|ancestor| agent.contains(&ancestor)) {
            return Err("it is a helper of the agent".to_owned());
        }
        for (path, directory) in &self.cgroups {
            if is_inside(directory, pid)? {
                let protected = "which is protected (`protected` in [guard])";
                return Err(format!("it is in the cgroup {path}, {protected}"));
            }
        }
        // Whoever has gone meanwhile was nobody that could be looked at.
        match Stat::of_process(pid) {
            Some(_) => Ok(()),
            None => Err("it has ended".to_owned()),
        }
    }
}

/// Whether a process is in a cgroup or below it. Not by the path that `/proc` has for it, which is another
/// one where the hierarchy is mounted in part.
fn is_inside(directory: &Path, pid: u32) -> Result<bool, String> {
    let found = first_process(directory, |_, other| (other == pid).then_some(()));
    found.map(|found| found.is_some()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    fn check(protection: &Protection, mount: &Path, pid: u32) -> Result<(), String> {
        protection.reach(|| Ok(mount.to_owned())).unwrap().check(pid)
    }

    #[test]
    fn who_is_protected_is_not_reached_and_the_reason_is_told() {
        let mount = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let (own, pid) = (std::process::id(), child.id());
        let in_cgroup = |path: &str, pid: u32| {
            fs::create_dir_all(mount.path().join(path)).unwrap();
            fs::write(mount.path().join(path).join("cgroup.procs"), format!("{pid}\n")).unwrap();
        };
        let all = Protection::default();
        // As an agent that this process is no part of.
        assert_eq!(check(&all, mount.path(), pid), Ok(()));
        assert_eq!(check(&all, mount.path(), 1).unwrap_err(), "it is the first process");
        let ours = Protection { agent: vec![own], ..Protection::default() };
        let agent = "it is the agent, or one of its helpers";
        assert_eq!(check(&ours, mount.path(), own).unwrap_err(), agent);
        assert_eq!(check(&ours, mount.path(), pid).unwrap_err(), "it is a helper of the agent");
        for ancestor in ancestors(own) {
            let why = check(&ours, mount.path(), ancestor).unwrap_err();
            let expected = if ancestor == 1 { "first process" } else { "descends from it" };
            assert!(why.ends_with(expected), "{why}");
        }
        // The command of `tipstaff exec` descends from the agent, too.
        in_cgroup("command/below", pid);
        let within = Some(mount.path().join("command"));
        let command = Protection { within, ..ours.clone() };
        assert_eq!(check(&command, mount.path(), pid), Ok(()));
        in_cgroup("command/below", own + 1);
        assert!(
            check(&command, mount.path(), pid).unwrap_err().contains("`tipstaff exec` signals")
        );

        let named = Protection { cgroups: vec!["/named".into()], ..Protection::default() };
        assert_eq!(check(&named, mount.path(), pid), Ok(()), "there is no such cgroup yet");
        in_cgroup("named/below", pid);
        let why = check(&named, mount.path(), pid).unwrap_err();
        assert_eq!(why, "it is in the cgroup /named, which is protected (`protected` in [guard])");
        let lost = named.reach(|| Err("no hierarchy".to_owned())).err();
        assert_eq!(
            lost.as_deref(),
            Some("no hierarchy"),
            "who cannot be told apart is not reached"
        );

        let executables = vec![fs::canonicalize(format!("/proc/{pid}/exe")).unwrap()];
        let program = Protection { executables, ..Protection::default() };
        assert!(check(&program, mount.path(), pid).unwrap_err().contains("which is protected"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(check(&all, mount.path(), pid).unwrap_err(), "it has ended");
    }
}
