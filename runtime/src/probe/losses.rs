//! Events that the kernel's side lost: what the programs counted, and what the kernel counts when
//! it does not run a program. And how long it runs each, where it measures that.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use tipstaff_events::wire::{
    CAUSES, LOST_AGENT_BUDGET, LOST_CGROUP_BUDGET, LOST_MAP, LOST_MISSED, LOST_RING,
};

use crate::{
    queue::Cause,
    sys::bpf::{self, Runs},
};

/// What the causes in the map `LOST` are called outside.
const MAP_CAUSES: [(u16, Cause); 5] = [
    (LOST_RING, Cause::RingFull),
    (LOST_MISSED, Cause::ProgramMissed),
    (LOST_MAP, Cause::MapFull),
    (LOST_CGROUP_BUDGET, Cause::CgroupBudget),
    (LOST_AGENT_BUDGET, Cause::AgentBudget),
];

/// Reads the counters. Cheap to clone, and usable while families are loaded and unloaded.
#[derive(Clone)]
pub struct Losses(Arc<Inner>);

struct Inner {
    lost: Array<MapData, u64>,
    misses: Mutex<Misses>,
}

#[derive(Default)]
struct Misses {
    running: BTreeMap<u64, Running>,
    next: u64,
    /// Misses of programs that are gone, by kind.
    past: BTreeMap<u16, u64>,
    /// Kinds that have had a program: only their counters can have moved.
    seen: BTreeSet<u16>,
}

struct Running {
    program: OwnedFd,
    kinds: Vec<u16>,
    /// Whether an event is lost where it is not run.
    loses: bool,
}

impl Running {
    fn runs(&self) -> Runs {
        bpf::runs(self.program.as_fd()).unwrap_or_else(|error| {
            tracing::warn!(%error, "what the kernel counts of a program cannot be read");
            Runs::default()
        })
    }

    /// The kinds that lose an event whenever it is not run.
    fn losing(&self) -> &[u16] {
        if self.loses { &self.kinds } else { &[] }
    }
}

/// A program whose misses are counted until this is dropped.
pub(super) struct Watch {
    losses: Losses,
    key: u64,
}

impl Losses {
    pub(super) fn new(lost: Array<MapData, u64>) -> Self {
        Self(Arc::new(Inner { lost, misses: Mutex::default() }))
    }

    fn misses(&self) -> MutexGuard<'_, Misses> {
        self.0.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a program of these kinds; `loses`: whether an event is lost where it is not run.
    pub(super) fn watch(&self, program: OwnedFd, kinds: &[u16], loses: bool) -> Watch {
        let mut misses = self.misses();
        let key = misses.next;
        misses.next += 1;
        let running = Running { program, kinds: kinds.to_vec(), loses };
        misses.seen.extend(running.losing());
        misses.running.insert(key, running);
        Watch { losses: self.clone(), key }
    }

    /// Hands out every total that is not 0, by kind and cause, since the probes were opened. What a
    /// program missed counts for each of its kinds, as nobody knows which one it would have been.
    pub fn read(&self, mut each: impl FnMut(u16, Cause, u64)) {
        let misses = self.misses();
        let mut not_run = misses.past.clone();
        for running in misses.running.values() {
            let kinds = running.losing();
            let count = if kinds.is_empty() { 0 } else { running.runs().misses };
            if count > 0 {
                for &kind in kinds {
                    *not_run.entry(kind).or_default() += count;
                }
            }
        }
        for &kind in &misses.seen {
            for (number, cause) in MAP_CAUSES {
                let index = u32::from(kind) * u32::from(CAUSES) + u32::from(number);
                let mut total = self.0.lost.get(&index, 0).unwrap_or(0);
                if cause == Cause::ProgramMissed {
                    total += not_run.get(&kind).copied().unwrap_or(0);
                }
                if total > 0 {
                    each(kind, cause, total);
                }
            }
        }
    }
}

/// How long a program ran in all, while the kernel measured it.
pub(super) struct RunTime {
    /// Which program.
    pub key: u64,
    /// Kinds that it is for.
    pub kinds: Vec<u16>,
    pub nanoseconds: u64,
}

impl Losses {
    /// How long each program that is watched ran.
    pub(super) fn run_times(&self) -> Vec<RunTime> {
        let misses = self.misses();
        let time = |(&key, running): (&u64, &Running)| RunTime {
            key,
            kinds: running.kinds.clone(),
            nanoseconds: running.runs().nanoseconds,
        };
        misses.running.iter().map(time).collect()
    }

    /// Watches programs for how long they run: none of these loses events.
    pub(super) fn watch_all(&self, ebpf: &Ebpf) -> Vec<Watch> {
        let programs = ebpf.programs().filter_map(|(_, program)| program.fd().ok());
        let owned = programs.filter_map(|program| program.as_fd().try_clone_to_owned().ok());
        owned.map(|program| self.watch(program, &[], false)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut misses = self.losses.misses();
        let Some(running) = misses.running.remove(&self.key) else { return };
        let kinds = running.losing();
        let count = if kinds.is_empty() { 0 } else { running.runs().misses };
        for &kind in kinds {
            *misses.past.entry(kind).or_default() += count;
        }
    }
}
