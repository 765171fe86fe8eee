//! What the governor decides is done here: tables are put in force and taken out, each decision is
//! recorded before and after, and what the kernel denied is counted.

mod arguments;
mod paths;
mod signals;
mod tree;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    Charge, canary,
    force::{Force, Key},
    records::{By, Records, wall},
};
use crate::{
    clock,
    config::{self, Config},
    guard::{
        Action, Ask, Decision, Governor, Grant, GuardMode, Mode, OnQuarantine, Outcome as Became,
        Protected, Protection, Scope, Strength, Told, denied_elsewhere,
        governor::{InForce, Member, Switch, Verdict},
    },
    mountinfo,
    outcome::{Rate, Severity},
    policy::Outcome,
    probe::Probes,
    trust::TrustError,
};

use arguments::Arguments;

/// Alerts of the agent's own about one policy.
const ALERTS_PER_MINUTE: u32 = 6;

/// See the module's documentation.
pub(super) struct Guards {
    governor: Governor,
    force: Force,
    records: Records,
    protection: Protection,
    command: Option<PathBuf>,
    /// Whether rules deny here.
    proof: canary::Proof,
    arguments: Arguments,
    /// Rules about files and programs.
    paths: paths::Paths,
    outcome: Outcome,
}

/// How a policy stands.
pub(super) struct PolicyMode {
    pub policy: String,
    pub mode: Mode,
    /// Why it goes no further.
    pub why: String,
    /// Where it has tables, and whether they deny.
    pub scopes: Vec<(Scope, GuardMode)>,
}

impl Guards {
    pub fn new(config: &Config, charge: &Charge, outcome: Outcome) -> Result<Self, TrustError> {
        let mut guards = Self {
            governor: Governor::new(outcome.desk.clone(), config.agent.mode),
            force: Force::new(charge.keep.clone(), &outcome.counts),
            records: Records::open(charge.decisions.as_deref(), &outcome.counts)?,
            protection: Protection::default(),
            command: charge.command.clone(),
            proof: canary::Proof::default(),
            arguments: Arguments::new(),
            paths: paths::Paths::new(charge.paths.clone()),
            outcome,
        };
        guards.take_over(config);
        Ok(guards)
    }

    /// Whether tables are to be put in force again.
    fn take_over(&mut self, config: &Config) -> bool {
        let guard = &config.guard;
        self.outcome.desk.limit(guard.actions_per_minute, guard.breaker);
        self.protection = Protection {
            agent: vec![std::process::id()],
            within: self.command.clone(),
            ..Protection::default()
        };
        for protected in &guard.protected {
            match protected {
                config::Protected::Cgroup(path) => self.protection.cgroups.push(path.clone()),
                config::Protected::Executable(path) => {
                    self.protection.executables.push(path.clone());
                }
            }
        }
        self.governor.configure(config.agent.mode, &guard.always_allow)
    }

    /// Takes over the configuration, and what it makes of the policies that run: tables follow the modes,
    /// have the operator's exceptions, and leave those that are protected now alone.
    pub fn configure(
        &mut self,
        config: &Config,
        members: Vec<(String, Member)>,
        probes: &mut Probes,
    ) {
        let is_other = self.take_over(config);
        // All of it is known before anything is switched.
        for (policy, member) in members {
            self.governor.admit(&policy, member);
        }
        self.switch("mode", By::Operator, probes);
        self.spare_protected();
        if !is_other {
            return;
        }
        let tables: Vec<_> = self
            .governor
            .in_force()
            .map(|(policy, scope, table)| (policy.to_owned(), scope.clone(), table.clone()))
            .collect();
        for (policy, scope, table) in tables {
            let table = table.table(self.governor.always(), clock::since_boot());
            let result = self.force.install(&(policy.clone(), scope.clone()), &table);
            let decision = self.decision(&policy, "always-allow", By::Operator, scope.to_string());
            match result {
                Ok(()) => self.conclude(decision, Became::Done, String::new()),
                Err(error) => self.conclude(decision, Became::Failed, error),
            }
        }
    }

    /// Takes tables out of force where someone is inside who may not be reached now.
    fn spare_protected(&mut self) {
        let scopes =
            self.governor.in_force().map(|(policy, scope, _)| (policy.to_owned(), scope.clone()));
        for (policy, scope) in scopes.collect::<Vec<_>>() {
            let Ok((mount, directory)) = self.directory(&scope) else { continue };
            match self.protection.check(&mount, &directory) {
                // Nobody is known to be concerned.
                Ok(()) | Err(Protected::Missing(_) | Protected::Unknown { .. }) => {}
                Err(protected) => {
                    let decision =
                        self.decision(&policy, "protect", By::Operator, scope.to_string());
                    let gone = self.force.let_go(&(policy.clone(), scope.clone()));
                    self.governor.removed(&policy, &scope);
                    let (became, reason) = undone(gone, &protected);
                    self.conclude(decision, became, reason);
                }
            }
        }
    }

    /// How far the agent goes.
    pub fn agent_mode(&self) -> Mode {
        self.governor.agent_mode()
    }

    /// How far a policy goes.
    pub fn mode(&self, policy: &str) -> Mode {
        self.governor.mode(policy).0
    }

    /// Takes in a policy, before it is given its settings: from now on it may ask for actions.
    pub fn admit(&mut self, policy: &str, member: Member, probes: &mut Probes) {
        self.governor.admit(policy, member);
        self.switch("mode", By::Operator, probes);
    }

    /// A policy is gone, and so are its tables.
    pub fn remove(&mut self, policy: &str) {
        self.paths.forget(policy);
        for scope in self.governor.forget(policy) {
            let mut decision = self.decision(policy, "release", By::Agent, scope.to_string());
            "observe".clone_into(&mut decision.mode);
            self.release(decision, policy, scope, "the policy is gone");
        }
    }

    /// A policy is quarantined: its tables stay or go, as its section says.
    pub fn quarantined(&mut self, policy: &str, then: OnQuarantine) {
        let scopes: Vec<Scope> =
            self.governor.scopes(policy).map(|(scope, _)| scope.clone()).collect();
        if scopes.is_empty() {
            return;
        }
        let message = match then {
            OnQuarantine::Hold => {
                "the policy is quarantined, and its rules stay in force: `tipstaff release` takes them out"
            }
            OnQuarantine::Release => "the policy is quarantined, and its rules are out of force",
        };
        let rate = Arc::new(Mutex::new(Rate::new(ALERTS_PER_MINUTE, ALERTS_PER_MINUTE)));
        let labels = scopes.iter().map(|scope| ("scope".to_owned(), scope.to_string())).take(1);
        let wall_ns = u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX);
        self.outcome.alerts.policy(policy, rate).raise(
            wall_ns,
            Severity::Critical,
            message.to_owned(),
            labels.collect(),
        );
        for scope in scopes {
            let decision = self.decision(policy, "quarantine", By::Agent, scope.to_string());
            match then {
                OnQuarantine::Hold => {
                    let reason = "`on_quarantine` is `hold`: the table stays in force";
                    self.conclude(decision, Became::Done, reason.to_owned());
                }
                OnQuarantine::Release => {
                    self.release(decision, policy, scope, "`on_quarantine` is `release`");
                }
            }
        }
    }

    /// What was to be done in enforce mode until now, at the start, and was not.
    pub fn started(&mut self) -> Vec<Decision> {
        self.records.started()
    }

    /// Does what was asked for, as far as that is allowed.
    pub fn take(&mut self, told: Told, probes: &mut Probes) {
        match told {
            Told::Ask(ask) => self.act(&ask, probes),
            Told::Signal(ask) => self.signal(&ask, probes),
            Told::Paths(ask) => self.confine(ask),
            Told::Refused { policy, scope, action, reason } => {
                let decision = self.decision(&policy, action, By::Policy, scope);
                self.conclude(decision, Became::Refused, reason);
            }
            Told::Tripped(policy) => {
                let mode = self.governor.mode(&policy).0;
                if self.governor.trip(&policy) {
                    let decision = self.decision(&policy, "breaker", By::Agent, String::new());
                    let reason = format!(
                        "it asks for more actions than `breaker` in [guard] allows: from now on it is only audited, \
                         until `tipstaff mode enforce --policy {policy}`; what is in force stays"
                    );
                    if mode == Mode::Enforce {
                        self.records.missed(&decision, &reason);
                    }
                    self.conclude(decision, Became::Done, reason);
                }
                self.switch("mode", By::Agent, probes);
            }
        }
    }

    fn act(&mut self, ask: &Ask, probes: &mut Probes) {
        let begun = Instant::now();
        let Ask { policy, scope, action, .. } = ask;
        let mut decision = self.decision(policy, action.name(), By::Policy, scope.to_string());
        decision.what = match action {
            Action::Set { table, .. } => {
                format!("default {}, {} rules", table.default, table.len())
            }
            Action::Add(rule) => rule.to_string(),
            Action::Clear => String::new(),
        };
        match self.governor.decide(ask, clock::since_boot()) {
            Verdict::Refuse(reason) => self.conclude(decision, Became::Refused, reason),
            Verdict::Audit(reason) => self.conclude(decision, Became::Audited, reason.to_owned()),
            Verdict::Remove => {
                self.release(decision, policy, scope.clone(), "the policy asked for it");
            }
            Verdict::Install(table) => {
                let (became, reason) = self.install(&mut decision, ask, &table, probes);
                let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                decision.took_ns = Some(took);
                self.conclude(decision, became, reason);
            }
        }
        if !self.governor.scopes(policy).any(|(other, _)| other == scope) {
            // Nothing is kept for a scope without a table.
            self.governor.removed(policy, scope);
        }
        self.governor.acted(ask);
    }

    /// Puts a table in force, if no one protected is concerned.
    fn install(
        &mut self,
        decision: &mut Decision,
        ask: &Ask,
        table: &InForce,
        probes: &mut Probes,
    ) -> (Became, String) {
        let Ask { policy, scope, .. } = ask;
        let (mount, directory) = match self.directory(scope) {
            Ok(found) => found,
            Err(reason) => return (Became::Refused, reason),
        };
        decision.cgroup = directory.to_string_lossy().into_owned();
        table.mode().to_string().clone_into(&mut decision.mode);
        if let Err(protected) = self.protection.check(&mount, &directory) {
            return (Became::Refused, protected.to_string());
        }
        if let Err(reason) = self.promise(decision, table.mode(), probes) {
            return (Became::Refused, reason);
        }
        decision.conflicts = self.conflicts(policy, &directory, table);
        // First it is known what is going to be done, then it is done.
        if let Err(error) = self.records.write(decision) {
            return (Became::Failed, format!("the decision cannot be recorded: {error}"));
        }
        let key: Key = (policy.to_string(), scope.clone());
        let rules = table.table(self.governor.always(), clock::since_boot());
        let put = self.force.put(&key, &directory, ask.guard, table.mode(), &rules, probes);
        if let Err(error) = put {
            return (Became::Failed, error);
        }
        self.governor.installed(policy, scope, table.clone());
        // Someone may have come in meanwhile.
        if let Err(protected) = self.protection.check(&mount, &directory) {
            let gone = self.force.let_go(&key);
            self.governor.removed(policy, scope);
            return undone(gone, &protected);
        }
        match table.mode() {
            GuardMode::Enforce => (Became::Done, String::new()),
            GuardMode::Audit => {
                let (_, why) = self.governor.mode(policy);
                let why =
                    if why.is_empty() { "the policy only wants to log".to_owned() } else { why };
                (Became::Audited, why)
            }
        }
    }

    /// Notes what a table promises in this mode. In audit nothing is tried: it would be a change to the
    /// machine.
    fn promise(
        &mut self,
        decision: &mut Decision,
        mode: GuardMode,
        probes: &mut Probes,
    ) -> Result<(), String> {
        let proven = match mode {
            GuardMode::Enforce => Some(self.prove_network(probes)),
            GuardMode::Audit => self.proof.known().cloned(),
        };
        match (proven, mode) {
            (Some(Ok(())), _) => {
                Strength::Prevent.name().clone_into(&mut decision.strength);
                Ok(())
            }
            (Some(Err(reason)), GuardMode::Enforce) => {
                Err(format!("it is not proven that rules deny here: {reason}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether rules of this capability deny on this kernel, and else why that is not so.
    pub fn prove(&mut self, grant: Grant, probes: &mut Probes) -> Result<(), String> {
        match grant {
            Grant::Network => self.prove_network(probes).map_err(|unproven| unproven.to_string()),
            Grant::File | Grant::Exec => self.paths.prove(grant),
            // These are what they are on every kernel.
            Grant::Signal | Grant::Urgent => Ok(()),
        }
    }

    fn prove_network(&mut self, probes: &mut Probes) -> Result<(), canary::Unproven> {
        self.proof.get(|| canary::prove(probes))
    }

    /// The mount of the hierarchy, and the directory of the cgroup that a scope is.
    fn directory(&self, scope: &Scope) -> Result<(PathBuf, PathBuf), String> {
        let mount = mountinfo::cgroup_v2().map_err(|error| error.to_string())?;
        let directory = match scope {
            Scope::Command => self.command.clone().ok_or("there is no scope `command` here")?,
            Scope::Cgroup(path) => mount.join(path.trim_start_matches('/')),
        };
        Ok((mount, directory))
    }

    /// Tables of other policies that deny what this one allows, or the other way round, where their
    /// scopes overlap.
    fn conflicts(&self, policy: &str, directory: &Path, table: &InForce) -> Vec<String> {
        let now = clock::since_boot();
        let mine = table.table(&[], now);
        let others = self.governor.in_force().filter(|(other, ..)| *other != policy);
        let mut conflicts = Vec::new();
        for (other, scope, theirs) in others {
            let Ok((_, there)) = self.directory(scope) else { continue };
            if !there.starts_with(directory) && !directory.starts_with(&there) {
                continue;
            }
            let theirs = theirs.table(&[], now);
            if let Some(what) = denied_elsewhere(&mine, &theirs) {
                conflicts.push(format!("the table of `{other}` in {scope}: {what}"));
            }
            if let Some(what) = denied_elsewhere(&theirs, &mine) {
                conflicts.push(format!("this table, against that of `{other}` in {scope}: {what}"));
            }
        }
        conflicts
    }

    /// Brings all tables to the modes of now; the decisions about that have this name.
    fn switch(&mut self, action: &'static str, by: By, probes: &mut Probes) {
        for Switch { policy, scope, to } in self.governor.switches() {
            let mut decision = self.decision(&policy, action, by, scope.to_string());
            let (_, why) = self.governor.mode(&policy);
            let Some(to) = to else {
                self.release(decision, &policy, scope, &why);
                continue;
            };
            to.to_string().clone_into(&mut decision.mode);
            // Someone protected may have come in while nothing was denied.
            let reached = self
                .directory(&scope)
                .and_then(|(mount, directory)| {
                    let checked = self.protection.check(&mount, &directory);
                    checked.map_err(|error| error.to_string())
                })
                .and_then(|()| self.promise(&mut decision, to, probes));
            if let (GuardMode::Enforce, Err(reason)) = (to, reached) {
                // Said once: what is not done now is asked for again by who wants it.
                let gone = self.force.let_go(&(policy.clone(), scope.clone()));
                self.governor.removed(&policy, &scope);
                match gone {
                    Ok(()) => self.conclude(decision, Became::Refused, reason),
                    Err(error) => self.conclude(decision, Became::Failed, error),
                }
                continue;
            }
            match self.force.set_mode(&(policy.clone(), scope.clone()), to, probes) {
                Ok(()) => {
                    self.governor.switched(&policy, &scope, to);
                    self.conclude(decision, Became::Done, why);
                }
                Err(error) => self.conclude(decision, Became::Failed, error),
            }
        }
    }

    /// Lets the operator say how far the agent or a policy goes.
    pub fn set_mode(
        &mut self,
        policy: Option<&str>,
        mode: Mode,
        probes: &mut Probes,
    ) -> Result<(), String> {
        self.governor.set_mode(policy, mode)?;
        let mut decision =
            self.decision(policy.unwrap_or_default(), "mode", By::Operator, String::new());
        mode.name().clone_into(&mut decision.mode);
        self.conclude(decision, Became::Done, "`tipstaff mode`".to_owned());
        self.switch("mode", By::Operator, probes);
        Ok(())
    }

    /// Takes all tables of a policy, or of all policies, out of force. The mode of the policy, or of the
    /// agent, is then observe: else they would be back at once. How many there were.
    pub fn release_all(
        &mut self,
        policy: Option<&str>,
        probes: &mut Probes,
    ) -> Result<usize, String> {
        let before = self.force.len();
        self.governor.set_mode(policy, Mode::Observe)?;
        self.switch("release", By::Operator, probes);
        let released = before - self.force.len();
        let mut decision =
            self.decision(policy.unwrap_or_default(), "release", By::Operator, String::new());
        Mode::Observe.name().clone_into(&mut decision.mode);
        self.conclude(decision, Became::Done, format!("`tipstaff release`: {released} tables"));
        Ok(released)
    }

    /// How all policies stand.
    pub fn modes(&self) -> Vec<PolicyMode> {
        let of = |(name, mode, why): (&str, Mode, String)| PolicyMode {
            policy: name.to_owned(),
            mode,
            why,
            scopes: self
                .governor
                .scopes(name)
                .map(|(scope, table)| (scope.clone(), table.mode()))
                .collect(),
        };
        self.governor.modes().map(of).collect()
    }

    fn release(&mut self, decision: Decision, policy: &str, scope: Scope, why: &str) {
        let key: Key = (policy.to_owned(), scope);
        let gone = self.force.let_go(&key);
        self.governor.removed(policy, &key.1);
        match gone {
            Ok(()) => self.conclude(decision, Became::Done, why.to_owned()),
            Err(error) => self.conclude(decision, Became::Failed, error),
        }
    }

    /// Counts what was denied, and lets go of tables whose cgroups are gone.
    pub fn look(&mut self) {
        for (policy, scope) in self.force.look() {
            let decision = self.decision(&policy, "release", By::Agent, scope.to_string());
            self.release(decision, &policy, scope, "its cgroup is gone");
        }
    }

    /// Counts what was denied until now.
    pub fn count(&mut self) {
        self.force.count_all();
    }

    /// Returns when the decisions until now are on disk.
    pub fn sync(&mut self) {
        self.records.sync();
    }

    /// A decision that is not made yet.
    fn decision(&mut self, policy: &str, action: &str, by: By, scope: String) -> Decision {
        self.records.draft(&self.governor, policy, action, by, scope)
    }

    fn conclude(&mut self, decision: Decision, became: Became, reason: String) {
        self.records.conclude(decision, became, reason);
    }
}

/// What became of a table that reached someone protected.
fn undone(gone: Result<(), String>, protected: &Protected) -> (Became, String) {
    match gone {
        Ok(()) => (Became::Undone, protected.to_string()),
        Err(error) => (Became::Failed, format!("{protected}; {error}")),
    }
}
