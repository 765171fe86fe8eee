//! One agent of a name at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

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
    /// Takes the lock of that name in `directory`, which is made if it is missing.
    pub fn take(directory: &Path, name: &str) -> Result<Self, LockError> {
        let path = directory.join(format!("{name}.lock"));
        let mut file = open(directory, &path)
            .map_err(|source| LockError::Io { path: path.clone(), source })?;
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

fn open(directory: &Path, path: &Path) -> io::Result<File> {
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_free_again_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("run");
        let first = Lock::take(&below, "a").unwrap();
        let second = Lock::take(&below, "a").err().unwrap().to_string();
        assert!(
            second.contains(&format!("`a` runs already (pid {})", std::process::id())),
            "{second}"
        );
        let _other = Lock::take(&below, "b").unwrap();
        drop(first);
        assert!(Lock::take(&below, "a").is_ok());
    }
}
