//! Cgroups that make more events than their budget: told as events, in the log and as a metric.

use std::{
    mem::offset_of,
    time::{Duration, Instant},
};

use tipstaff_events::{
    catalogue::{CgroupBudget, cgroup_budget},
    wire::Header,
};

use crate::{
    clock, escape,
    outcome::AgentMetrics,
    probe::{Probes, Spent},
    resolver::{CgroupId, Cgroups},
    source::records::{HEADER, Records},
};

/// Cgroups are told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Most of them that are named in the log each time: those of which most was left out.
const MOST_LOGGED: usize = 10;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct CgroupBudgets {
    per_second: Option<u32>,
    paths: Cgroups,
    told: Option<Instant>,
}

impl CgroupBudgets {
    /// What the configuration says.
    pub fn set(&mut self, per_second: Option<u32>, probes: &mut Probes) {
        match probes.budget_cgroups(per_second) {
            Ok(()) => self.per_second = per_second,
            Err(error) => tracing::error!("the budget of cgroups cannot be changed: {error}"),
        }
    }

    /// Tells which cgroups had spent their budget, if it is time to.
    pub fn look(&mut self, probes: &mut Probes, counts: &AgentMetrics) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            self.tell(probes, counts);
        }
    }

    /// The same at once.
    pub fn tell(&mut self, probes: &mut Probes, counts: &AgentMetrics) {
        let Spent { mut left_out, unbounded } = match probes.spent() {
            Ok(spent) => spent,
            Err(error) => {
                tracing::warn!("the budgets of cgroups cannot be read: {error}");
                return;
            }
        };
        counts.cgroups_over_budget.set(i64::try_from(left_out.len()).unwrap_or(i64::MAX));
        if unbounded > 0 {
            counts.events_unbudgeted.inc_by(unbounded);
            tracing::warn!(
                events = unbounded,
                "too many cgroups make events at the same time: these passed without a budget"
            );
        }
        left_out.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
        let now = clock::monotonic_ns();
        for (index, (cgroup, events)) in left_out.iter().enumerate() {
            let path = self.paths.path(CgroupId::V2(*cgroup), now);
            if index < MOST_LOGGED {
                let shown = path.as_deref().map_or("(gone)".into(), String::from_utf8_lossy);
                tracing::warn!(
                    cgroup = escape::control(&shown).as_ref(),
                    left_out = events,
                    "a cgroup makes more events than its budget (`events_per_cgroup` in [agent])"
                );
            }
            self.hand_over(probes, *cgroup, *events, path.as_deref());
        }
        if left_out.len() > MOST_LOGGED {
            let others = left_out.len() - MOST_LOGGED;
            tracing::warn!(others, "further cgroups make more events than their budget");
        }
    }

    fn hand_over(&self, probes: &Probes, cgroup: u64, left_out: u64, path: Option<&[u8]>) {
        let mut records = Records::new(cgroup_budget::KIND);
        let mut record = records.begin(&[0; HEADER], size_of::<CgroupBudget>());
        record.set(offset_of!(Header, cgroup), &cgroup.to_ne_bytes());
        record.set(offset_of!(CgroupBudget, left_out), &left_out.to_ne_bytes());
        let per_second = self.per_second.unwrap_or(0);
        record.set(offset_of!(CgroupBudget, per_second), &per_second.to_ne_bytes());
        match path {
            Some(path) => record.push(offset_of!(CgroupBudget, path), path.iter().copied()),
            None => record.set_absent(cgroup_budget::path),
        }
        drop(record);
        probes.handover().put(records);
    }
}
