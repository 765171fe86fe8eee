//! Subscriptions are bound by name to the fields of this agent's kinds: what the probes have to
//! collect, and how each row is made.
//!
//! Binding is by name and when a policy is loaded, so a policy built last year runs on an agent
//! whose `exec` has twice as many fields. Numbers are widened for free; a narrower one is checked
//! for every event. A required field that is not there is an error, an optional one is absent in
//! every row at no cost.

mod bind;
mod error;
mod layout;
#[cfg(test)]
mod tests;
mod union;

use std::{collections::BTreeMap, sync::Arc};

use tipstaff_events::{catalogue, sample::Sample, wire};

pub use bind::{bind, bind_to_decode};
pub use error::Error;
pub use layout::Column;
pub use union::{Filters, Pace, Union, union};

use crate::{fold::Fold, kind::Enriched, predicate::Predicate, project::Projection};

/// What is wanted of each kind: the words of the map [`wire::WANTED`]. Kinds that are not listed
/// are not wanted.
pub type Wanted = BTreeMap<u16, u64>;

/// The subscriptions of one policy, bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In the manifest's order; `None` for an optional one whose kind does not exist here.
    pub subscriptions: Vec<Option<Arc<Bound>>>,
    /// What the probes have to collect for it.
    pub wanted: Wanted,
    /// What was bound otherwise than asked for, in words for the log.
    pub notes: Vec<String>,
}

/// A subscription, bound to a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Index in the manifest.
    pub index: u8,
    /// Number of the kind.
    pub kind: u16,
    /// How its rows are made.
    pub projection: Projection,
    /// Where each asked field is in the row.
    pub columns: Vec<Column>,
    /// Which events it is about; `None`: all.
    pub filter: Option<Arc<Predicate>>,
    /// How rows are added up, if the kind is an aggregated one.
    pub fold: Option<Fold>,
    /// Whether its rows are delivered at once: who waits for them would rather have them out of order.
    pub urgent: bool,
    /// How many of the events that it is about make a row.
    pub sample: Sample,
}

impl Bound {
    /// Lets only events through for which the condition holds.
    fn set_filter(&mut self, filter: Predicate, wanted: &mut Wanted) {
        want(wanted, self.kind, filter.wanted());
        for field in filter.reads() {
            want_for_table(field, wanted);
        }
        self.filter = Some(Arc::new(filter));
    }
}

impl Plan {
    /// Whether batches made for `other` can be given to this one, too.
    #[must_use]
    pub fn makes_the_same_rows(&self, other: &Self) -> bool {
        self.subscriptions == other.subscriptions
    }

    /// Lets only events through to the subscription for which the condition holds.
    pub fn filter(&mut self, index: usize, filter: Predicate) {
        let Some(Some(bound)) = self.subscriptions.get_mut(index) else { return };
        Arc::make_mut(bound).set_filter(filter, &mut self.wanted);
    }

    /// Lets only events of the kind through for which the condition holds, too.
    pub fn restrict(&mut self, kind: u16, condition: &Predicate) {
        for bound in self.subscriptions.iter_mut().flatten().filter(|bound| bound.kind == kind) {
            let bound = Arc::make_mut(bound);
            let own = bound.filter.take();
            let both = own.map_or_else(|| condition.clone(), |own| own.and(condition));
            bound.set_filter(both, &mut self.wanted);
        }
    }

    /// The tables that its fields are read from.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.bound()
            .flat_map(|bound| bound.reads())
            .fold(Needs::default(), |needs, field| needs.and(Needs::of(field)))
    }

    /// Lets the urgent subscriptions of that policy wait like all others, because it has no grant.
    pub fn calm(&mut self, policy: &str) {
        let mut was_urgent = false;
        for bound in self.subscriptions.iter_mut().flatten().filter(|bound| bound.urgent) {
            was_urgent = true;
            Arc::make_mut(bound).urgent = false;
        }
        for word in self.wanted.values_mut() {
            *word &= !wire::URGENT_BIT;
        }
        if was_urgent {
            self.notes.push(format!(
                "its urgent events wait like all others, as nothing else is granted; to grant it, write\n    [policy.{policy}]\n    grants = [\"urgent\"]"
            ));
        }
    }

    /// The bound subscriptions.
    pub fn bound(&self) -> impl Iterator<Item = &Arc<Bound>> {
        self.subscriptions.iter().flatten()
    }
}

/// Time between two rows of an aggregated kind where the subscription does not say.
pub const EVERY_NS: u64 = 1_000_000_000;

/// Adds what the process table needs to answer for this field.
fn want_for_table(field: Enriched, wanted: &mut Wanted) {
    use catalogue::{exec, exit, fork};
    let image = match field {
        Enriched::ProcStart | Enriched::ProcParentPid => 0,
        Enriched::ProcExe | Enriched::ProcParentExe | Enriched::ProcAncestors => exec::path,
        Enriched::ProcArgs => exec::args,
        Enriched::WallTime
        | Enriched::Weight
        | Enriched::CgroupPath
        | Enriched::ContainerId
        | Enriched::ContainerRuntime
        | Enriched::UserName => return,
    };
    for (kind, own) in [
        (fork::KIND, fork::child_start | fork::child_pid),
        (exec::KIND, exec::start | exec::ppid | image),
        (exit::KIND, exit::start | exit::ppid),
    ] {
        *wanted.entry(kind).or_default() |= wire::ON_BIT | u64::from(own);
    }
}

/// Tables that enriched fields are read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The process table.
    pub processes: bool,
    /// Paths of cgroups.
    pub cgroups: bool,
    /// Names of users.
    pub users: bool,
}

impl Needs {
    /// What this field is read from.
    #[must_use]
    pub fn of(field: Enriched) -> Self {
        let none = Self::default();
        match field {
            Enriched::WallTime | Enriched::Weight => none,
            Enriched::ProcExe
            | Enriched::ProcArgs
            | Enriched::ProcStart
            | Enriched::ProcParentPid
            | Enriched::ProcParentExe
            | Enriched::ProcAncestors => Self { processes: true, ..none },
            Enriched::CgroupPath | Enriched::ContainerId | Enriched::ContainerRuntime => {
                Self { cgroups: true, ..none }
            }
            Enriched::UserName => Self { users: true, ..none },
        }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            processes: self.processes || other.processes,
            cgroups: self.cgroups || other.cgroups,
            users: self.users || other.users,
        }
    }

    /// Those that `other` does not need.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self {
            processes: self.processes && !other.processes,
            cgroups: self.cgroups && !other.cgroups,
            users: self.users && !other.users,
        }
    }

    /// Whether it needs no table at all.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl Bound {
    /// Whether its rows say how many events each stands for.
    #[must_use]
    pub fn weighs(&self) -> bool {
        self.projection.reads().any(|field| field == Enriched::Weight)
    }

    /// The enriched fields that rows or filter are made from.
    pub fn reads(&self) -> impl Iterator<Item = Enriched> {
        self.projection.reads().chain(self.filter.iter().flat_map(|filter| filter.reads()))
    }
}

/// What a kind's word must hold so that these bits are collected.
fn want(wanted: &mut Wanted, kind: u16, bits: u64) {
    *wanted.entry(kind).or_default() |= wire::ON_BIT | bits;
}
