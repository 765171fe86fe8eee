//! Events that the kernel's side lost: what the programs counted, and what the kernel counts when
//! it does not run a program.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, MapData};
use tipstaff_events::wire::{CAUSES, LOST_CGROUP_BUDGET, LOST_MAP, LOST_MISSED, LOST_RING};

use crate::{queue::Cause, sys::bpf};

/// What the causes in the map `LOST` are called outside.
const MAP_CAUSES: [(u16, Cause); 4] = [
    (LOST_RING, Cause::RingFull),
    (LOST_MISSED, Cause::ProgramMissed),
    (LOST_MAP, Cause::MapFull),
    (LOST_CGROUP_BUDGET, Cause::CgroupBudget),
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
}

impl Running {
    fn misses(&self) -> u64 {
        bpf::recursion_misses(self.program.as_fd()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the misses of a program cannot be read");
            0
        })
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

    pub(super) fn watch(&self, program: OwnedFd, kinds: &[u16]) -> Watch {
        let mut misses = self.misses();
        let key = misses.next;
        misses.next += 1;
        misses.running.insert(key, Running { program, kinds: kinds.to_vec() });
        misses.seen.extend(kinds);
        Watch { losses: self.clone(), key }
    }

    /// Hands out every total that is not 0, by kind and cause, since the probes were opened. What a
    /// program missed counts for each of its kinds, as nobody knows which one it would have been.
    pub fn read(&self, mut each: impl FnMut(u16, Cause, u64)) {
        let misses = self.misses();
        let mut not_run = misses.past.clone();
        for running in misses.running.values() {
            let count = running.misses();
            if count > 0 {
                running.kinds.iter().for_each(|&kind| *not_run.entry(kind).or_default() += count);
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

impl Drop for Watch {
    fn drop(&mut self) {
        let mut misses = self.losses.misses();
        let Some(running) = misses.running.remove(&self.key) else { return };
        let count = running.misses();
        for &kind in &running.kinds {
            *misses.past.entry(kind).or_default() += count;
        }
    }
}
