//! How one generation of a policy takes the place of another, between two batches of one turn.
//!
//! Everything that can go wrong is done before: the new generation is configured, and its metrics'
//! names are reserved. What is left, state that one side does not hand over or the other does not
//! take, costs the state and nothing else: the new generation then starts empty, and says so.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Configured, Limits, Outcome,
    counts::Counts,
    error::{LoadError, Refusal},
    host::PolicyOutcome,
    instance::{Instance, Program},
    life::Generation,
    load,
};
use crate::{
    manifest::Manifest,
    outcome::Reserved,
    queue::{Gap, Queue},
};

/// How long a generation may take for what waits in its own queue when it is to be replaced by one
/// whose rows differ. The rest is then lost, and told to the new one.
pub(super) const LAST_ROWS: Duration = Duration::from_secs(30);

/// Most bytes of a message against a state.
const MOST_MESSAGE: usize = 1024;

/// What instances of a generation are started from.
pub(super) struct Plan {
    pub program: Program,
    pub settings: Vec<(String, String)>,
    pub limits: Limits,
    pub outcome: PolicyOutcome,
    pub manifest: Manifest,
}

/// A generation that is ready to run. Dropped, it never does.
pub struct Next {
    pub(super) generation: Generation,
    pub(super) plan: Plan,
    pub(super) counts: Counts,
    pub(super) instance: Instance,
    /// Where its rows go; nothing if they are the same as before, and go where those went.
    pub(super) queue: Option<Arc<Queue>>,
    pub(super) metrics: Reserved,
    /// When it was asked for.
    pub(super) since: Instant,
}

impl Next {
    pub(super) fn new(
        configured: Configured,
        generation: Generation,
        queue: Option<Arc<Queue>>,
        outcome: &Outcome,
    ) -> Result<Self, LoadError> {
        let metrics = configured.reserve_metrics()?;
        let Configured {
            manifest,
            digest: _,
            path: _,
            program,
            settings,
            limits,
            outcome: own,
            instance,
        } = configured;
        Ok(Self {
            generation,
            counts: Counts::new(&outcome.counts, &manifest),
            plan: Plan { program, settings, limits, outcome: own, manifest },
            instance,
            queue,
            metrics,
            since: Instant::now(),
        })
    }

    /// Where its rows go, if not into the queue of the generation before it.
    #[must_use]
    pub const fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    /// Takes over the state of `old`, which is the end of it. Says how it begins, and what processor
    /// time that took.
    pub(super) fn take_over(
        &mut self,
        old: Option<&mut Instance>,
        most: usize,
    ) -> (Beginning, Duration) {
        let mut used = Duration::ZERO;
        (self.try_take_over(old, most, &mut used).unwrap_or_else(|beginning| beginning), used)
    }

    fn try_take_over(
        &mut self,
        old: Option<&mut Instance>,
        most: usize,
        used: &mut Duration,
    ) -> Result<Beginning, Beginning> {
        let lost = |why: String, limit| Beginning::Lost { why, limit };
        let most = most.min(self.plan.limits.state);
        if !self.plan.program.has_hand_over() {
            return Err(Beginning::Empty("it takes over no state"));
        }
        let old = old.ok_or(Beginning::Empty("there is no instance to take over from"))?;
        let saved = old.save(most);
        *used += old.cpu();
        let state = saved
            // What a save may pass to the host is the state.
            .map_err(|error| match error.limit() {
                Some("host_call") => {
                    lost(format!("it has more than {most} bytes (`state`)"), Some("state"))
                }
                limit => lost(error.to_string(), limit),
            })?
            .ok_or(Beginning::Empty("the generation before it hands over no state"))?;
        if state.len() > most {
            let length = state.len();
            return Err(lost(
                format!("it has {length} bytes, the limit is {most} (`state`)"),
                Some("state"),
            ));
        }
        // In an instance of its own: one that failed half-way must not run.
        let mut instance =
            self.plan.start().map_err(|refusal| lost(refusal.to_string(), refusal.limit()))?;
        *used += instance.cpu();
        let restored = instance.restore(&state);
        *used += instance.cpu();
        match restored.map_err(|error| lost(error.to_string(), error.limit()))? {
            Ok(()) => {
                self.instance = instance;
                Ok(Beginning::With(state.len()))
            }
            Err(message) => {
                let message = crate::escape::prefix(&message, MOST_MESSAGE).to_owned();
                let message = crate::escape::control(&message).into_owned();
                Err(lost(format!("the new generation refuses it: {message}"), None))
            }
        }
    }
}

impl Plan {
    /// Time between two ticks, where the policy wants them.
    pub fn tick(&self) -> Option<Duration> {
        self.manifest.tick_ns.filter(|_| self.program.has_ticks()).map(Duration::from_nanos)
    }

    /// For the log: what runs.
    pub fn runs(&self) -> String {
        let Manifest { version, subscriptions, .. } = &self.manifest;
        let events: Vec<&str> =
            subscriptions.iter().map(|subscription| subscription.event.as_str()).collect();
        format!("policy runs: version {version}, events {}", events.join(", "))
    }

    /// Starts another instance.
    pub fn start(&self) -> Result<Instance, Refusal> {
        let Self { program, settings, limits, outcome, manifest } = self;
        let (instance, text) = load::start(program, outcome, limits, settings)?;
        // The rows are made for what the first instance said.
        if text.parse().as_ref() == Ok(manifest) { Ok(instance) } else { Err(Refusal::Changed) }
    }

    /// What another generation's instance is told of gaps of this one's: subscriptions of the same
    /// event are the same. Of other events it does not want to know.
    pub fn translate(&self, gaps: Vec<Gap>, to: &Self) -> Vec<Gap> {
        let mut told = Vec::new();
        for gap in gaps {
            let from = self.manifest.subscriptions.get(usize::from(gap.subscription));
            let event = from.map(|subscription| &subscription.event);
            let index = (0..=u8::MAX)
                .zip(&to.manifest.subscriptions)
                .find_map(|(index, other)| (Some(&other.event) == event).then_some(index));
            if let Some(subscription) = index {
                Gap { subscription, ..gap }.add_to(&mut told);
            }
        }
        told
    }
}

/// How a generation begins.
pub(super) enum Beginning {
    /// With a state of so many bytes.
    With(usize),
    /// Without, as was to be expected.
    Empty(&'static str),
    /// Without, because something went wrong, perhaps because of the limit of that key.
    Lost { why: String, limit: Option<&'static str> },
}
