//! One agent of a name at a time.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::trust::{Trust, TrustError};

/// The directory for locks, which only this user can write to: as root `/run/tipstaff`, whatever the
/// environment says; else in `$XDG_RUNTIME_DIR`, if that is this user's own, or else in `/tmp`. It is
/// made if it is missing.
pub fn directory() -> Result<PathBuf, TrustError> {
    let user = rustix::process::geteuid();
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let directory = if user.is_root() {
        "/run/tipstaff".into()
    } else if let Some(runtime) = runtime.filter(|runtime| is_own(runtime)) {
        runtime.join("tipstaff")
    } else {
        format!("/tmp/tipstaff-{}", user.as_raw()).into()
    };
    // Anyone can make a directory of that name in /tmp, with links in it.
    Trust::code().directory(&directory)?;
    Ok(directory)
}

/// What anyone but the owner may do.
const OTHERS: u32 = 0o077;

/// Whether nobody else can have put anything into this directory.
fn is_own(directory: &Path) -> bool {
    directory.is_absolute()
        && fs::symlink_metadata(directory).is_ok_and(|metadata| {
            metadata.is_dir()
                && metadata.uid() == rustix::process::geteuid().as_raw()
                && metadata.mode() & OTHERS == 0
        })
}

/// Held while an agent of this name runs. The kernel lets go when the process ends, however it ends.
pub struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one has it.
    #[error(
        "an agent named `{name}` runs already (pid {pid}): stop it, or give this one another --name"
    )]
    Taken {
        /// The name.
        name: String,
        /// Who has it, as the file says.
        pid: String,
    },
    /// It cannot be had.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of that name in this directory, see [`directory`].
    pub fn take(directory: &Path, name: &str) -> Result<Self, LockError> {
        let path = directory.join(format!("{name}.lock"));
        let mut file =
            open(&path).map_err(|source| LockError::Io { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut pid);
                return Err(LockError::Taken { name: name.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(error) => return Err(LockError::Io { path, source: error.into() }),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|source| LockError::Io { path, source })?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).custom_flags(no_link).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_name_is_taken_once_and_free_again_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path();
        let first = Lock::take(below, "a").unwrap();
        let second = Lock::take(below, "a").err().unwrap().to_string();
        assert!(
            second.contains(&format!("`a` runs already (pid {})", std::process::id())),
            "{second}"
        );
        let _other = Lock::take(below, "b").unwrap();
        drop(first);
        assert!(Lock::take(below, "a").is_ok());
    }

    #[test]
    fn a_runtime_directory_that_others_can_write_or_own_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let set = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o700);
        assert!(is_own(directory.path()));
        set(0o770);
        assert!(!is_own(directory.path()));
        set(0o700);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert!(!is_own(&link) && !is_own(Path::new("relative")) && !is_own(Path::new("/tmp")));
    }
}
