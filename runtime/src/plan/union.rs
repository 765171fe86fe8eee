//! What all plans together ask of the probes.

use std::collections::{BTreeMap, BTreeSet};

use tipstaff_events::{
    catalogue,
    filter::Filter,
    sample::{self, Sample, Thinned},
};

use super::{Bound, EVERY_NS, Plan, Wanted};
use crate::predicate;

/// Which records of a kind the probes let through, where that is not all of them.
pub type Filters = BTreeMap<u16, Filter>;

/// Time between two ticks, by aggregated kind.
pub type Pace = BTreeMap<u16, u64>;

/// The shortest time that any of these plans asks for, and a second at most: so that processes that
/// ended are still known when their sums are told, and make room.
pub(super) fn pace<'a>(plans: impl Iterator<Item = &'a Plan>) -> Pace {
    let mut pace = Pace::new();
    for bound in plans.flat_map(Plan::bound) {
        if let Some(fold) = &bound.fold {
            let every = pace.entry(bound.kind).or_insert(EVERY_NS);
            *every = fold.every_ns().min(*every);
        }
    }
    pace
}

/// What all plans together ask of the probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Union {
    /// What is collected.
    pub wanted: Wanted,
    /// What is kept back.
    pub filters: Filters,
    /// How often sums are told.
    pub pace: Pace,
    /// Kinds of which events may be left out where there are too many of them.
    pub bounded: BTreeSet<u16>,
}

impl Union {
    /// Takes one in 2 to the `power` of the events that would be taken of this kind.
    pub fn thin(&mut self, kind: u16, power: u8) {
        let filter = self.filters.entry(kind).or_default();
        filter.sample = Thinned::new(filter.sample().asked(), power).number().into();
    }
}

/// Everything that is collected, of all events.
impl From<Wanted> for Union {
    fn from(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }
}

/// What the probes have to do for all of these plans.
pub fn union<'a>(plans: impl Iterator<Item = &'a Plan> + Clone) -> Union {
    let mut wanted = Wanted::new();
    for (&kind, &bits) in plans.clone().flat_map(|plan| &plan.wanted) {
        *wanted.entry(kind).or_default() |= bits;
    }
    let (filters, bounded) = (filters(plans.clone()), bounded(plans.clone()));
    Union { wanted, filters, pace: pace(plans), bounded }
}

/// The subscriptions to each kind of which events may be kept back: no process table is kept by it, and
/// it is not added up in the kernel, which makes no records there that could be.
fn thinnable<'a>(
    plans: impl Iterator<Item = &'a Plan> + Clone,
) -> impl Iterator<Item = (u16, Vec<&'a Bound>)> {
    let keeps_processes = plans.clone().any(|plan| plan.needs().processes);
    let mut kinds: BTreeMap<u16, Vec<&Bound>> = BTreeMap::new();
    for bound in plans.flat_map(Plan::bound).filter(|bound| bound.fold.is_none()) {
        kinds.entry(bound.kind).or_default().push(bound);
    }
    kinds.into_iter().filter(move |(kind, _)| !(keeps_processes && *kind <= catalogue::exit::KIND))
}

/// The filter of each kind of which everybody who wants it wants only some.
fn filters<'a>(plans: impl Iterator<Item = &'a Plan> + Clone) -> Filters {
    thinnable(plans).filter_map(|(kind, bound)| Some((kind, filter(&bound)?))).collect()
}

/// What guards and the agent itself tell.
const TOLD: [u16; 5] = [
    catalogue::denied::KIND,
    catalogue::dns_query::KIND,
    catalogue::dns_answer::KIND,
    catalogue::cgroup_budget::KIND,
    catalogue::agent_budget::KIND,
];

/// The kinds of which events may be left out: not those on which somebody waits to act, nor what tells of
/// actions.
fn bounded<'a>(plans: impl Iterator<Item = &'a Plan> + Clone) -> BTreeSet<u16> {
    let is_bounded = |(kind, bound): &(u16, Vec<&Bound>)| {
        !TOLD.contains(kind) && bound.iter().all(|bound| !bound.urgent)
    };
    thinnable(plans).filter(is_bounded).map(|(kind, _)| kind).collect()
}

/// What the kernel keeps back that none of these wants.
fn filter(all: &[&Bound]) -> Option<Filter> {
    let conditions = all.iter().map(|bound| bound.filter.as_deref());
    let filter = conditions.collect::<Option<Vec<_>>>().and_then(predicate::filter);
    let sample = all.iter().map(|bound| bound.sample).reduce(common)?;
    match filter {
        None if sample == Sample::ALL => None,
        filter => Some(Filter { sample: sample.number().into(), ..filter.unwrap_or_default() }),
    }
}

/// The most thinned sample of which both of these can be made.
fn common(one: Sample, other: Sample) -> Sample {
    let every = sample::divisor(one.every(), other.every());
    if one.by() == other.by() { Sample::new(every, one.by()) } else { Sample::ALL }
}
