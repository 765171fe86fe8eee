//! The budgets of cgroups: how many events each may put into the rings, and which of them had spent
//! theirs. See [`tipstaff_events::budget`].

use std::{collections::HashMap, io};

use aya::maps::{Array, MapData};
use tipstaff_events::{
    budget::{BUCKETS, BUDGET, FULL_NS, TOKEN_NS, UNBOUNDED},
    catalogue::{agent_budget, cgroup_budget},
};

use super::{Probes, coverage::KindReport, error::ProbeError, shared::wrong};
use crate::{clock, sys::bpf::Table};

/// Kinds that the agent itself tells of.
pub(super) const KINDS: [u16; 2] = [cgroup_budget::KIND, agent_budget::KIND];
/// An empty bucket is full after this time: what is not used is saved for so long.
const SECOND_NS: u64 = 1_000_000_000;

/// How the kind is seen, if the agent tells of it.
pub(super) fn report(kind: u16) -> Option<KindReport> {
    KINDS.contains(&kind).then(KindReport::default)
}

/// See the module's documentation.
pub(super) struct Budgets {
    rule: Array<MapData, u64>,
    buckets: Table,
    per_second: Option<u32>,
    /// What was told of each cgroup that has a bucket.
    told: HashMap<u64, u64>,
    unbounded: u64,
}

/// What came of the budgets since the time before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Ids of cgroups (v2) that had spent theirs, and how many events of each were left out.
    pub left_out: Vec<(u64, u64)>,
    /// Events that passed because so many cgroups made events that there was no room for theirs.
    pub unbounded: u64,
}

impl Budgets {
    pub(super) fn new(rule: Array<MapData, u64>, buckets: Table) -> Self {
        Self { rule, buckets, per_second: None, told: HashMap::new(), unbounded: 0 }
    }

    pub(super) fn are_set(&self) -> bool {
        self.per_second.is_some()
    }

    fn set(&mut self, per_second: Option<u32>) -> Result<(), ProbeError> {
        let token_ns = per_second.map_or(0, |events| SECOND_NS / u64::from(events.max(1)));
        let mut put =
            |entry, value| self.rule.set(entry, value, 0).map_err(|error| wrong(BUDGET, error));
        put(FULL_NS, SECOND_NS)?;
        put(TOKEN_NS, token_ns)?;
        self.per_second = per_second;
        Ok(())
    }

    fn spent(&mut self) -> io::Result<Spent> {
        let Self { rule, buckets, told, .. } = self;
        let now = clock::monotonic_ns();
        let (mut left_out, mut full) = (Vec::new(), Vec::new());
        let number = |bytes: &[u8], at| {
            bytes
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_ne_bytes)
        };
        buckets.read(|key, value| {
            let (cgroup, full_at, total) = (number(key, 0), number(value, 0), number(value, 8));
            let before = told.get(&cgroup).copied().unwrap_or(0);
            if total > before {
                left_out.push((cgroup, total - before));
                told.insert(cgroup, total);
            } else if full_at.saturating_add(SECOND_NS) < now {
                // As good as none: nothing is being left out of it at this moment.
                full.push(cgroup);
            }
        })?;
        for cgroup in full {
            buckets.remove(&cgroup.to_ne_bytes())?;
            told.remove(&cgroup);
        }
        let unbounded = rule.get(&UNBOUNDED, 0).unwrap_or(self.unbounded);
        let since = unbounded.saturating_sub(self.unbounded);
        self.unbounded = unbounded;
        Ok(Spent { left_out, unbounded: since })
    }
}

impl Probes {
    /// Gives each cgroup so many events per second of the kinds of which events may be left out, or as
    /// many as there are. Takes effect for kinds that are wanted when [`Probes::apply`] is called next.
    pub fn budget_cgroups(&mut self, per_second: Option<u32>) -> Result<(), ProbeError> {
        self.budgets.set(per_second)
    }

    /// What came of that since the last call; makes room for cgroups that are new. To be called about
    /// once a second.
    pub fn spent(&mut self) -> Result<Spent, ProbeError> {
        if self.budgets.are_set() || !self.budgets.told.is_empty() {
            self.budgets.spent().map_err(|error| wrong(BUCKETS, error))
        } else {
            Ok(Spent::default())
        }
    }
}
