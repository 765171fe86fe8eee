//! File systems of the kernel's own, mounted for nobody but us: a detached mount is in no mount
//! namespace and gone with its descriptor.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::error::ProbeError;

/// A detached mount.
#[derive(Debug)]
pub(super) struct Detached(OwnedFd);

impl Detached {
    fn new(file_system: &str) -> io::Result<Self> {
        let context = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        Ok(Self(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?))
    }

    /// A bpffs of its own: pins in it are seen by nobody else.
    pub(super) fn bpffs() -> Result<Self, ProbeError> {
        Self::new("bpf").map_err(|source| ProbeError::NoBpffs { source })
    }

    /// Path of its root, good within this process.
    pub(super) fn path(&self) -> PathBuf {
        // Not /proc/self: other threads may have unshared their descriptors, but not with us.
        Path::new("/proc/thread-self/fd").join(self.0.as_raw_fd().to_string())
    }
}

/// Where the kernel describes its tracepoints.
#[derive(Debug)]
pub(super) enum Tracefs {
    /// Mounted by someone.
    Mounted(PathBuf),
    /// Mounted by us, for us.
    Private(Detached),
}

impl Tracefs {
    /// Mounts it privately, as another's mount can go at any time; where that is not allowed, finds
    /// one.
    pub(super) fn find() -> Result<Self, ProbeError> {
        let source = match Detached::new("tracefs") {
            Ok(mount) => return Ok(Self::Private(mount)),
            Err(source) => source,
        };
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        mount_point(&mounts, "tracefs").map(Self::Mounted).ok_or(ProbeError::NoTracefs { source })
    }

    /// Folder of a tracepoint, with its `id` and `format`.
    pub(super) fn event(&self, category: &str, name: &str) -> PathBuf {
        let root = match self {
            Self::Mounted(path) => path.clone(),
            Self::Private(mount) => mount.path(),
        };
        root.join("events").join(category).join(name)
    }
}

/// Where a file system of that type is mounted whole, from the text of a `mountinfo`.
fn mount_point(mounts: &str, ty: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, mount_point) = (head.next()?, head.next()?);
        (root == "/" && tail.split(' ').next()? == ty).then(|| unescaped(mount_point))
    })
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits.
fn unescaped(path: &str) -> PathBuf {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (escape, plain)| path.replace(escape, plain))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_type_and_its_path_unescaped() {
        let mounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                      40 31 0:37 /sub /a rw shared:3 - tracefs tracefs rw\n\
                      41 31 0:38 / /b\\040c rw,relatime shared:4 master:1 - tracefs none rw\n";
        assert_eq!(mount_point(mounts, "tracefs"), Some(PathBuf::from("/b c")));
        assert_eq!(mount_point(mounts, "bpf"), None);
    }
}
