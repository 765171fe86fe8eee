//! Signals to processes: who is meant is made sure of, and then it is sent.

use std::{
    fs, io,
    os::fd::OwnedFd,
    process,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};

use super::{Guards, tree};
use crate::{
    agent::records::By,
    clock,
    guard::{Decision, Mode, Outcome as Became, Signal, SignalAsk, Strength, Target},
    mountinfo,
    outcome::PolicyLabels,
    probe::Probes,
    process::stat::Stat,
};

/// Why a process was not signalled.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missed {
    /// There is none.
    #[error("process {0} has ended")]
    Ended(u32),
    /// The number is another one's by now.
    #[error(
        "process {pid} is another one: it started at {found:?} since boot, and the one that is meant at {meant:?}"
    )]
    Another { pid: u32, found: Duration, meant: Duration },
    /// The kernel has no pidfd.
    #[error(
        "the kernel, or a filter of system calls around the agent, has no pidfd (Linux 5.3): without it the signal might \
         reach another process"
    )]
    NoPidfd,
    /// The kernel does not let us.
    #[error("the kernel does not let the agent signal process {pid}: {error}{hint}", hint = hint(.error))]
    Kernel { pid: u32, error: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) {
        "; root needs CAP_KILL for processes of others"
    } else {
        ""
    }
}

impl Missed {
    fn kernel(pid: u32, error: Errno) -> Self {
        match error {
            Errno::SRCH => Self::Ended(pid),
            Errno::NOSYS => Self::NoPidfd,
            error => Self::Kernel { pid, error: error.into() },
        }
    }

    const fn became(&self) -> Became {
        match self {
            Self::Ended(_) | Self::Kernel { .. } => Became::Failed,
            Self::Another { .. } | Self::NoPidfd => Became::Refused,
        }
    }
}

/// A process that was found to be the one that is meant, and stays that: its number may become another
/// process's, what this holds does not.
pub(super) struct Held(OwnedFd, u32);

impl Held {
    /// Opened first and looked at then: what is looked at after that is what was opened, or one that came
    /// later and shows a later start.
    pub fn open(pid: u32, is_meant: impl Fn(&Stat) -> bool) -> Result<Self, Missed> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Missed::Ended(pid))?;
        let descriptor = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| match error {
            // The number is that of a thread.
            Errno::INVAL | Errno::NOENT => Missed::Ended(pid),
            error => Missed::kernel(pid, error),
        })?;
        match Stat::of_process(pid) {
            Some(stat) if is_meant(&stat) && !stat.has_ended() => Ok(Self(descriptor, pid)),
            _ => Err(Missed::Ended(pid)),
        }
    }

    pub fn send(&self, signal: rustix::process::Signal) -> Result<(), Missed> {
        pidfd_send_signal(&self.0, signal).map_err(|error| Missed::kernel(self.1, error))
    }
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Term => Self::TERM,
            Signal::Kill => Self::KILL,
            Signal::Int => Self::INT,
            Signal::Hup => Self::HUP,
        }
    }
}

impl Guards {
    /// Sends a signal that a policy asks for, as far as that is allowed.
    pub(super) fn signal(&mut self, ask: &SignalAsk, probes: &Probes) {
        let begun = Instant::now();
        let mut decision = self.decision(&ask.policy, ask.action(), By::Policy, String::new());
        decision.what = ask.to_string();
        decision.target = Some(Target { pid: ask.pid, start_ns: ask.start, ..Target::default() });
        Strength::Remediate.name().clone_into(&mut decision.strength);
        let is_foreign = probes.pid() != process::id();
        let (became, reason) = self.try_signal(&mut decision, ask, is_foreign);
        if let (Became::Done, Some(ns)) = (became, decision.latency_ns) {
            let labels = PolicyLabels { policy: ask.policy.to_string() };
            let delays = self.outcome.counts.signal_delay.get_or_create_owned(&labels);
            delays.observe(Duration::from_nanos(ns));
        }
        decision.took_ns = Some(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.records.conclude_unsynced(decision, became, reason);
    }

    fn try_signal(
        &mut self,
        decision: &mut Decision,
        ask: &SignalAsk,
        is_foreign: bool,
    ) -> (Became, String) {
        let (mode, why) = self.governor.mode(&ask.policy);
        if mode == Mode::Observe {
            return (Became::Refused, format!("the mode is `observe`, nothing is done: {why}"));
        }
        if is_foreign {
            let reason = "the agent is in a pid namespace of its own, in which the numbers of events are other \
                          processes' or nobody's: run it in the host's (`--pid=host`, `hostPID: true`)";
            return (Became::Refused, reason.to_owned());
        }
        // In audit not even a descriptor is opened.
        let held = match find(ask, mode == Mode::Enforce) {
            Ok(held) => held,
            Err(missed) => return (missed.became(), missed.to_string()),
        };
        self.arguments.ask(ask.pid);
        let mount = || mountinfo::cgroup_v2().map_err(|error| error.to_string());
        let reach = match self.protection.reach(mount) {
            Ok(reach) => reach,
            Err(reason) => return (Became::Refused, reason),
        };
        let checked = reach.check(ask.pid);
        decision.target = Some(Target {
            start_ns: ask.start,
            args: self.arguments.answer(ask.pid),
            ..target(ask.pid)
        });
        if let Err(protected) = checked {
            return (Became::Refused, format!("process {} is not signalled: {protected}", ask.pid));
        }
        let Some(held) = held else {
            let mut why = why;
            if ask.tree {
                let (tree, others) = tree::look(ask, &reach);
                decision.tree = tree;
                why = format!("{why}; {others}");
            }
            return (Became::Audited, why);
        };
        // First it is known what is going to be done, then it is done.
        if let Err(error) = self.records.append(decision) {
            return (Became::Failed, format!("the decision cannot be recorded: {error}"));
        }
        let sent = if ask.tree {
            tree::signal(ask, &held, &reach).map(|(tree, others)| {
                decision.tree = tree;
                others
            })
        } else {
            held.send(ask.signal.into()).map(|()| String::new())
        };
        decision.latency_ns = ask.time.map(|time| clock::monotonic_ns().saturating_sub(time));
        match sent {
            Ok(reason) => (Became::Done, reason),
            Err(missed) => {
                decision.latency_ns = None;
                (missed.became(), missed.to_string())
            }
        }
    }
}

/// The process that is meant, held if anything is to be sent to it.
fn find(ask: &SignalAsk, to_send: bool) -> Result<Option<Held>, Missed> {
    let SignalAsk { pid, start, .. } = *ask;
    // Which one it is is looked at below, so that the reason can be told.
    let held = to_send.then(|| Held::open(pid, |_| true)).transpose()?;
    let stat = Stat::of_process(pid).filter(|stat| !stat.has_ended());
    let stat = stat.ok_or(Missed::Ended(pid))?;
    if !stat.started_at(start) {
        let (found, meant) = (stat.start(), Duration::from_nanos(start));
        return Err(Missed::Another { pid, found, meant });
    }
    Ok(held)
}

/// What is told of a process, but for its arguments.
pub(super) fn target(pid: u32) -> Target {
    let path = fs::read_link(format!("/proc/{pid}/exe"));
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Target {
        pid,
        start_ns: Stat::of_process(pid)
            .map_or(0, |stat| u64::try_from(stat.start().as_nanos()).unwrap_or_default()),
        path: path.map_or_else(|_| String::new(), |path| path.to_string_lossy().into_owned()),
        args: Vec::new(),
        cgroup: cgroups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or_default()
            .to_owned(),
    }
}
