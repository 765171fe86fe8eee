//! The cgroup that the folder of our cgroups is in.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::getxattr;

/// The folder of our cgroups.
pub(super) const FOLDER: &str = "tipstaff";
/// Beginning of their names.
pub(super) const PREFIX: &str = "exec-";
/// What systemd writes on a cgroup that it leaves to a unit (`Delegate=yes`).
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Whether root alone moves processes there and makes cgroups in it. Who may write to the `cgroup.procs`
/// of a cgroup around two others may move processes from one to the other.
pub(super) fn is_roots(cgroup: &Path) -> bool {
    ["", "cgroup.procs", "cgroup.threads"].iter().all(|name| {
        match fs::metadata(cgroup.join(name)) {
            Ok(metadata) => metadata.uid() == 0 && metadata.mode() & 0o022 == 0,
            // Kernels without threaded cgroups, and roots of namespaces.
            Err(error) => {
                !name.is_empty() && error.kind() == io::ErrorKind::NotFound && cgroup.exists()
            }
        }
    })
}

/// The cgroup that our folder is in: the nearest one that is left to us, if `is_roots` says that it and
/// all around it are root's alone.
pub(super) fn anchor(mount: &Path, own: &Path, is_roots: impl Fn(&Path) -> bool) -> PathBuf {
    let own = mount.join(own);
    let is_ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.starts_with(PREFIX.as_bytes())
            && path.parent().is_some_and(|parent| parent.ends_with(FOLDER))
    };
    let is_delegated =
        |path: &Path| DELEGATED.iter().any(|name| getxattr(path, *name, &mut [0; 8]).is_ok());
    let around: Vec<_> =
        own.ancestors().take_while(|path| *path != mount && path.starts_with(mount)).collect();
    // From outside: below one that is not root's, nothing holds.
    around
        .into_iter()
        .rev()
        .take_while(|path| is_roots(path))
        .filter(|path| is_ours(path) || is_delegated(path))
        .last()
        .unwrap_or(mount)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_at_the_root_or_in_the_cgroup_of_a_command_of_ours() {
        let mount = Path::new("/v2");
        for (own, expected) in [
            ("", "/v2"),
            ("user.slice/session-1.scope", "/v2"),
            ("tipstaff/exec-1-a", "/v2/tipstaff/exec-1-a"),
            ("tipstaff/exec-1-a/x/y", "/v2/tipstaff/exec-1-a"),
            ("a/tipstaff/exec-1-a/tipstaff/exec-2-b", "/v2/a/tipstaff/exec-1-a/tipstaff/exec-2-b"),
            ("other/exec-1-a", "/v2"),
            ("../../outside", "/v2"),
        ] {
            assert_eq!(anchor(mount, Path::new(own), |_| true), Path::new(expected), "{own}");
        }
    }

    #[test]
    fn the_folder_is_in_nothing_that_is_not_roots() {
        let (mount, own) = (Path::new("/v2"), "a/tipstaff/exec-1-a/tipstaff/exec-2-b");
        for (foreign, expected) in [
            ("/v2/a", "/v2"),
            ("/v2/a/tipstaff", "/v2"),
            ("/v2/a/tipstaff/exec-1-a", "/v2"),
            ("/v2/a/tipstaff/exec-1-a/tipstaff", "/v2/a/tipstaff/exec-1-a"),
            ("/v2/a/tipstaff/exec-1-a/tipstaff/exec-2-b", "/v2/a/tipstaff/exec-1-a"),
        ] {
            let is_roots = |path: &Path| path != Path::new(foreign);
            assert_eq!(anchor(mount, Path::new(own), is_roots), Path::new(expected), "{foreign}");
        }
    }
}
