//! The policies that run, and how they come, change and go.
//!
//! A policy joins the reader when the probes deliver what it wants, and leaves it before they stop
//! to. One that is replaced takes batches from the same cut in time at which the generation before
//! it got its last one, and runs when that one has ended: no event is lost, and none is seen twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{self, Config, Problems},
    feed::MemberId,
    kind::Kinds,
    outcome::{PolicyLabels, StateLabels},
    plan::{self, Plan, Wanted},
    policy::{Digest, Life, LoadError, Loaded, Outcome, Pool, Running},
    probe::{Coverage, ProbeError, Probes, Report},
    reader::{Reader, Subscriber},
};

/// How long a policy may take for what waits in its queue when it has to go.
const LAST_BATCHES: Duration = Duration::from_secs(2);

/// Why a policy does not run, or why an earlier generation of it goes on.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "{path}: there is a policy `{name}` already, from {other}: rename one of them, or remove {other} to put this one in its place"
    )]
    Duplicate { path: String, name: String, other: String },
    #[error(
        "{path}: its digest is {found}, but [policy.{name}] allows only {allowed}: add it there if you trust the file"
    )]
    Digest { path: String, name: String, found: Digest, allowed: String },
    #[error("{path}: {problems}")]
    Settings { path: String, problems: Problems },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{path}: {source}")]
    Plan { path: String, source: plan::Error },
    #[error("{path}: the events `{kind}` that it needs cannot be seen here: {reason}")]
    Unseen { path: String, kind: String, reason: String },
    #[error("{path}: {source}")]
    Probe { path: String, source: ProbeError },
}

/// See the module's documentation.
pub(super) struct Policies {
    kinds: Kinds,
    probes: Probes,
    reader: Reader,
    pool: Pool,
    outcome: Outcome,
    active: BTreeMap<String, Active>,
    /// Files that hold no policy that runs.
    refused: BTreeSet<PathBuf>,
    /// How well each kind is seen, as it was last told.
    told: Report,
    states: BTreeSet<&'static str>,
}

/// A policy that runs.
struct Active {
    loaded: Loaded,
    section: config::Policy,
    latency: Duration,
    generation: u32,
    plan: Arc<Plan>,
    member: MemberId,
    running: Running,
}

/// What is there before anything is changed for a policy.
struct Prepared {
    loaded: Loaded,
    section: config::Policy,
    plan: Plan,
    configured: crate::policy::Configured,
}

impl Policies {
    pub fn new(kinds: Kinds, probes: Probes, reader: Reader, pool: Pool, outcome: Outcome) -> Self {
        Self {
            kinds,
            probes,
            reader,
            pool,
            outcome,
            active: BTreeMap::new(),
            refused: BTreeSet::new(),
            told: Report::new(),
            states: BTreeSet::new(),
        }
    }

    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Number of policies that run.
    pub fn running(&self) -> usize {
        self.active.len()
    }

    /// Says why a file holds no policy that runs. What ran from it before goes on.
    pub fn refuse(&mut self, path: PathBuf, error: &dyn std::fmt::Display) {
        let goes_on = self.active.values().find(|active| active.loaded.path == path);
        if let Some(active) = goes_on {
            tracing::error!(
                policy = active.loaded.manifest.name,
                generation = active.generation,
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

    /// Gives policies whose section has changed their new settings and limits.
    pub fn reconfigure(&mut self, config: &Config) {
        let changed: Vec<Loaded> = self
            .active
            .values()
            .filter(|active| {
                active.section != config.policy(&active.loaded.manifest.name)
                    || active.latency != config.agent.latency
            })
            .map(|active| active.loaded.clone())
            .collect();
        for loaded in changed {
            let path = loaded.path.clone();
            if let Err(error) = self.try_admit(loaded, config) {
                self.refuse(path, &error);
            }
        }
    }

    /// Waits until the process table knows the processes that were there before, or until `timeout`.
    pub fn settle(&self, timeout: Duration) {
        self.reader.settle(timeout);
    }

    /// Brings the metrics of the policies' states and queues up to date.
    pub fn look(&mut self) {
        let mut states: BTreeMap<&str, i64> = self.states.iter().map(|state| (*state, 0)).collect();
        for (name, active) in &self.active {
            let labels = PolicyLabels { policy: name.clone() };
            let waiting = i64::try_from(active.running.queue().bytes()).unwrap_or(i64::MAX);
            self.outcome.counts.queue.get_or_create(&labels).set(waiting);
            let state = match active.running.life() {
                Life::Running => "running",
                Life::Restarting => "restarting",
                Life::Quarantined => "quarantined",
                Life::Stopped => "stopped",
            };
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
        let Self { mut probes, reader, active, .. } = self;
        if let Err(error) = probes.apply(&Wanted::new()) {
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
            {
                return Ok(());
            }
        }
        let prepared = self.prepare(loaded, section, config)?;
        self.apply_with(&prepared)?;
        let result = self.put_in(&name, prepared, config.agent.latency);
        // What the earlier generation alone had asked for is not wanted any more.
        self.apply();
        result
    }

    /// Checks everything that can be checked before something is changed.
    fn prepare(
        &self,
        loaded: Loaded,
        section: config::Policy,
        config: &Config,
    ) -> Result<Prepared, Refused> {
        let path = || shown(&loaded.path);
        let name = &loaded.manifest.name;
        if !section.digest.is_empty() && !section.digest.contains(&loaded.digest.to_string()) {
            return Err(Refused::Digest {
                path: path(),
                name: name.clone(),
                found: loaded.digest,
                allowed: section.digest.join(", "),
            });
        }
        let settings = section
            .settings
            .check(&loaded.manifest, config.file.as_deref())
            .map_err(|problems| Refused::Settings { path: path(), problems })?;
        let configured = loaded.configure(settings, &section.limits.into(), &self.outcome)?;
        let withheld: Vec<String> = section.deny_fields.iter().map(ToString::to_string).collect();
        let plan = plan::bind(name, &configured.manifest.subscriptions, &self.kinds, &withheld)
            .map_err(|source| Refused::Plan { path: path(), source })?;
        for note in &plan.notes {
            tracing::warn!(policy = name, "{note}");
        }
        Ok(Prepared { loaded, section, plan, configured })
    }

    /// Makes the probes deliver what this policy wants, too. Refuses if they cannot.
    fn apply_with(&mut self, prepared: &Prepared) -> Result<(), Refused> {
        let path = || shown(&prepared.loaded.path);
        let wanted = plan::union(
            self.active.values().map(|active| &active.plan.wanted).chain([&prepared.plan.wanted]),
        );
        let report = match self.probes.apply(&wanted) {
            Ok(report) => report,
            Err(source) => {
                self.apply();
                return Err(Refused::Probe { path: path(), source });
            }
        };
        self.tell(report.clone());
        let subscriptions = &prepared.configured.manifest.subscriptions;
        for bound in
            prepared.plan.bound().filter(|bound| !subscriptions[usize::from(bound.index)].optional)
        {
            if let Some(seen) = report.get(&bound.kind)
                && let Coverage::None(reason) = &seen.coverage
            {
                let kind = self
                    .kinds
                    .get(bound.kind)
                    .map_or_else(String::new, |kind| kind.name.to_string());
                let tried =
                    seen.rejected.iter().map(|hook| format!("\n  {}: {}", hook.hook, hook.reason));
                let reason = [reason.clone()].into_iter().chain(tried).collect();
                self.apply();
                return Err(Refused::Unseen { path: path(), kind, reason });
            }
        }
        Ok(())
    }

    /// Makes the probes deliver what the policies that run want, and nothing else.
    fn apply(&mut self) {
        let wanted = plan::union(self.active.values().map(|active| &active.plan.wanted));
        match self.probes.apply(&wanted) {
            Ok(report) => self.tell(report),
            Err(error) => tracing::error!("the probes cannot be changed: {error}"),
        }
    }

    /// Says how well kinds are seen, once.
    fn tell(&mut self, report: Report) {
        for (id, seen) in &report {
            if self.told.get(id) == Some(seen) {
                continue;
            }
            let kind =
                self.kinds.get(*id).map_or_else(|| id.to_string(), |kind| kind.name.to_string());
            let hooks = seen.hooks.join(", ");
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

    fn put_in(&mut self, name: &str, prepared: Prepared, latency: Duration) -> Result<(), Refused> {
        let Prepared { loaded, section, plan, configured } = prepared;
        let held = self.pool.hold(configured);
        let plan = Arc::new(plan);
        let subscriber =
            Subscriber { plan: Arc::clone(&plan), queue: Arc::clone(held.queue()), latency };
        let (member, generation) = if let Some(old) = self.active.remove(name) {
            let member = self.reader.replace(old.member, subscriber);
            end(name, &old.running);
            (member, old.generation + 1)
        } else {
            (self.reader.add(subscriber), 1)
        };
        let running = match held.start() {
            Ok(running) => running,
            Err(error) => {
                self.reader.remove(member);
                self.outcome.metrics.remove(name);
                return Err(error.into());
            }
        };
        let events: Vec<&str> = running
            .manifest()
            .subscriptions
            .iter()
            .map(|subscription| subscription.event.as_str())
            .collect();
        tracing::info!(
            policy = name,
            version = running.manifest().version,
            generation,
            events = events.join(","),
            digest = %loaded.digest,
            "policy runs"
        );
        self.active.insert(
            name.to_owned(),
            Active { loaded, section, latency, generation, plan, member, running },
        );
        Ok(())
    }

    fn remove(&mut self, name: &str, why: &str) {
        let Some(active) = self.active.remove(name) else { return };
        self.reader.remove(active.member);
        end(name, &active.running);
        self.outcome.metrics.remove(name);
        self.outcome.counts.queue.remove(&PolicyLabels { policy: name.to_owned() });
        self.apply();
        tracing::info!(policy = name, "policy removed: {why}");
    }
}

fn end(name: &str, running: &Running) {
    if !running.stop(LAST_BATCHES) {
        tracing::warn!(policy = name, "policy did not take its last batches in time");
    }
}

fn shown(path: &Path) -> String {
    crate::escape::control(&path.to_string_lossy()).into_owned()
}
