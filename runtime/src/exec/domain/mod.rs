//! Rules about files and programs for a command, kept by Landlock: a *ruleset* is made while the command is
//! prepared, tried on a [`canary`], handed over, and entered on the way to the command's first
//! instruction. From then on nobody can change it, take it off, or get out of it.

pub mod canary;
mod handover;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _,
};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
    thread::set_no_new_privs,
};

use crate::{
    guard::paths::{Access, PathsError, Resolved, spread},
    sys,
};

pub(super) use handover::{receive, send};

/// The Landlock of Linux 5.19. Before it, who is under any ruleset can move no file to another directory.
const MOVES: u32 = 2;
/// The Landlock of Linux 6.2. Before it, nothing keeps a file from being truncated.
const TRUNCATES: u32 = 3;

/// Why rules about files or programs cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The kernel was built without it.
    #[error("this kernel has no Landlock, which Linux has since 5.13 (CONFIG_SECURITY_LANDLOCK)")]
    NotThere,
    /// It is switched off.
    #[error(
        "Landlock is not among the security modules of this kernel: add `landlock` to `lsm=` on its command line"
    )]
    Off,
    /// It cannot keep what the rules say.
    #[error("the Landlock of this kernel (version {found}) cannot keep these rules: {why}")]
    Old {
        /// Its version.
        found: u32,
        /// What it lacks.
        why: &'static str,
    },
    /// The rules.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// A path.
    #[error("{}: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Something else.
    #[error("Landlock: {0}")]
    Other(String),
}

/// A ruleset, ready to be entered.
#[derive(Debug)]
pub struct Domain(OwnedFd);

impl AsFd for Domain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Domain {
    /// The ruleset that allows what a table allows of these accesses. Other accesses are not decided
    /// about.
    pub fn new(table: &Resolved, accesses: &[Access]) -> Result<Self, DomainError> {
        let version = version()?;
        if version < MOVES {
            let why = "before Linux 5.19 the command could move no file to another directory";
            return Err(DomainError::Old { found: version, why });
        }
        let everywhere = PathBuf::from("/");
        let mut handled = BitFlags::from(AccessFs::Refer);
        let mut allowed: BTreeMap<PathBuf, BitFlags<AccessFs>> = BTreeMap::new();
        let mut moves = vec![everywhere.clone()];
        for access in accesses {
            let within = spread(table, *access)?;
            if within == [everywhere.clone()] {
                continue;
            }
            if *access == Access::Write {
                if version < TRUNCATES {
                    let why = "before Linux 6.2 nothing keeps a file from being truncated";
                    return Err(DomainError::Old { found: version, why });
                }
                moves.clone_from(&within);
            }
            handled |= rights(*access);
            for path in within {
                *allowed.entry(path).or_default() |= rights(*access);
            }
        }
        // Denied wherever it is not allowed, also by a ruleset that says nothing of it. What a file may not be
        // read for where it is, it may not be read for where it is moved to: the kernel sees to that.
        for path in moves {
            *allowed.entry(path).or_default() |= AccessFs::Refer;
        }
        let other = |error: landlock::RulesetError| DomainError::Other(error.to_string());
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(handled)
            .map_err(other)?
            .create()
            .map_err(other)?;
        for (path, rights) in allowed {
            let Some((file, rights)) =
                target(&path, rights).map_err(|source| DomainError::Path { path, source })?
            else {
                continue;
            };
            ruleset = ruleset.add_rule(PathBeneath::new(file, rights)).map_err(other)?;
        }
        let ruleset: Option<OwnedFd> = ruleset.into();
        ruleset.map(Self).ok_or(DomainError::NotThere)
    }

    /// The same once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Puts this thread, the only one of its process, under these, and gives up what a program may gain when
/// it is run: without that the kernel does not allow it to whoever is not root.
pub(super) fn enter(domains: &[OwnedFd]) -> io::Result<()> {
    if domains.is_empty() {
        return Ok(());
    }
    set_no_new_privs(true)?;
    domains.iter().try_for_each(|domain| {
        sys::landlock::restrict(domain.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::TOOBIG.raw_os_error() => io::Error::other(
                "a process can be under 16 rulesets of Landlock, with those of whoever started us: use fewer policies with rules about files and programs",
            ),
            _ => error,
        })
    })
}

/// The version of this kernel's Landlock.
fn version() -> Result<u32, DomainError> {
    sys::landlock::version().map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSYS) => DomainError::NotThere,
            Some(Errno::OPNOTSUPP) => DomainError::Off,
            _ => DomainError::Other(error.to_string()),
        }
    })
}

/// The kernel's rights for an access.
fn rights(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::List => AccessFs::ReadDir.into(),
        Access::Read => AccessFs::ReadFile.into(),
        Access::Execute => AccessFs::Execute.into(),
        Access::Write => {
            AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::RemoveDir
                | AccessFs::RemoveFile
                | AccessFs::MakeChar
                | AccessFs::MakeDir
                | AccessFs::MakeReg
                | AccessFs::MakeSock
                | AccessFs::MakeFifo
                | AccessFs::MakeBlock
                | AccessFs::MakeSym
        }
    }
}

/// The file of a path, and what can be allowed there of these rights. None for what is gone, or is nothing
/// that can be opened.
fn target(
    path: &PathBuf,
    rights: BitFlags<AccessFs>,
) -> io::Result<Option<(OwnedFd, BitFlags<AccessFs>)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let of_files =
        AccessFs::Execute | AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let rights = match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::Directory => rights,
        FileType::Symlink => return Ok(None),
        _ => rights & of_files,
    };
    Ok((!rights.is_empty()).then_some((file, rights)))
}

/// Whether something like this is there for a canary, and what it is: only these are opened.
fn is_regular_or_directory(path: &std::path::Path) -> Option<bool> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    (kind.is_file() || kind.is_dir()).then_some(kind.is_dir())
}
