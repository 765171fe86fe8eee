//! What is left out so that the budgets of the configuration are kept.

use std::collections::BTreeSet;

use super::{Active, Policies};
use crate::{
    config::Config,
    guard::Mode,
    plan::{self, Plan, Union},
    policy::grants,
};

impl Policies {
    /// Takes over the budgets of the configuration.
    pub fn set_budgets(&mut self, config: &Config) {
        self.budgets.set(config.agent.events_per_cgroup, self.sight.probes());
        self.expense.set(config.agent.cpu_percent, self.sight.probes(), &self.outcome.counts);
    }

    /// What the probes have to do for the policies that run and for this plan.
    pub(super) fn union(&self, more: Option<&Plan>) -> Union {
        let mut union = plan::union(self.plans().chain(more));
        let thinnable = self.thinnable(&union);
        self.expense.thin(&mut union, &thinnable);
        union
    }

    /// The kinds of which the agent may leave events out to save its time: none that a policy asks for
    /// whose rules are in force.
    fn thinnable(&self, union: &Union) -> BTreeSet<u16> {
        let enforces = |(name, active): &(&String, &Active)| {
            grants(&active.loaded.imports).next().is_some()
                && self.guards.mode(name) == Mode::Enforce
        };
        let enforcing = self.active.iter().filter(enforces);
        let needed: BTreeSet<u16> =
            enforcing.flat_map(|(_, active)| active.plan.wanted.keys().copied()).collect();
        union.bounded.difference(&needed).copied().collect()
    }

    /// Leaves events out while the agent uses more processor time than it may.
    pub(super) fn save(&mut self) {
        if !self.expense.is_due() {
            return;
        }
        let thinnable = self.thinnable(&plan::union(self.plans()));
        let kinds = self.sight.kinds().clone();
        let counts = &self.outcome.counts;
        if self.expense.look(&thinnable, self.sight.probes(), &kinds, counts) {
            self.apply();
        }
    }
}
