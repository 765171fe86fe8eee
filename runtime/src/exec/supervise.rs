//! The wrapper while the command runs: signals, the terminal, the end.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpgrp, getpid, getsid, kill_process,
        pidfd_open, setpgid, test_kill_process_group, waitid,
    },
};

use super::keeper::Keeper;
use crate::sys::{
    signals::{self, Caught},
    terminal,
};

/// What is passed on to the command.
const PASSED_ON: [Signal; 9] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
];
/// A command that is stopped and continued in the same breath was never stopped for long enough to
/// stop for it.
const STOPPED: Duration = Duration::from_millis(10);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit code that says so: that of the command, or 128 and the signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => u8::try_from(signal).unwrap_or(0).saturating_add(128),
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Killed(signal),
            None => Self::Exited(u8::try_from(status.code().unwrap_or(0)).unwrap_or(u8::MAX)),
        }
    }
}

/// Catches signals from when it is made.
#[derive(Debug)]
pub struct Supervisor {
    notes: OwnedFd,
    terminal: Option<Terminal>,
    /// The process group that we were started in.
    group: Pid,
    /// A session's first process cannot leave its process group.
    leads_session: bool,
}

/// The terminal that controls this session.
#[derive(Debug)]
struct Terminal {
    file: File,
    /// Whether it was ours when we were started.
    was_ours: bool,
}

impl Supervisor {
    /// Begins to catch signals. Those that whoever started us had ignored stay ignored, also in the
    /// command.
    pub fn new() -> io::Result<Self> {
        let group = getpgrp();
        let terminal = File::open("/dev/tty").ok().map(|file| {
            let was_ours = terminal::foreground(file.as_fd()) == Some(group);
            Terminal { file, was_ours }
        });
        // From the background, too, something may be said on the terminal.
        signals::ignore(Signal::TTOU)?;
        let all: Vec<_> = PASSED_ON.into_iter().chain([Signal::CHILD]).collect();
        let notes = signals::catch(&all)?;
        let leads_session = getsid(None).is_ok_and(|session| session == getpid());
        Ok(Self { notes, terminal, group, leads_session })
    }

    /// A signal that asks us to end, if one came: while there is no command to pass it on to. Stops if
    /// that is what is asked for, as what is to become the command does.
    #[must_use]
    pub fn asked_to_end(&self) -> Option<Signal> {
        let ends = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
        let caught = signals::read(&self.notes);
        if caught.iter().any(|caught| caught.signal == Signal::TSTP) && !self.leads_session {
            signals::stop();
        }
        caught.into_iter().map(|caught| caught.signal).find(|signal| ends.contains(signal))
    }

    /// Leaves the process group to the command.
    pub fn step_aside(&self, keeper: &Keeper) {
        if !self.leads_session {
            // Where it fails we stay, and what the kernel sends to the group is not passed on.
            let _ = setpgid(None, Some(keeper.pid()));
        }
    }

    /// Waits until the command ends. `keeper` holds on meanwhile: when it is gone, `lost` gives
    /// another one, if it can.
    pub fn wait(
        &self,
        command: Pid,
        keeper: &mut Option<Keeper>,
        mut lost: impl FnMut(Keeper) -> Option<Keeper>,
    ) -> io::Result<Ended> {
        let process = pidfd_open(command, PidfdFlags::empty())?;
        loop {
            let gone = {
                let mut wanted = vec![
                    PollFd::new(&self.notes, PollFlags::IN),
                    PollFd::new(&process, PollFlags::IN),
                ];
                wanted.extend(keeper.iter().map(|keeper| PollFd::new(keeper, PollFlags::IN)));
                match poll(&mut wanted, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                wanted.get(2).is_some_and(|keeper| !keeper.revents().is_empty())
            };
            if gone && let Some(dead) = keeper.take() {
                *keeper = lost(dead);
            }
            for caught in signals::read(&self.notes) {
                if caught.signal == Signal::CHILD {
                    self.stop_with(command, keeper.as_ref());
                } else {
                    self.pass_on(caught, command);
                }
            }
            let ended = waitid(WaitId::Pid(command), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            if let Some(status) = ended? {
                self.take_terminal_back();
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (_, Some(signal)) => Ended::Killed(signal),
                    (code, None) => {
                        Ended::Exited(u8::try_from(code.unwrap_or(0)).unwrap_or(u8::MAX))
                    }
                });
            }
        }
    }

    fn pass_on(&self, caught: Caught, command: Pid) {
        let Caught { signal, by_kernel } = caught;
        // What the kernel sends to our process group it sends to the command, too, except that a
        // session's first process alone is told that the terminal is gone.
        let is_ours_alone = signal == Signal::HUP && self.leads_session;
        if !by_kernel || is_ours_alone {
            // It may have ended in the meantime.
            let _ = kill_process(command, signal);
        }
    }

    /// Stops if the command is stopped, so that a shell that waits for us takes the terminal. Returns
    /// when we are continued.
    fn stop_with(&self, command: Pid, keeper: Option<&Keeper>) {
        let is_stopped = |more: WaitIdOptions| {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | more;
            waitid(WaitId::Pid(command), options).is_ok_and(|status| status.is_some())
        };
        // Without a terminal, or where nobody above could continue us, nobody waits for that.
        if self.terminal.is_none() || self.leads_session || !is_stopped(WaitIdOptions::NOWAIT) {
            return;
        }
        std::thread::sleep(STOPPED);
        if !is_stopped(WaitIdOptions::empty()) {
            return;
        }
        // Whoever continues the group continues us with it.
        let _ = setpgid(None, Some(self.group));
        signals::stop();
        if let Some(keeper) = keeper {
            self.step_aside(keeper);
        }
    }

    /// A command that had the terminal for a process group of its own may have died with it.
    fn take_terminal_back(&self) {
        let Some(Terminal { file, was_ours: true }) = &self.terminal else { return };
        let has = terminal::foreground(file.as_fd());
        if has.is_some_and(|has| has != self.group && test_kill_process_group(has).is_err()) {
            let _ = terminal::set_foreground(file.as_fd(), self.group);
        }
    }

    /// Ends this process as the command ended, where somebody must know: a shell that runs a script
    /// on a terminal ends with it if an interrupt killed the command.
    pub fn end_as(&self, ended: Ended) {
        if self.terminal.is_some() && ended == Ended::Killed(Signal::INT.as_raw()) {
            signals::die_of(Signal::INT);
        }
    }
}
