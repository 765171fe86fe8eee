//! The policies that run, and how they come, change and go.
//!
//! A policy joins the reader when the probes deliver what it wants, and leaves it before they stop
//! to. One that takes the place of another generation goes on with its queue if their rows are the
//! same, and else takes rows from the same cut in time at which the other got its last one: no event
//! is lost, and none is seen twice. Everything that can fail is done before the running generation
//! is touched, so that it goes on whatever happens.

pub(super) mod modes;
mod saving;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Ready,
    budget::CgroupBudgets,
    expense::Expense,
    guards::{Guards, PolicyMode},
    refused::Refused,
    sight::{Sight, Unseen},
};
use crate::{
    config::{self, Config, Settings},
    feed::MemberId,
    guard::{Grant, Mode, Strength, Told, governor::Member},
    kind::Kinds,
    outcome::{PolicyLabels, StateLabels},
    plan::{self, Plan, Union},
    policy::{Configured, Generation, Life, Loaded, Outcome, Pool, Running, grants},
    probe::{ProbeError, Probes},
    reader::{Reader, Subscriber},
};

/// How long a policy may take for what waits in its queue when it has to go.
const LAST_BATCHES: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Policies {
    sight: Sight,
    reader: Reader,
    pool: Pool,
    outcome: Outcome,
    guards: Guards,
    budgets: CgroupBudgets,
    expense: Expense,
    active: BTreeMap<String, Active>,
    /// What is asked for besides.
    witness: Option<Arc<Plan>>,
    /// Files that hold no policy that runs.
    refused: BTreeSet<PathBuf>,
    states: BTreeSet<&'static str>,
}

/// A policy that runs.
struct Active {
    loaded: Loaded,
    section: config::Policy,
    latency: Duration,
    plan: Arc<Plan>,
    member: MemberId,
    running: Running,
    /// The last generation before this one that ran as it should, to fall back to, and its settings.
    /// What else the operator says of the policy counts as it is then.
    good: Option<(Loaded, Settings)>,
    /// Whether what becomes of its rules in quarantine was seen to.
    is_quarantined: bool,
}

impl Active {
    /// What this section takes from it, if it does: a grant, its mode, or fields that it has. Filters
    /// aside: they say which rows there are, and not what is in them.
    fn loses(&self, section: &config::Policy, kinds: &Kinds) -> Option<&'static str> {
        let name = &self.loaded.manifest.name;
        let subscriptions = &self.running.manifest().subscriptions;
        let rows = |section| plan::bind(name, subscriptions, kinds, &withheld(section));
        let has_same_rows = || match (rows(&self.section), rows(section)) {
            (Ok(before), Ok(now)) => now.makes_the_same_rows(&before),
            _ => false,
        };
        if section.mode < self.section.mode
            || self.section.grants.iter().any(|grant| !section.grants.contains(grant))
        {
            Some("the configuration withdraws what it may do")
        } else if has_same_rows() {
            None
        } else {
            Some("the configuration withholds a field that it has")
        }
    }
}

/// The fields that a policy with this section does not get.
fn withheld(section: &config::Policy) -> Vec<String> {
    section.deny_fields.iter().map(ToString::to_string).collect()
}

/// What is there before anything is changed for a policy.
struct Prepared {
    loaded: Loaded,
    section: config::Policy,
    plan: Plan,
    configured: Configured,
    generation: Generation,
}

impl Policies {
    pub fn new(
        kinds: Kinds,
        probes: Probes,
        reader: Reader,
        pool: Pool,
        outcome: Outcome,
        guards: Guards,
    ) -> Self {
        Self {
            sight: Sight::new(kinds, probes),
            reader,
            pool,
            outcome,
            guards,
            budgets: CgroupBudgets::default(),
            expense: Expense::default(),
            active: BTreeMap::new(),
            witness: None,
            refused: BTreeSet::new(),
            states: BTreeSet::new(),
        }
    }

    /// Gives rows to somebody besides the policies, from now on.
    pub fn add_witness(&mut self, witness: Subscriber) -> Result<(), ProbeError> {
        self.witness = Some(Arc::clone(&witness.plan));
        self.sight.apply(&plan::union(self.plans()))?;
        let _stays = self.reader.add(witness);
        Ok(())
    }

    pub fn kinds(&self) -> &Kinds {
        self.sight.kinds()
    }

    /// How the start went, once.
    pub fn ready(&mut self) -> Ready {
        let (not_done, domains) = (self.guards.started(), self.guards.domains());
        Ready { running: self.active.len(), not_done, domains }
    }

    /// Says why a file holds no policy that runs. What ran from it before goes on.
    pub fn refuse(&mut self, path: PathBuf, error: &dyn std::fmt::Display) {
        let goes_on = self.active.values().find(|active| active.loaded.path == path);
        if let Some(active) = goes_on {
            tracing::error!(
                policy = active.loaded.manifest.name,
                generation = active.running.generation().number(),
                "{error}; the policy that was loaded from there before goes on"
            );
        } else {
            tracing::error!("{error}");
        }
        self.refused.insert(path);
    }

    /// The files that hold no policy that runs, to be loaded again.
    pub fn take_refused(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.refused).into_iter().collect()
    }

    /// Runs a policy, or puts it into the place of its earlier generation.
    pub fn admit(&mut self, loaded: Loaded, config: &Config) {
        let path = loaded.path.clone();
        let name = loaded.manifest.name.clone();
        // The file may have held another policy before.
        let former: Vec<String> = self.names_from(&path).filter(|former| *former != name).collect();
        match self.try_admit(loaded, config) {
            Ok(()) => {
                self.refused.remove(&path);
                for former in former {
                    self.remove(&former, "its file holds another policy now");
                }
            }
            Err(error) => self.refuse(path, &error),
        }
    }

    /// Ends the policy of that file. Returns files that may be loaded in its place.
    pub fn file_is_gone(&mut self, path: &Path) -> Vec<PathBuf> {
        self.refused.remove(path);
        let names: Vec<String> = self.names_from(path).collect();
        for name in &names {
            self.remove(name, "its file is gone");
        }
        if names.is_empty() { Vec::new() } else { self.take_refused() }
    }

    /// Gives policies whose section has changed their new settings and limits. One that may not run
    /// as it is any more ends.
    pub fn reconfigure(&mut self, config: &Config) {
        let before = self.modes();
        let members = self.active.iter().map(|(name, Active { loaded, running, .. })| {
            (name.clone(), member(loaded, &config.policy(name), running.generation()))
        });
        self.guards.configure(config, members.collect(), self.sight.probes());
        self.warn_of_unpinned(config);
        self.end_distrusted(&before);
        let changed = self.active.iter().filter_map(|(name, active)| {
            let section = config.policy(name);
            let is_changed = active.section != section || active.latency != config.agent.latency;
            let has_other_limits = active.section.limits != section.limits;
            is_changed.then(|| (name.clone(), active.loaded.clone(), has_other_limits))
        });
        for (name, loaded, has_other_limits) in changed.collect::<Vec<_>>() {
            let path = loaded.path.clone();
            let section = config.policy(&name);
            let kinds = self.sight.kinds();
            let loses = self.active.get(&name).and_then(|active| active.loses(&section, kinds));
            if let Err(error) = self.try_admit(loaded, config) {
                // Whatever else is wrong, even if it is the policy that does not want to be replaced.
                if let Some(why) = loses {
                    self.remove(&name, why);
                } else if error.is_withdrawn(has_other_limits) {
                    self.remove(&name, "the configuration does not allow it any more");
                }
                self.refuse(path, &error);
            }
        }
        self.wake(&before, config);
        self.set_budgets(config);
        self.apply();
    }

    /// Does what policies ask for.
    pub fn act(&mut self, told: Told) {
        self.guards.take(told, self.sight.probes());
    }

    /// Has what was done until now on disk.
    pub fn sync(&mut self) {
        self.guards.sync();
    }

    /// Waits until the process table knows the processes that were there before, or until `timeout`.
    pub fn settle(&self, timeout: Duration) {
        self.reader.settle(timeout);
    }

    /// Puts the last good generation into the place of one in quarantine, and brings the metrics of the
    /// policies' states and queues up to date.
    pub fn look(&mut self, config: &Config) {
        self.guards.look();
        self.budgets.look(self.sight.probes(), &self.outcome.counts);
        self.save();
        let bad = self.active.iter_mut().filter_map(|(name, active)| {
            let is_bad = active.running.life_of_newest() == Some(Life::Quarantined);
            let (loaded, settings) = active.good.take_if(|_| is_bad)?;
            Some((name.clone(), loaded, settings))
        });
        for (name, loaded, settings) in bad.collect::<Vec<_>>() {
            tracing::warn!(policy = name, "falling back to the last good generation");
            let section = config::Policy { settings, ..config.policy(&name) };
            if let Err(error) = self.run(&name, loaded, section, config) {
                tracing::error!(
                    policy = name,
                    "the last good generation does not run either: {error}"
                );
            }
        }
        for (name, active) in &mut self.active {
            let is_quarantined = active.running.life_of_newest() == Some(Life::Quarantined);
            if is_quarantined && !active.is_quarantined {
                self.guards.quarantined(name, active.section.on_quarantine);
            }
            active.is_quarantined = is_quarantined;
        }
        self.count();
    }

    fn count(&mut self) {
        let mut states: BTreeMap<&str, i64> = self.states.iter().map(|state| (*state, 0)).collect();
        for (name, active) in &self.active {
            let labels = PolicyLabels { policy: name.clone() };
            let waiting = i64::try_from(active.running.queue().bytes()).unwrap_or(i64::MAX);
            self.outcome.counts.queue.get_or_create(&labels).set(waiting);
            let state = active.running.life().name();
            *states.entry(state).or_default() += 1;
            self.states.insert(state);
        }
        let refused = i64::try_from(self.refused.len()).unwrap_or(i64::MAX);
        for (state, count) in states.into_iter().chain([("refused", refused)]) {
            let labels = StateLabels { state: state.to_owned() };
            self.outcome.counts.policies.get_or_create(&labels).set(count);
        }
    }

    /// Detaches the probes, delivers what they saw, and ends all policies.
    pub fn stop(self) {
        let Self { mut sight, reader, active, mut guards, mut budgets, outcome, .. } = self;
        // With what was denied, and left out, until now.
        guards.count();
        budgets.tell(sight.probes(), &outcome.counts);
        if let Err(error) = sight.apply(&Union::default()) {
            tracing::error!("the probes cannot be detached: {error}");
        }
        reader.stop();
        let running: Vec<_> = active.into_values().map(|active| active.running).collect();
        for policy in Running::stop_all(&running, LAST_BATCHES) {
            tracing::warn!(policy, "policy did not take its last batches in time");
        }
    }

    fn names_from<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = String> + 'a {
        self.active
            .values()
            .filter(move |active| active.loaded.path == path)
            .map(|active| active.loaded.manifest.name.clone())
    }

    fn try_admit(&mut self, loaded: Loaded, config: &Config) -> Result<(), Refused> {
        let name = loaded.manifest.name.clone();
        let section = config.policy(&name);
        if let Some(active) = self.active.get(&name) {
            if active.loaded.path != loaded.path {
                return Err(Refused::Duplicate {
                    path: shown(&loaded.path),
                    name,
                    other: shown(&active.loaded.path),
                });
            }
            if active.loaded.digest == loaded.digest
                && active.section == section
                && active.latency == config.agent.latency
                // Else the file was put there again to try again.
                && active.running.life_of_newest() != Some(Life::Quarantined)
            {
                return Ok(());
            }
        }
        self.run(&name, loaded, section, config)
    }

    /// Runs a policy, perhaps in the place of an earlier generation.
    fn run(
        &mut self,
        name: &str,
        loaded: Loaded,
        section: config::Policy,
        config: &Config,
    ) -> Result<(), Refused> {
        let result = self.prepare(loaded, section, config).and_then(|prepared| {
            self.apply_with(&prepared)?;
            self.put_in(name, prepared, config.agent.latency)
        });
        match self.active.get(name) {
            Some(Active { loaded, section, running, .. }) => {
                let member = member(loaded, section, running.generation());
                self.guards.admit(name, member, self.sight.probes());
            }
            None => self.guards.remove(name),
        }
        // What the earlier generation alone, or one that is refused, had asked for is not wanted.
        self.apply();
        if !self.active.contains_key(name) {
            self.outcome.forget(name);
        }
        result
    }

    /// Makes the probes deliver what this policy wants, too. Refuses if they cannot.
    fn apply_with(&mut self, prepared: &Prepared) -> Result<(), Refused> {
        let Prepared { loaded, plan, configured, generation, .. } = prepared;
        let path = || shown(&loaded.path);
        let union = self.union(Some(plan));
        let seen = self.sight.apply(&union);
        seen.map_err(|source| Refused::Probe { path: path(), source })?;
        let subscriptions = &configured.manifest.subscriptions;
        let needs = |index| !subscriptions[usize::from(index)].optional;
        if let Some(Unseen { kind, reason }) = self.sight.unseen(plan, needs) {
            return Err(Refused::Unseen { path: path(), kind, reason });
        }
        generation.enters(Life::Planned, &"its probes are attached");
        Ok(())
    }

    /// Makes the probes deliver what the policies that run want, and nothing else.
    fn apply(&mut self) {
        let union = self.union(None);
        if let Err(error) = self.sight.apply(&union) {
            tracing::error!("the probes cannot be changed: {error}");
        }
    }

    /// What is asked for: by the policies that run, and besides.
    fn plans(&self) -> impl Iterator<Item = &Plan> + Clone {
        self.active.values().map(|active| &*active.plan).chain(self.witness.as_deref())
    }

    /// Checks everything that can be checked before something is changed.
    fn prepare(
        &mut self,
        loaded: Loaded,
        section: config::Policy,
        config: &Config,
    ) -> Result<Prepared, Refused> {
        let path = || shown(&loaded.path);
        let name = &loaded.manifest.name;
        let generation = self.active.get(name).map_or_else(
            || Generation::new(name, 1, &self.outcome.counts),
            |active| active.running.generation().next(),
        );
        generation.enters(
            Life::Loaded,
            &format_args!("{}: {} bytes, {}", path(), loaded.size, loaded.digest),
        );
        let allowed = &section.digest;
        if !allowed.is_empty() && !allowed.contains(&loaded.digest.to_string()) {
            return Err(Refused::Digest {
                path: path(),
                name: name.clone(),
                found: loaded.digest,
                allowed: allowed.join(", "),
            });
        }
        loaded.check_grants(&section, self.guards.agent_mode().min(section.mode))?;
        let settings = section
            .settings
            .check(&loaded.manifest, config.file.as_deref())
            .map_err(|problems| Refused::Settings { path: path(), problems })?;
        // It may ask for actions when it is given its settings.
        let member = member(&loaded, &section, &generation);
        self.guards.admit(name, member, self.sight.probes());
        // There is nothing between all and nothing yet.
        if let Some(least) = section.require
            && self.guards.mode(name) == Mode::Enforce
            && let Err(reason) = self.check_strength(&loaded, least)
        {
            let least = least.name();
            return Err(Refused::Strength { path: path(), name: name.clone(), least, reason });
        }
        let configured = loaded.configure(settings, &section.limits, &self.outcome)?;
        generation.enters(Life::Configured, &"an instance took its settings");
        let kinds = self.sight.kinds();
        let subscriptions = &configured.manifest.subscriptions;
        let mut plan = plan::bind(name, subscriptions, kinds, &withheld(&section))
            .map_err(|source| Refused::Plan { path: path(), source })?;
        section
            .filter
            .apply(name, &mut plan, kinds, config.file.as_deref())
            .map_err(|problems| Refused::Settings { path: path(), problems })?;
        if !section.grants.contains(&Grant::Urgent) {
            plan.calm(name);
        }
        for note in &plan.notes {
            tracing::warn!(policy = name, "{note}");
        }
        Ok(Prepared { loaded, section, plan, configured, generation })
    }

    /// Whether all that a policy may ask for promises as much here as is required.
    fn check_strength(&mut self, loaded: &Loaded, least: Strength) -> Result<(), String> {
        for grant in grants(&loaded.imports) {
            let most = grant.strength().filter(|most| *most < least);
            if let Some(most) = most {
                let (grant, most) = (grant.name(), most.name());
                return Err(format!(
                    "`{grant}` is `{most}` on every kernel: it comes after the fact"
                ));
            }
            self.guards.prove(grant, self.sight.probes())?;
        }
        Ok(())
    }

    fn put_in(&mut self, name: &str, prepared: Prepared, latency: Duration) -> Result<(), Refused> {
        let Prepared { loaded, section, plan, configured, generation: _ } = prepared;
        let plan = Arc::new(plan);
        // What was counted so far is for those who were there.
        self.sight.read_aggregates();
        let Some(active) = self.active.get_mut(name) else {
            let running = self.pool.start(configured)?;
            let queue = Arc::clone(running.queue());
            let member = self.reader.add(Subscriber { plan: Arc::clone(&plan), queue, latency });
            let active = Active {
                loaded,
                section,
                latency,
                plan,
                member,
                running,
                good: None,
                is_quarantined: false,
            };
            self.active.insert(name.to_owned(), active);
            return Ok(());
        };
        let same_rows = active.plan.makes_the_same_rows(&plan)
            && active.latency == latency
            && active.section.limits.queue == section.limits.queue;
        let was = active.running.life_of_newest();
        let next = active.running.prepare(configured, same_rows)?;
        if let Some(queue) = next.queue().map(Arc::clone) {
            let subscriber = Subscriber { plan: Arc::clone(&plan), queue, latency };
            active.member = self.reader.replace(active.member, subscriber);
        }
        active.running.replace(next);
        (active.plan, active.latency) = (plan, latency);
        let loaded = std::mem::replace(&mut active.loaded, loaded);
        let section = std::mem::replace(&mut active.section, section);
        match was {
            Some(Life::Running) => active.good = Some((loaded, section.settings)),
            // What came now is put in its place, and not what was there before.
            Some(Life::Quarantined) => active.good = None,
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, name: &str, why: &str) {
        let Some(active) = self.active.remove(name) else { return };
        // It gets what was counted so far.
        self.sight.read_aggregates();
        self.reader.remove(active.member);
        if !active.running.remove(LAST_BATCHES) {
            tracing::warn!(policy = name, "policy did not take its last batches in time");
        }
        active.running.generation().enters(Life::Removed, &format_args!("policy removed: {why}"));
        self.guards.remove(name);
        self.outcome.forget(name);
        self.outcome.counts.queue.remove(&PolicyLabels { policy: name.to_owned() });
        self.apply();
    }
}

/// What the governor knows of a policy.
fn member(loaded: &Loaded, section: &config::Policy, generation: &Generation) -> Member {
    Member {
        mode: section.mode,
        pinned: loaded.is_pinned(section),
        digest: loaded.digest.to_string(),
        generation: generation.number(),
        tables: section.limits.tables,
        rules: section.limits.rules,
    }
}

fn shown(path: &Path) -> String {
    crate::escape::control(&path.to_string_lossy()).into_owned()
}
