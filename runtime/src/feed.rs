//! What one plan's rows go through: policies that ask for the same share one feed, and with it one
//! projection and one batch.
//!
//! Who joins or leaves does so at a *cut*, a time: events up to it go to those who were there
//! before, later ones to those who are there after it. So a policy that is replaced loses no event
//! and none is seen by both generations, and nobody else notices.

use std::{collections::VecDeque, sync::Arc};

use crossbeam_channel::Sender;
use tipstaff_events::sample::Sample;

use crate::{
    batch::Open,
    enrich::Lookup,
    fold::{Fold, Groups},
    plan::{Bound, Plan},
    queue::{Gap, Queue},
    record::{self, Malformed},
    spare::Spare,
};

/// Number of a member, unique in the life of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberId(pub u64);

/// A policy's end of a feed.
#[derive(Clone)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// Where its batches go.
    pub queue: Arc<Queue>,
}

/// See the module's documentation.
pub struct Feed {
    /// What its rows are.
    pub plan: Arc<Plan>,
    /// How long a row waits at most for others before its batch is sealed.
    pub latency_ns: u64,
    members: Arc<[Member]>,
    open: Open,
    /// Events up to this time are not for `open`: what most events are compared with.
    floor: u64,
    /// Rows of aggregated kinds that are being added up, by subscription.
    groups: Vec<Groups>,
    spare: Spare,
    /// How many events came to each subscription that takes a sample.
    turns: Box<[u64]>,
    /// Older batches, each with the time of its last event and who gets it.
    sealed: VecDeque<(u64, Arc<[Member]>, Open)>,
    /// Events up to this time belong to `sealed`, or to batches that are closed already.
    sealed_until: u64,
    /// Events up to this time are not for its members.
    after: u64,
    /// Whether it takes the place of another feed, which gets the events up to `after`.
    replaces: bool,
    /// Whether what is to be delivered has a row that does not wait for older ones.
    has_urgent: bool,
    /// Whom to tell when everything up to a time is delivered.
    waiting: Vec<(u64, Sender<()>)>,
    late: u64,
}

impl Feed {
    /// A feed for one member, for events after the cut. With `replaces`, another feed gets those
    /// before.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        latency_ns: u64,
        member: Member,
        cut: u64,
        replaces: bool,
        spare: &Spare,
    ) -> Self {
        Self {
            open: Open::new(plan.subscriptions.len(), spare),
            floor: cut,
            groups: plan.subscriptions.iter().map(|_| Groups::new(cut)).collect(),
            turns: plan.subscriptions.iter().map(|_| 0).collect(),
            spare: spare.clone(),
            plan,
            latency_ns,
            members: [member].into(),
            sealed: VecDeque::new(),
            sealed_until: 0,
            after: cut,
            replaces,
            has_urgent: false,
            waiting: Vec::new(),
            late: 0,
        }
    }

    /// Appends the row of a record to the batch that it belongs to.
    #[inline]
    pub fn append(
        &mut self,
        bound: &Bound,
        record: &[u8],
        time: u64,
        lookup: &mut Lookup<'_>,
        now: u64,
    ) -> Result<(), Malformed> {
        if let Some(fold) = &bound.fold {
            return self.add(bound, fold, record, time, lookup, now);
        }
        if time <= self.floor {
            return self.append_older(bound, record, time, lookup, now);
        }
        if let Some(filter) = &bound.filter
            && !filter.holds(record, lookup)?
        {
            return Ok(());
        }
        if bound.sample != Sample::ALL && !self.takes(bound, record, lookup)? {
            return Ok(());
        }
        bound.projection.append(record, lookup, self.open.rows(now))?;
        self.open.note(bound.index, time);
        self.has_urgent |= bound.urgent;
        if self.open.is_full() {
            self.seal(self.open.last_ns());
        }
        Ok(())
    }

    /// Whether the record is in the subscription's sample, of which the kernel may have taken a part.
    #[cold]
    fn takes(
        &mut self,
        bound: &Bound,
        record: &[u8],
        lookup: &mut Lookup<'_>,
    ) -> Result<bool, Malformed> {
        let (thinned, pid) = (record::sample(record)?, record::pid(record)?);
        let turn = &mut self.turns[usize::from(bound.index)];
        let (rest, stands_for) = bound.sample.after(thinned);
        let takes = rest.takes(pid, *turn);
        *turn += 1;
        lookup.set_thinned(stands_for);
        Ok(takes)
    }

    /// Adds a record of an aggregated kind to those of the same keys. Batches that were sealed since its
    /// time for their size do not matter to it: who is in was in then.
    fn add(
        &mut self,
        bound: &Bound,
        fold: &Fold,
        record: &[u8],
        time: u64,
        lookup: &mut Lookup<'_>,
        now: u64,
    ) -> Result<(), Malformed> {
        let has_left = |(until, members, _): &(u64, Arc<[Member]>, Open)| {
            time <= *until && !Arc::ptr_eq(members, &self.members)
        };
        if time <= self.after || self.members.is_empty() || self.sealed.iter().any(has_left) {
            // It is for others, who are handed it as it is.
            return self.append_older(bound, record, time, lookup, now);
        }
        if let Some(filter) = &bound.filter
            && !filter.holds(record, lookup)?
        {
            return Ok(());
        }
        if self.groups[usize::from(bound.index)].is_due_before(fold, time) {
            self.hand_over(bound, time, now);
        }
        self.groups[usize::from(bound.index)].add(bound, fold, record, time, lookup)
    }

    /// All records of a tick have come.
    pub fn tick(&mut self, bound: &Bound, time: u64, now: u64) {
        if let Some(fold) = &bound.fold
            && time > self.after
            && !self.members.is_empty()
            && self.groups[usize::from(bound.index)].is_due_at(fold, time)
        {
            self.hand_over(bound, time, now);
        }
    }

    /// Puts what was added up into the open batch.
    fn hand_over(&mut self, bound: &Bound, next: u64, now: u64) {
        let mut groups = std::mem::take(&mut self.groups[usize::from(bound.index)]);
        groups.take(next, |row, start, time| {
            let rows = self.open.rows(now);
            let to = rows.len();
            rows.extend_from_slice(row);
            if let (Ok(from), Ok(at)) = (u32::try_from(start), u32::try_from(to)) {
                bound.projection.shift_texts(&mut rows[to..], from, at);
            }
            self.open.note(bound.index, time);
            if time <= self.sealed_until {
                self.open.mark_late(to);
                self.late += 1;
            }
            if self.open.is_full() {
                self.seal(self.open.last_ns());
            }
        });
        self.groups[usize::from(bound.index)] = groups;
    }

    /// The same for all subscriptions: who is there gets what was added up so far.
    fn hand_over_all(&mut self) {
        let plan = Arc::clone(&self.plan);
        for bound in plan.bound() {
            if let Some(time) = self.groups[usize::from(bound.index)].time() {
                self.hand_over(bound, time, time);
            }
        }
    }

    #[cold]
    fn append_older(
        &mut self,
        bound: &Bound,
        record: &[u8],
        time: u64,
        lookup: &mut Lookup<'_>,
        now: u64,
    ) -> Result<(), Malformed> {
        // Before its time, or after it.
        if time <= self.after || time > self.sealed_until {
            return Ok(());
        }
        if let Some(filter) = &bound.filter
            && !filter.holds(record, lookup)?
        {
            return Ok(());
        }
        if bound.sample != Sample::ALL && !self.takes(bound, record, lookup)? {
            return Ok(());
        }
        let place = self.sealed.iter_mut().find(|(until, ..)| time <= *until);
        let is_late = place.is_none();
        let open = place.map_or(&mut self.open, |(_, _, open)| open);
        let start = open.rows(now).len();
        bound.projection.append(record, lookup, open.rows(now))?;
        open.note(bound.index, time);
        self.has_urgent |= bound.urgent;
        if is_late {
            open.mark_late(start);
            self.late += 1;
        }
        Ok(())
    }

    fn set_floor(&mut self) {
        let is_empty = self.members.is_empty();
        self.floor = if is_empty { u64::MAX } else { self.after.max(self.sealed_until) };
    }

    /// Adds a gap.
    pub fn push_gap(&mut self, gap: &Gap, now: u64) {
        self.open.push_gap(gap, now);
    }

    /// The same after what is being added up was put into the open batch.
    fn seal_all(&mut self, until: u64) {
        self.hand_over_all();
        self.seal(until);
    }

    /// Events up to `until` go to no later batch than the open one, which gets no newer ones.
    fn seal(&mut self, until: u64) {
        let until = until.max(self.sealed_until);
        let next = Open::new(self.plan.subscriptions.len(), &self.spare);
        let open = std::mem::replace(&mut self.open, next);
        self.sealed.push_back((until, Arc::clone(&self.members), open));
        self.sealed_until = until;
        self.set_floor();
    }

    /// Seals the open batch if it has waited long enough.
    pub fn seal_if_due(&mut self, now: u64) {
        if !self.open.is_empty() && now >= self.open.began() + self.latency_ns {
            self.seal(self.open.last_ns());
        }
    }

    /// When something is to be done next: the open batch is due, or sealed ones wait for the
    /// watermark (`Some(0)`).
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        if !self.sealed.is_empty() || !self.waiting.is_empty() {
            return Some(0);
        }
        (!self.open.is_empty()).then(|| self.open.began() + self.latency_ns)
    }

    /// Delivers the batches whose time the watermark has passed, and those with an urgent row for which
    /// nothing else has to be waited for; returns their number.
    pub fn deliver(&mut self, watermark: u64) -> u64 {
        let mut batches = 0;
        if self.has_urgent && !self.open.is_empty() {
            self.seal(self.open.last_ns());
        }
        while let Some((until, members, _)) = self.sealed.front()
            // At a cut older rows that come late must still find those who were there.
            && (*until <= watermark || self.has_urgent && Arc::ptr_eq(members, &self.members))
            && let Some((_, members, open)) = self.sealed.pop_front()
        {
            open.close(&self.plan, &mut |batch| {
                batches += 1;
                for member in members.iter() {
                    member.queue.push(&batch);
                }
            });
        }
        self.has_urgent &= !self.sealed.is_empty();
        if self.replaces && self.after <= watermark {
            // The other feed has delivered all that it will: what comes late now comes here.
            self.replaces = false;
            self.sealed_until = self.sealed_until.max(self.after);
            self.after = 0;
            self.set_floor();
        }
        // Batches are sealed in the order of their times, so all up to the watermark are delivered.
        // Dropping a sender tells who waits at its other end.
        self.waiting.retain(|(until, _)| *until > watermark);
        batches
    }

    /// Delivers everything.
    pub fn flush(&mut self) -> u64 {
        self.hand_over_all();
        if !self.open.is_empty() {
            self.seal(self.open.last_ns());
        }
        self.deliver(u64::MAX)
    }

    /// Lets a member in, for events after the cut.
    pub fn join(&mut self, member: Member, cut: u64) {
        self.seal_all(cut);
        self.members = self.members.iter().cloned().chain([member]).collect();
        self.set_floor();
    }

    /// Lets a member go, which still gets the events up to the cut; `done` is dropped when it has.
    pub fn leave(&mut self, id: MemberId, cut: u64, done: Sender<()>) {
        self.seal_all(cut);
        self.members = self.members.iter().filter(|member| member.id != id).cloned().collect();
        self.set_floor();
        self.waiting.push((cut, done));
    }

    /// Whether that member is in.
    #[must_use]
    pub fn has(&self, id: MemberId) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    /// Whether nobody is in and all is delivered.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.members.is_empty() && self.sealed.is_empty()
    }

    /// Whether it can take in a member with this plan.
    #[must_use]
    pub fn suits(&self, plan: &Plan, latency_ns: u64) -> bool {
        !self.members.is_empty()
            && self.latency_ns == latency_ns
            && self.plan.makes_the_same_rows(plan)
    }

    /// Number of rows that were older than one already delivered.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests;
