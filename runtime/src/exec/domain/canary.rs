//! Whether rules about files and programs are kept here: not concluded from a version, but tried on a child of ours.
//! It enters a ruleset and tries what is to be denied, where that changes nothing: files in a directory of our own,
//! and reading what the rules name.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::AsFd as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{fs::OFlags, io::Errno};
use tempfile::TempDir;

use super::{Domain, DomainError, enter, is_regular_or_directory, receive, send};
use crate::{
    exec::THIS_PROGRAM,
    guard::{
        Verdict,
        paths::{Access, Accesses, Home, PathRule, PathTable, Resolved},
    },
};

/// How long the child may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Paths of rules that are tried.
const MOST_NAMED: usize = 32;
/// What its program is, and is not to be run with.
const SCRIPT: &str = "#!/nonexistent/interpreter\n";

/// What a child tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    List,
    Read,
    Open,
    Truncate,
    Create,
    Remove,
    Rename,
    Execute,
}

impl Trial {
    const ALL: [(Self, Access, &'static str); 8] = [
        (Self::List, Access::List, ""),
        (Self::Read, Access::Read, "file"),
        (Self::Open, Access::Write, "file"),
        (Self::Truncate, Access::Write, "file"),
        (Self::Create, Access::Write, "new"),
        (Self::Rename, Access::Write, "file"),
        (Self::Execute, Access::Execute, "script"),
        // The last one: the others need what is there.
        (Self::Remove, Access::Write, "gone"),
    ];

    /// Does it.
    fn attempt(self, path: &Path) -> io::Result<()> {
        let open = || {
            let mut options = OpenOptions::new();
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
            options.custom_flags(flags.bits().cast_signed());
            options
        };
        match self {
            Self::List | Self::Read => open().read(true).open(path).map(drop),
            Self::Open => open().write(true).open(path).map(drop),
            Self::Truncate => rustix::fs::open(
                path,
                OFlags::RDONLY | OFlags::TRUNC | OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .map(drop)
            .map_err(Into::into),
            Self::Create => File::create_new(path).map(drop),
            Self::Remove => fs::remove_file(path),
            Self::Rename => fs::rename(path, path.with_extension("moved")),
            Self::Execute => match Command::new(path).stdin(Stdio::null()).spawn() {
                // Its interpreter is not there: it was about to be run.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
                Ok(mut child) => child.wait().map(drop),
            },
        }
    }
}

/// The child's own work, with standard input for a channel.
pub fn sing() -> io::Result<()> {
    let mut channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let domains = receive(&channel)?;
    let mut text = Vec::new();
    channel.read_to_end(&mut text)?;
    enter(&domains)?;
    let mut parts = text.split(|byte| *byte == 0);
    while let (Some([number]), Some(path)) = (parts.next(), parts.next()) {
        let trial = usize::from(number.wrapping_sub(b'0'));
        let (trial, ..) = Trial::ALL.get(trial).ok_or(io::ErrorKind::InvalidInput)?;
        let result = trial.attempt(&PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())));
        let code = match result {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        channel.write_all(&code.to_le_bytes())?;
    }
    Ok(())
}

/// Why it is not proven that rules are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// They are not.
    #[error("a child of ours was not denied {0}")]
    NotDenied(String),
    /// It could not be tried, which may be otherwise the next time.
    #[error("it could not be tried: {0}")]
    Untried(String),
}

impl Unkept {
    fn untried(error: &dyn std::fmt::Display) -> Self {
        Self::Untried(error.to_string())
    }
}

/// Whether the kernel keeps rules about these accesses: in a directory of ours all are denied on one side, and
/// none on the other.
pub fn prove(accesses: &[Access]) -> Result<(), Unkept> {
    let place = place(accesses)?;
    let (denied, allowed) =
        (trials(&place, "denied", accesses), trials(&place, "allowed", accesses));
    let rule = PathRule {
        verdict: Verdict::Allow,
        accesses: accesses.iter().copied().collect::<Accesses>(),
        path: place.path().join("allowed").to_string_lossy().into_owned(),
        may_be_missing: false,
        reason: String::new(),
    };
    let table =
        PathTable { default: Verdict::Deny, default_reason: String::new(), rules: vec![rule] };
    let untried = |error: DomainError| Unkept::untried(&error);
    let resolved =
        Resolved::new(&table, &Home::default()).map_err(|error| untried(error.into()))?;
    let domain = Domain::new(&resolved, accesses).map_err(untried)?;
    must_be_denied(&domain, &denied)?;
    for ((trial, path), code) in allowed.iter().zip(attempts(&domain, &allowed)?) {
        if code != 0 {
            let error = io::Error::from_raw_os_error(code);
            return Err(Unkept::Untried(format!("{trial:?} of {}: {error}", path.display())));
        }
    }
    Ok(())
}

/// Whether this very ruleset, made for this table, denies: in a directory of ours what the table denies
/// there, and reading and listing what its rules deny.
pub fn prove_this(domain: &Domain, table: &Resolved, accesses: &[Access]) -> Result<(), Unkept> {
    let place = place(accesses)?;
    let is_denied = |access| {
        accesses.contains(&access)
            && table.decide(access, &place.path().join("denied")).0 == Verdict::Deny
    };
    let denied: Vec<Access> =
        accesses.iter().copied().filter(|access| is_denied(*access)).collect();
    let mut all = trials(&place, "denied", &denied);
    let named = table.denied().filter_map(|(access, path)| {
        let trial = match (access, is_regular_or_directory(path)?) {
            (Access::List, true) => Trial::List,
            (Access::Read, false) => Trial::Read,
            _ => return None,
        };
        // What is denied to us anyway proves nothing.
        (accesses.contains(&access) && trial.attempt(path).is_ok())
            .then(|| (trial, path.to_owned()))
    });
    all.extend(named.take(MOST_NAMED));
    must_be_denied(domain, &all)
}

fn must_be_denied(domain: &Domain, all: &[(Trial, PathBuf)]) -> Result<(), Unkept> {
    for ((trial, path), code) in all.iter().zip(attempts(domain, all)?) {
        if code != Errno::ACCESS.raw_os_error() {
            let trial = format!("{trial:?}").to_lowercase();
            return Err(Unkept::NotDenied(format!(
                "what the rules deny: {trial} {} (it got {})",
                path.display(),
                if code == 0 {
                    "through".to_owned()
                } else {
                    io::Error::from_raw_os_error(code).to_string()
                }
            )));
        }
    }
    Ok(())
}

/// What is tried in a directory of ours.
fn trials(place: &TempDir, side: &str, accesses: &[Access]) -> Vec<(Trial, PathBuf)> {
    let directory = place.path().join(side);
    let wanted = Trial::ALL.into_iter().filter(|(_, access, _)| accesses.contains(access));
    wanted.map(|(trial, _, name)| (trial, directory.join(name))).collect()
}

/// A directory of ours with what is tried, where programs can be run if they have to be.
fn place(accesses: &[Access]) -> Result<TempDir, Unkept> {
    let candidates = [env::temp_dir(), "/var/tmp".into(), "/run".into(), "/dev/shm".into()];
    let mut last = None;
    for candidate in candidates {
        match make(&candidate) {
            Ok(place) => {
                let script = place.path().join("allowed/script");
                if !accesses.contains(&Access::Execute) || Trial::Execute.attempt(&script).is_ok() {
                    return Ok(place);
                }
                last = Some(format!("nothing can be run in {}", candidate.display()));
            }
            Err(error) => last = Some(format!("{}: {error}", candidate.display())),
        }
    }
    Err(Unkept::Untried(last.unwrap_or_default()))
}

fn make(within: &Path) -> io::Result<TempDir> {
    // Without symbolic links, as rules have it.
    let place =
        tempfile::Builder::new().prefix("tipstaff-canary-").tempdir_in(within.canonicalize()?)?;
    for side in ["denied", "allowed"] {
        let directory = place.path().join(side);
        fs::create_dir(&directory)?;
        for (name, mode) in [("file", 0o600), ("gone", 0o600), ("script", 0o700)] {
            let path = directory.join(name);
            fs::write(&path, SCRIPT)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(place)
}

/// Has a child enter the ruleset and try all of it. What each attempt got: 0, or an error's number.
fn attempts(domain: &Domain, all: &[(Trial, PathBuf)]) -> Result<Vec<i32>, Unkept> {
    let untried = |error: io::Error| Unkept::untried(&error);
    let mut text = Vec::new();
    for (trial, path) in all {
        let number = Trial::ALL.iter().position(|(other, ..)| other == trial).unwrap_or_default();
        text.push(b'0' + u8::try_from(number).unwrap_or_default());
        text.push(0);
        text.extend(path.as_os_str().as_bytes());
        text.push(0);
    }
    let (mut ours, theirs) = UnixStream::pair().map_err(untried)?;
    ours.set_read_timeout(Some(PATIENCE)).map_err(untried)?;
    ours.set_write_timeout(Some(PATIENCE)).map_err(untried)?;
    // Not by its path: the file may be another one by now.
    let mut command = Command::new(THIS_PROGRAM);
    command.args(["canary", "--rules"]).stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(untried)?;
    // The other end is the child's alone.
    drop(command);
    let _child = Reaped(child);
    send(&ours, &[domain.as_fd()]).map_err(untried)?;
    ours.write_all(&text).map_err(untried)?;
    ours.shutdown(Shutdown::Write).map_err(untried)?;
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).map_err(untried)?;
    let codes: Vec<i32> =
        answer.as_chunks().0.iter().map(|code| i32::from_le_bytes(*code)).collect();
    if codes.len() == all.len() {
        Ok(codes)
    } else {
        Err(Unkept::Untried(format!("a child of ours tried {} of {}", codes.len(), all.len())))
    }
}

/// A child that ends with this.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
