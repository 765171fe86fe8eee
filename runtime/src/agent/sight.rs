//! What the probes deliver, and how well: told whenever it changes.

use crate::{
    kind::Kinds,
    plan::{Plan, Union},
    probe::{Coverage, ProbeError, Probes, Report},
};

/// See the module's documentation.
pub(super) struct Sight {
    kinds: Kinds,
    probes: Probes,
    /// How well each kind is seen, as it was last told.
    told: Report,
}

/// A kind that cannot be seen.
pub(super) struct Unseen {
    /// Its name.
    pub kind: String,
    /// Why, with each hook that was tried.
    pub reason: String,
}

impl Sight {
    pub fn new(kinds: Kinds, probes: Probes) -> Self {
        Self { kinds, probes, told: Report::new() }
    }

    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Makes the probes deliver this and nothing else.
    pub fn apply(&mut self, union: &Union) -> Result<(), ProbeError> {
        let report = self.probes.apply(union)?;
        self.tell(report);
        Ok(())
    }

    /// The probes, for what is not an event.
    pub fn probes(&mut self) -> &mut Probes {
        &mut self.probes
    }

    /// Brings what was added up in the kernel so far to the reader.
    pub fn read_aggregates(&self) {
        self.probes.aggregates().read_now();
    }

    /// The first kind that this plan cannot do without, and that nothing delivers. `needs` says
    /// whether it can do without a subscription.
    pub fn unseen(&self, plan: &Plan, needs: impl Fn(u8) -> bool) -> Option<Unseen> {
        plan.bound().filter(|bound| needs(bound.index)).find_map(|bound| {
            let seen = self.told.get(&bound.kind)?;
            let Coverage::None(reason) = &seen.coverage else { return None };
            let tried =
                seen.rejected.iter().map(|hook| format!("\n  {}: {}", hook.hook, hook.reason));
            let reason = [reason.clone()].into_iter().chain(tried).collect();
            Some(Unseen { kind: self.name(bound.kind), reason })
        })
    }

    fn name(&self, id: u16) -> String {
        self.kinds.get(id).map_or_else(|| id.to_string(), |kind| kind.name.to_string())
    }

    /// Says how well kinds are seen, once.
    fn tell(&mut self, report: Report) {
        for (id, seen) in &report {
            if self.told.get(id) == Some(seen) {
                continue;
            }
            let (kind, hooks) = (self.name(*id), seen.hooks.join(", "));
            for rejected in &seen.rejected {
                tracing::debug!(
                    kind,
                    hook = rejected.hook,
                    "hook does not work here: {}",
                    rejected.reason
                );
            }
            match &seen.coverage {
                Coverage::Full => tracing::debug!(kind, hooks, "coverage full"),
                other => tracing::warn!(kind, hooks, "coverage {other}"),
            }
        }
        self.told = report;
    }
}
