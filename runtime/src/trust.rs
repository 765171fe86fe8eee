//! Who may decide what the agent does: files are read only if nobody but root (in observe mode: or
//! the user who started the agent) can change them, or what their path leads to.
//!
//! A path is walked component by component, each opened relative to the one before and checked by
//! its descriptor, and the file is read from the descriptor that was checked: nothing can be swapped
//! in between.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode as FileMode, OFlags, Stat},
    io::Errno,
};

use crate::{escape, guard::Mode};

/// Most symbolic links on one path, as in the kernel.
const MAX_LINKS: usize = 40;
/// Who may write.
const GROUP_OR_OTHERS: u32 = 0o022;
/// In a directory with this bit (as /tmp), only the owner of a file may remove or replace it.
const STICKY: u32 = 0o1000;

/// Whose files are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    owners: Vec<u32>,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Someone else owns it, or a directory that it is in, or a link that leads to it.
    #[error(
        "{} belongs to user {owner}, who could change {}; expected {expected}: chown root: {}",
        shown(path),
        what(path, of),
        quoted(path)
    )]
    Owner {
        /// What was found on the way.
        path: PathBuf,
        /// What was to be read.
        of: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who may.
        expected: String,
    },
    /// Others may write to it, or to a directory that it is in.
    #[error(
        "{} can be written by others (mode {mode:04o}), who could change {}: chmod go-w {}",
        shown(path),
        what(path, of),
        quoted(path)
    )]
    Writable {
        /// What was found on the way.
        path: PathBuf,
        /// What was to be read.
        of: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is something else.
    #[error("{} is {found}, expected {expected}", shown(path))]
    Type {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// It is too long.
    #[error("{} is longer than {max} bytes, the most that is read", shown(path))]
    Long {
        /// The path.
        path: PathBuf,
        /// The most.
        max: u64,
    },
    /// The kernel says no.
    #[error("cannot {action} {}: {error}", shown(path))]
    Io {
        /// The path.
        path: PathBuf,
        /// "open", "read" ...
        action: &'static str,
        /// What it says. Part of the message, and so not its source.
        error: io::Error,
    },
}

impl TrustError {
    /// Whether the file does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the system could not do it, for a reason that may be gone the next time.
    pub(crate) fn is_the_systems(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.raw_os_error().is_some())
            && !self.is_missing()
    }

    pub(crate) fn io(path: &Path, action: &'static str, error: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), action, error: error.into() }
    }
}

fn shown(path: &Path) -> String {
    escape::control(&path.to_string_lossy()).into_owned()
}

/// The thing itself, or what it leads to.
fn what(path: &Path, of: &Path) -> String {
    if path == of { "it".to_owned() } else { shown(of) }
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let text = shown(path);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("root")?;
        self.owners
            .iter()
            .filter(|&&owner| owner != 0)
            .try_for_each(|owner| write!(f, " or user {owner}"))
    }
}

impl Trust {
    /// For what decides how far the agent goes in this mode: root, and where nothing is done to any
    /// process also the user who started the agent, be it through sudo.
    #[must_use]
    pub fn of(mode: Mode) -> Self {
        if mode > Mode::Observe {
            return Self::owners(vec![0]);
        }
        let user = rustix::process::getuid();
        let mut owners = vec![0, user.as_raw()];
        // Only sudo or root itself can have set this for root.
        if user.is_root()
            && let Some(sudo) = env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok())
        {
            owners.push(sudo);
        }
        Self::owners(owners)
    }

    /// For compiled code, which runs with all rights of the agent: who runs the agent, and root.
    #[must_use]
    pub fn code() -> Self {
        Self::owners(vec![0, rustix::process::geteuid().as_raw()])
    }

    fn owners(mut owners: Vec<u32>) -> Self {
        owners.sort_unstable();
        owners.dedup();
        Self { owners }
    }

    /// Opens a file for reading.
    pub fn file(&self, path: &Path) -> Result<File, TrustError> {
        let (fd, stat) = self.open(path)?;
        expect(path, &stat, FileType::RegularFile)?;
        Ok(File::from(fd))
    }

    /// Reads a file of at most `max` bytes.
    pub fn read(&self, path: &Path, max: u64) -> Result<Vec<u8>, TrustError> {
        let mut bytes = Vec::new();
        let taken = self.file(path)?.take(max + 1).read_to_end(&mut bytes);
        taken.map_err(|error| TrustError::io(path, "read", error))?;
        if bytes.len() as u64 > max {
            return Err(TrustError::Long { path: path.to_owned(), max });
        }
        Ok(bytes)
    }

    /// The names in a directory, sorted.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>, TrustError> {
        let fd = self.open_directory(path)?;
        let read = |source| TrustError::io(path, "read", source);
        let mut names = Vec::new();
        for entry in Dir::read_from(fd).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_owned().into_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Checks a directory for files of the agent's own; makes it, for its owner alone, if it is missing.
    pub fn directory(&self, path: &Path) -> Result<(), TrustError> {
        let missing = match self.open_directory(path) {
            Err(error) if error.is_missing() => path,
            result => return result.map(drop),
        };
        if let Some(parent) = missing.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.directory(parent)?;
        }
        match rustix::fs::mkdir(missing, FileMode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.open_directory(path).map(drop),
            Err(error) => Err(TrustError::io(path, "make the directory", error)),
        }
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, TrustError> {
        let (fd, stat) = self.open(path)?;
        expect(path, &stat, FileType::Directory)?;
        // A shared directory is fine above, not here: everyone may add a file.
        if stat.st_mode & GROUP_OR_OTHERS != 0 {
            return Err(TrustError::Writable {
                path: path.to_owned(),
                of: path.to_owned(),
                mode: stat.st_mode & 0o7777,
            });
        }
        Ok(fd)
    }

    /// Opens for reading what `path` leads to, with all that is on the way checked.
    fn open(&self, path: &Path) -> Result<(OwnedFd, Stat), TrustError> {
        let absolute =
            std::path::absolute(path).map_err(|error| TrustError::io(path, "find", error))?;
        let mut rest = VecDeque::new();
        push_front(&mut rest, &absolute);
        let mut walked = vec![self.root(path)?];
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                // Only from a link: above the root is the root.
                walked.truncate(walked.len().saturating_sub(1).max(1));
                continue;
            }
            let parent = walked.last().expect("the root stays");
            let here = parent.path.join(&name);
            let fd = open_at(&parent.fd, &name, OFlags::PATH)
                .map_err(|error| TrustError::io(&here, "open", error))?;
            let stat = stat(&fd, &here)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TrustError::io(&here, "follow", Errno::LOOP));
                    }
                    // The mode of a link means nothing, its owner only where anyone can make one.
                    if parent.is_shared {
                        self.check_owner(&here, path, &stat)?;
                    }
                    let target = rustix::fs::readlinkat(&fd, "", Vec::new());
                    let target = target
                        .map_err(|error| TrustError::io(&here, "follow", error))?
                        .into_bytes();
                    let target = Path::new(OsStr::from_bytes(&target));
                    if target.is_absolute() {
                        walked.truncate(1);
                    }
                    push_front(&mut rest, target);
                }
                FileType::Directory if !rest.is_empty() => {
                    walked.push(self.level(fd, here, path, &stat)?);
                }
                _ if !rest.is_empty() => return Err(TrustError::io(&here, "open", Errno::NOTDIR)),
                _ => return self.last(parent, &name, &here, path),
            }
        }
        // The path was the root, or ended in `..`.
        let last = walked.pop().expect("the root stays");
        self.last(&last, OsStr::new("."), &last.path, path)
    }

    /// Opens the last component for reading, and checks that descriptor.
    fn last(
        &self,
        parent: &Level,
        name: &OsStr,
        here: &Path,
        of: &Path,
    ) -> Result<(OwnedFd, Stat), TrustError> {
        // Not blocking: a FIFO would wait for a writer before it can be refused.
        let fd = open_at(&parent.fd, name, OFlags::RDONLY | OFlags::NONBLOCK);
        let fd = fd.map_err(|error| TrustError::io(here, "open", error))?;
        let stat = stat(&fd, here)?;
        self.check_owner(here, of, &stat)?;
        let is_shared_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && stat.st_mode & STICKY != 0;
        if stat.st_mode & GROUP_OR_OTHERS != 0 && !is_shared_directory {
            return Err(TrustError::Writable {
                path: here.to_owned(),
                of: of.to_owned(),
                mode: stat.st_mode & 0o7777,
            });
        }
        Ok((fd, stat))
    }

    fn root(&self, of: &Path) -> Result<Level, TrustError> {
        let here = Path::new("/");
        let fd = open_at(rustix::fs::CWD, here.as_os_str(), OFlags::PATH);
        let fd = fd.map_err(|error| TrustError::io(here, "open", error))?;
        let stat = stat(&fd, here)?;
        self.level(fd, here.to_owned(), of, &stat)
    }

    fn level(
        &self,
        fd: OwnedFd,
        path: PathBuf,
        of: &Path,
        stat: &Stat,
    ) -> Result<Level, TrustError> {
        self.check_owner(&path, of, stat)?;
        let is_writable = stat.st_mode & GROUP_OR_OTHERS != 0;
        if is_writable && stat.st_mode & STICKY == 0 {
            return Err(TrustError::Writable {
                path,
                of: of.to_owned(),
                mode: stat.st_mode & 0o7777,
            });
        }
        Ok(Level { fd, path, is_shared: is_writable })
    }

    fn check_owner(&self, path: &Path, of: &Path, stat: &Stat) -> Result<(), TrustError> {
        if self.owners.contains(&stat.st_uid) {
            return Ok(());
        }
        let expected = self.to_string();
        Err(TrustError::Owner {
            path: path.to_owned(),
            of: of.to_owned(),
            owner: stat.st_uid,
            expected,
        })
    }
}

/// A directory on the way.
struct Level {
    fd: OwnedFd,
    path: PathBuf,
    /// Others may add to it, but not replace what is there.
    is_shared: bool,
}

fn push_front(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn open_at(parent: impl AsFd, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, FileMode::empty())
}

fn stat(fd: &OwnedFd, path: &Path) -> Result<Stat, TrustError> {
    rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)
        .map_err(|error| TrustError::io(path, "look at", error))
}

fn expect(path: &Path, stat: &Stat, expected: FileType) -> Result<(), TrustError> {
    let name = |ty| match ty {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a symbolic link",
        FileType::Unknown => "something unknown",
    };
    let found = FileType::from_raw_mode(stat.st_mode);
    if found == expected {
        return Ok(());
    }
    Err(TrustError::Type { path: path.to_owned(), found: name(found), expected: name(expected) })
}

#[cfg(test)]
mod tests;
