//! The stand-in: a child that waits, and then becomes the command.
//!
//! It is this program, run again, so that what is done between fork and exec is done by a process with
//! one thread that may allocate. It answers through the socket by which it was told to go on: nothing
//! if it became the command, which closes the socket; else the exit code and why it did not.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal},
};

use super::{
    STANDIN_COMMAND, THIS_PROGRAM,
    domain::{self, Domain},
    identity::{Identity, become_user},
    supervise::Ended,
};
use crate::{escape, sys};

/// Our own failure; nothing was run.
const FAILED: u8 = 125;
/// The command cannot be run.
const CANNOT_RUN: u8 = 126;
/// The command is not there.
const NOT_FOUND: u8 = 127;

/// A child that waits to become the command.
#[derive(Debug)]
pub struct StandIn {
    child: Child,
    channel: UnixStream,
}

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// As `env` has it.
    #[error("{reason}")]
    Refused {
        /// The exit code for it.
        code: u8,
        /// Why.
        reason: String,
    },
    /// The stand-in ended before it was told to go on.
    #[error("the process that was to become the command ended before")]
    Ended(Ended),
    /// It cannot be talked to.
    #[error("the process that was to become the command does not answer: {0}")]
    Io(#[from] io::Error),
}

impl StandIn {
    /// Starts it, with everything that this process was given. To be called before this process
    /// changes anything of its own that a child inherits.
    pub fn spawn(
        command: &[OsString],
        identity: Option<&Identity>,
        cgroup: &Path,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let mut child = Command::new(THIS_PROGRAM);
        child.arg(STANDIN_COMMAND).arg("--channel").arg(theirs.as_raw_fd().to_string());
        let Signals { blocked, ignored } = Signals::of_this_thread()?;
        child.arg("--blocked").arg(format!("{blocked:x}"));
        child.arg("--ignored").arg(format!("{ignored:x}"));
        child.arg("--cgroup").arg(cgroup);
        if let Some(identity) = identity {
            child.arg("--uid").arg(identity.uid.to_string());
            child.arg("--gid").arg(identity.gid.to_string());
            for group in &identity.groups {
                child.arg("--group").arg(group.to_string());
            }
            child.envs(identity.environment());
        }
        let child = child.arg("--").args(command).spawn()?;
        Ok(Self { child, channel: ours })
    }

    /// Its number, which will be the command's.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Lets it become the command, under these.
    pub fn start(mut self, domains: &[Domain]) -> Result<(), NotStarted> {
        let mut answer = Vec::new();
        let domains: Vec<_> = domains.iter().map(|domain| domain.as_fd()).collect();
        let talked = domain::send(&self.channel, &domains)
            .and_then(|()| self.channel.read_to_end(&mut answer));
        match (talked, answer.split_first()) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some((&code, reason))) => {
                self.child.wait()?;
                Err(NotStarted::Refused { code, reason: String::from_utf8_lossy(reason).into() })
            }
            (Err(error), _) => match self.child.try_wait()? {
                Some(status) => Err(NotStarted::Ended(status.into())),
                None => Err(error.into()),
            },
        }
    }
}

/// What is not done about signals, as the kernel writes it: bit 0 is signal 1.
#[derive(Debug, Clone, Copy)]
pub struct Signals {
    /// Those that are blocked.
    pub blocked: u64,
    /// Those that are ignored.
    pub ignored: u64,
}

impl Signals {
    fn of_this_thread() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/thread-self/status")?;
        let bits = |name: &str| {
            let bits = status.lines().find_map(|line| line.strip_prefix(name));
            bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
                .ok_or_else(|| io::Error::other(format!("/proc/thread-self/status has no {name}")))
        };
        Ok(Self { blocked: bits("SigBlk:")?, ignored: bits("SigIgn:")? })
    }

    /// Leaves this process, on its way to be the command, with these.
    fn restore(self) -> io::Result<()> {
        // Rust ignores it in every program that it starts; what it was before nobody can tell.
        sys::signals::reset(Signal::PIPE)?;
        // Whoever started us by the C library ignored both; the second one we may have used since.
        if self.ignored >> (sys::signals::RESERVED - 1) & 1 == 0 {
            sys::signals::reset_reserved()?;
        }
        sys::signals::block(self.blocked)
    }
}

/// The stand-in's own work: waits, enters the cgroup, becomes that user, and then the command. Returns
/// the exit code if it does not become it.
pub fn become_command(
    channel: i32,
    signals: Signals,
    cgroup: &Path,
    user: Option<(u32, u32, &[u32])>,
    command: &[OsString],
) -> io::Result<u8> {
    let mut channel = UnixStream::from(sys::descriptors::given(channel)?);
    let (code, reason) = match domain::receive(&channel) {
        Ok(domains) => set_up(signals, cgroup, user, &domains, command),
        // Whoever was to tell us is gone, and says why itself.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(FAILED),
        Err(error) => (FAILED, format!("the rules about files and programs: {error}")),
    };
    channel.write_all(&[code])?;
    channel.write_all(reason.as_bytes())?;
    Ok(code)
}

/// Returns why it failed.
fn set_up(
    signals: Signals,
    cgroup: &Path,
    user: Option<(u32, u32, &[u32])>,
    domains: &[OwnedFd],
    command: &[OsString],
) -> (u8, String) {
    let Some((program, arguments)) = command.split_first() else {
        return (FAILED, "no command".to_owned());
    };
    let failed = |what: &dyn Display, error: &io::Error| (FAILED, format!("{what}: {error}"));
    let procs = cgroup.join("cgroup.procs");
    if let Err(error) =
        fs::OpenOptions::new().write(true).open(&procs).and_then(|mut procs| procs.write_all(b"0"))
    {
        return failed(&format_args!("cannot enter the cgroup {}", cgroup.display()), &error);
    }
    if let Err(error) = become_user(user) {
        return failed(&"cannot become the user that the command is to run as", &error);
    }
    if let Err(error) = signals.restore() {
        return failed(&"cannot leave signals as they were", &error);
    }
    // The last thing: nothing that we need is read after it but the program.
    if let Err(error) = domain::enter(domains) {
        return failed(&"cannot enter the rules about files and programs", &error);
    }
    let error = sys::exec::exec(program, arguments);
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    let may_be_rules = !domains.is_empty() && error.kind() == io::ErrorKind::PermissionDenied;
    let hint = if may_be_rules {
        " (or the rules about files and programs deny reading or running it, its interpreter, or `ld.so`)"
    } else {
        ""
    };
    (code, format!("cannot run `{}`: {error}{hint}", shown(program)))
}

fn shown(text: &OsStr) -> String {
    escape::control(&text.to_string_lossy()).into_owned()
}
