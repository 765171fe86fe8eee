//! The keeper: a small child that outlives the wrapper, and then does what must be done.
//!
//! It holds duplicates of descriptors whose end would let go of the command (the links of guards), and
//! one end of a socket whose other end only the wrapper has. When that end closes without a word, the
//! wrapper is dead, however it died.

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{Pid, Signal},
};

use super::{
    KEEPER_COMMAND, THIS_PROGRAM,
    scope::{LOOK_EVERY, Scope, named},
};
use crate::sys::signals;

/// Said by the keeper when it is ready.
const READY: u8 = b'r';
/// Said to the keeper: hold the descriptors that come with this.
const HOLD: u8 = b'h';
/// Said to the keeper: all is done, go.
const GO: u8 = b'g';

/// Most descriptors in one message (`SCM_MAX_FD` is 253).
const MOST_AT_ONCE: usize = 64;
/// After this long it is said that processes do not die.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the kernel's killer of last resort should rather take than the keeper: everything else.
const OOM_SCORE: &str = "-1000";

/// What becomes of the command if the wrapper dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeath {
    /// Its processes are killed, then what guards them is let go.
    Kill,
    /// What guards them is let go, and they live on.
    Release,
}

/// A running keeper, seen from the wrapper.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    channel: Channel,
}

/// The way to a keeper.
#[derive(Debug, Clone)]
pub(super) struct Channel(Arc<OwnedFd>);

impl Channel {
    /// Hands it duplicates of these descriptors. They are held from the moment this returns, whether
    /// the keeper has looked at them or not.
    pub fn hold(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in descriptors.chunks(MOST_AT_ONCE) {
            let message = SendAncillaryMessage::ScmRights(some);
            let mut space = vec![MaybeUninit::uninit(); message.size()];
            let mut buffer = SendAncillaryBuffer::new(&mut space);
            buffer.push(message);
            let parts = [IoSlice::new(&[HOLD])];
            sendmsg(&*self.0, &parts, &mut buffer, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

impl Keeper {
    /// Starts one for this cgroup, in a process group of its own.
    pub fn start(cgroup: &Path, on_death: OnDeath) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(THIS_PROGRAM);
        command.arg(KEEPER_COMMAND).arg("--cgroup").arg(cgroup);
        if on_death == OnDeath::Kill {
            command.arg("--kill");
        }
        let mut child = command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        // `command` has let go of the other end.
        drop(command);
        let mut word = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(&ours, &mut word)) {
            Ok(1) if word[0] == READY => Ok(Self { child, channel: Channel(Arc::new(ours)) }),
            _ => {
                let status = child.wait()?;
                Err(io::Error::other(format!("it ended with {status}")))
            }
        }
    }

    /// Its number, which is that of its process group, too.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The way to it, which may be used longer than it is there.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Lets it go: everything is done.
    pub fn release(mut self) -> io::Result<()> {
        let go = [IoSlice::new(&[GO])];
        let mut nothing = SendAncillaryBuffer::default();
        // If it is gone already it has nothing to do either.
        let _ = sendmsg(&*self.channel.0, &go, &mut nothing, SendFlags::NOSIGNAL);
        self.child.wait().map(drop)
    }

    /// Takes note of its end.
    pub fn reap(mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait()
    }
}

impl AsFd for Keeper {
    /// Can be read when the keeper is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.0.as_fd()
    }
}

/// The keeper's own work. Its standard input is the socket to the wrapper. `say` tells whoever runs
/// the command what happens.
pub fn keep(cgroup: &Path, on_death: OnDeath, say: impl Fn(&str)) -> io::Result<()> {
    // It goes when the wrapper does, not before.
    for signal in [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::TERM,
        Signal::PIPE,
        Signal::USR1,
        Signal::USR2,
        Signal::TSTP,
        Signal::TTIN,
        Signal::TTOU,
    ] {
        signals::ignore(signal)?;
    }
    // As good as it can be had.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let channel = io::stdin();
    let channel = channel.as_fd();
    let scope = Scope::open(cgroup)?;
    rustix::io::write(channel, &[READY])?;
    let mut held = Vec::new();
    loop {
        match receive(channel, &mut held)? {
            Some(GO) => return Ok(()),
            Some(_) => {}
            None => break,
        }
    }
    if on_death == OnDeath::Kill {
        let processes = scope.processes();
        if !processes.is_empty() {
            say(&format!(
                "tipstaff exec has died: the processes of its command are killed: {}",
                named(&processes)
            ));
        }
        // Until it is removed: somebody may be entering it, who then finds no cgroup and does not start.
        loop {
            scope.kill(PATIENCE, || {
                say(&format!("these do not die: {}", named(&scope.processes())));
            })?;
            match scope.try_remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    thread::sleep(LOOK_EVERY);
                }
                result => return result,
            }
        }
    }
    if scope.is_populated().unwrap_or(false) {
        say(&format!(
            "tipstaff exec has died: nothing watches or guards the processes of its command any more: {}",
            named(&scope.processes())
        ));
    } else {
        scope.remove()?;
    }
    drop(held);
    Ok(())
}

/// What is said; nothing at the end. Descriptors go to `held`.
fn receive(channel: BorrowedFd<'_>, held: &mut Vec<OwnedFd>) -> io::Result<Option<u8>> {
    let mut word = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(channel, &mut [IoSliceMut::new(&mut word)], &mut buffer, RecvFlags::CMSG_CLOEXEC)
    });
    let length = match received {
        Ok(message) => message.bytes,
        // Something was still on its way to the wrapper when it died.
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    for message in buffer.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            held.extend(descriptors);
        }
    }
    Ok((length > 0).then_some(word[0]))
}
