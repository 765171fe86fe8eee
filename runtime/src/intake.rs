//! What the reader does with each record: it keeps the process table and puts rows into the
//! batches of every feed that asked for the kind. Nothing here blocks, does I/O, or allocates for
//! an event other than fork, exec and exit; records of aggregated kinds take memory by their keys.

use std::{mem::offset_of, sync::Arc};

use crossbeam_channel::Sender;
use tipstaff_events::{
    Type,
    catalogue::{self, Exec, Exit, Fork},
    wire::{Header, MAX_KINDS},
};

use crate::{
    enrich::{Lookup, Tables},
    feed::{Feed, Member, MemberId},
    kind::Repr,
    plan::{Bound, Needs, Plan},
    queue::{Cause, Gap},
    record::{self, Malformed},
    resolver::{Answer, Request},
    source::{Given, Item, Lost},
    spare::Spare,
};

/// What there is of a kind.
#[derive(Default)]
struct Route {
    /// Events so far.
    events: u64,
    targets: Vec<Target>,
}

/// Who gets the events of a kind.
struct Target {
    feed: usize,
    bound: Arc<Bound>,
}

/// Which events are to be delivered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// None.
    None,
    /// Those of the urgent ring.
    Ring,
    /// fork, exec or exit, too.
    Life,
}

impl Urgency {
    fn of<'a>(all: impl Iterator<Item = &'a Arc<Bound>>) -> Self {
        all.filter(|bound| bound.urgent)
            .map(|bound| if bound.kind <= catalogue::exit::KIND { Self::Life } else { Self::Ring })
            .max()
            .unwrap_or(Self::None)
    }
}

/// See the module's documentation.
pub struct Intake {
    feeds: Vec<Feed>,
    /// By kind.
    routes: Vec<Route>,
    /// Buffers for the feeds' batches.
    spare: Spare,
    tables: Tables,
    /// The tables that any feed's fields are read from.
    needs: Needs,
    /// What is delivered at once.
    urgency: Urgency,
    /// Those of them that have to be seeded.
    unseeded: Needs,
    /// Whether the resolver was asked for that and has not shown all yet.
    is_seeding: bool,
    resolver: Option<Sender<Request>>,
    now: u64,
    newest: u64,
    malformed: u64,
    late: u64,
}

impl Intake {
    /// With no feeds. `resolver` is asked for what the tables do not know.
    #[must_use]
    pub fn new(resolver: Option<Sender<Request>>) -> Self {
        let kinds = usize::from(MAX_KINDS);
        Self {
            feeds: Vec::new(),
            routes: (0..kinds).map(|_| Route::default()).collect(),
            spare: Spare::default(),
            tables: Tables::new(resolver.clone()),
            needs: Needs::default(),
            urgency: Urgency::None,
            unseeded: Needs::default(),
            is_seeding: false,
            resolver,
            now: 0,
            newest: 0,
            malformed: 0,
            late: 0,
        }
    }

    /// Sets the reader's clock.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Takes in what a source hands out.
    #[inline]
    pub fn take(&mut self, item: Item<'_>) {
        let taken = match item {
            Item::Record(record) => self.take_record(record, None),
            Item::Enriched(record, given) => self.take_record(record, Some(given)),
            Item::Lost(lost) => {
                self.take_loss(&lost);
                Ok(())
            }
            Item::Tick(kind, time) => {
                self.tick(kind, time);
                Ok(())
            }
        };
        if taken.is_err() {
            self.malformed += 1;
        }
    }

    #[inline]
    fn take_record(&mut self, record: &[u8], given: Option<&Given>) -> Result<(), Malformed> {
        let kind = record::kind(record)?;
        let time = record::time(record)?;
        self.routes.get_mut(usize::from(kind)).ok_or(Malformed)?.events += 1;
        self.newest = self.newest.max(time);
        if kind <= catalogue::exit::KIND && self.needs.processes {
            self.follow(kind, time, record)?;
        }
        let mut lookup = Lookup::new(&mut self.tables, given);
        let mut taken = Ok(());
        for target in &self.routes[usize::from(kind)].targets {
            let feed = &mut self.feeds[target.feed];
            lookup.set_thinned(1);
            // What one feed asks for may be broken and what another asks for not.
            taken = taken.and(feed.append(&target.bound, record, time, &mut lookup, self.now));
        }
        taken
    }

    fn tick(&mut self, kind: u16, time: u64) {
        for target in self.routes.get(usize::from(kind)).into_iter().flat_map(|r| &r.targets) {
            self.feeds[target.feed].tick(&target.bound, time, self.now);
        }
    }

    /// Keeps the process table.
    fn follow(&mut self, kind: u16, time: u64, record: &[u8]) -> Result<(), Malformed> {
        let number = |at| record::bytes_at(record, at).map(u32::from_ne_bytes);
        let start = |at| record::bytes_at(record, at).map(u64::from_ne_bytes);
        let pid = number(offset_of!(Header, pid))?;
        let processes = &mut self.tables.processes;
        match kind {
            catalogue::fork::KIND => {
                let child = number(offset_of!(Fork, child_pid))?;
                processes.fork(time, pid, child, start(offset_of!(Fork, child_start))?);
            }
            catalogue::exec::KIND => {
                let text =
                    |at, ty| Ok(record::span(record, at, Repr::Wire(ty))?.map(|span| span.bytes));
                let exe = text(offset_of!(Exec, path), Type::Text)?;
                let args = text(offset_of!(Exec, args), Type::List)?;
                let parent = number(offset_of!(Exec, ppid))?;
                processes.exec(time, pid, start(offset_of!(Exec, start))?, parent, exe, args);
            }
            catalogue::exit::KIND => {
                let parent = number(offset_of!(Exit, ppid))?;
                processes.exit(time, pid, start(offset_of!(Exit, start))?, parent);
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells everyone who asked for the kind about lost events.
    pub fn take_loss(&mut self, lost: &Lost) {
        let route = self.routes.get(usize::from(lost.kind));
        for target in route.into_iter().flat_map(|route| &route.targets) {
            // What the agent leaves out of what is sampled: other rows stand for it.
            if lost.cause == Cause::AgentBudget && target.bound.weighs() {
                continue;
            }
            let gap = Gap {
                subscription: target.bound.index,
                lost: lost.count,
                first_ns: lost.first_ns,
                last_ns: lost.last_ns,
                cause: lost.cause,
            };
            self.feeds[target.feed].push_gap(&gap, self.now);
        }
        self.unseeded.processes |= self.needs.processes && lost.kind <= catalogue::exit::KIND;
    }

    /// Takes in what the resolver found.
    pub fn learn(&mut self, answer: Answer) {
        self.is_seeding &= !matches!(answer, Answer::Seeded { .. });
        self.tables.learn(answer, self.now);
    }

    /// The tables, for their upkeep.
    pub fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Lets a member in, for events after the cut. With `replaces`, a member that leaves at the same
    /// cut gets those before.
    pub fn join(
        &mut self,
        plan: &Arc<Plan>,
        latency_ns: u64,
        member: Member,
        cut: u64,
        replaces: bool,
    ) {
        if let Some(feed) = self.feeds.iter_mut().find(|feed| feed.suits(plan, latency_ns)) {
            feed.join(member, cut);
        } else {
            let plan = Arc::clone(plan);
            self.feeds.push(Feed::new(plan, latency_ns, member, cut, replaces, &self.spare));
        }
        self.route();
    }

    /// Lets a member go; it still gets what happened up to the cut, and then `done` is dropped.
    pub fn leave(&mut self, id: MemberId, cut: u64, done: Sender<()>) {
        if let Some(feed) = self.feeds.iter_mut().find(|feed| feed.has(id)) {
            feed.leave(id, cut, done);
        }
    }

    /// Delivers batches that are full or have waited long enough, and that the watermark has passed.
    pub fn deliver(&mut self, watermark: u64) {
        for feed in &mut self.feeds {
            feed.seal_if_due(self.now);
            feed.deliver(watermark);
        }
        if self.feeds.iter().any(Feed::is_over) {
            self.drop_feeds_that_are_over();
        }
    }

    /// Delivers everything.
    pub fn flush(&mut self) {
        for feed in &mut self.feeds {
            feed.flush();
        }
    }

    /// When [`Intake::deliver`] has something to do; 0: as soon as the watermark moves.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.feeds.iter().filter_map(Feed::due).min()
    }

    /// What is to be delivered at once, and must not wait until the next drain.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        self.urgency
    }

    fn drop_feeds_that_are_over(&mut self) {
        self.late += self.feeds.iter().filter(|feed| feed.is_over()).map(Feed::late).sum::<u64>();
        self.feeds.retain(|feed| !feed.is_over());
        self.route();
    }

    /// Makes the targets anew, and sees to the process table.
    fn route(&mut self) {
        self.routes.iter_mut().for_each(|route| route.targets.clear());
        for (feed, index) in self.feeds.iter().zip(0..) {
            for bound in feed.plan.bound() {
                if let Some(route) = self.routes.get_mut(usize::from(bound.kind)) {
                    route.targets.push(Target { feed: index, bound: Arc::clone(bound) });
                }
            }
        }
        let before = self.needs;
        self.needs =
            self.feeds.iter().fold(Needs::default(), |needs, feed| needs.and(feed.plan.needs()));
        self.urgency = Urgency::of(self.feeds.iter().flat_map(|feed| feed.plan.bound()));
        // The probes are attached already, so nothing in between is missed.
        self.unseeded = self.unseeded.and(self.needs.beyond(before));
        if before.processes && !self.needs.processes {
            self.tables.processes = crate::process::Processes::default();
        }
    }

    /// Asks for all that there is, where a table may lack some of it.
    pub fn seed_if_needed(&mut self) {
        if let Some(resolver) = &self.resolver
            && !self.unseeded.is_none()
            // While it is full of other questions it is asked again later.
            && resolver.try_send(Request::Seed(self.unseeded)).is_ok()
        {
            self.unseeded = Needs::default();
            self.is_seeding = true;
        }
    }

    /// Whether the tables know all that can be known, or are not needed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.resolver.is_none() || !self.is_seeding && self.unseeded.is_none()
    }

    /// Time of the newest event.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Number of events of a kind so far.
    #[must_use]
    pub fn events(&self, kind: u16) -> u64 {
        self.routes.get(usize::from(kind)).map_or(0, |route| route.events)
    }

    /// Number of records so far that were shorter than their kind says, or pointed outside of
    /// themselves.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Number of rows so far that were older than one already delivered.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late + self.feeds.iter().map(Feed::late).sum::<u64>()
    }
}
