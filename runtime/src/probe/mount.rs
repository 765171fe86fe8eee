//! File systems of the kernel's own, mounted for nobody but us: a detached mount is in no mount
//! namespace and gone with its descriptor.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::error::ProbeError;
use crate::mountinfo;

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
        let mounts = mountinfo::read().unwrap_or_default().into_iter();
        mounts
            .filter(|mount| mount.file_system == "tracefs" && mount.root == Path::new("/"))
            .map(|mount| Self::Mounted(mount.point))
            .next()
            .ok_or(ProbeError::NoTracefs { source })
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
