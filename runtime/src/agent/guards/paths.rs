//! Rules about files and programs: what the governor decides is made a ruleset of Landlock, tried, and kept until
//! the command enters it.

use std::{collections::BTreeMap, time::Instant};

use super::{Became, By, Decision, Grant, GuardMode, Guards, Mode, Strength};
use crate::{
    exec::{
        Domain,
        domain::canary::{self, Unkept},
    },
    guard::paths::{HeldPaths, Home, PathAsk, PathTable, Resolved, action},
};

/// See the module's documentation.
pub(super) struct Paths {
    home: Home,
    /// What the command is to enter.
    made: BTreeMap<(String, Grant), Domain>,
    /// Whether the kernel keeps rules of a capability.
    proven: BTreeMap<Grant, Result<(), Unkept>>,
    /// Whether the command runs.
    is_over: bool,
}

impl Paths {
    pub fn new(home: Home) -> Self {
        Self { home, made: BTreeMap::new(), proven: BTreeMap::new(), is_over: false }
    }

    /// Whether rules of this capability are kept on this kernel, and else why not.
    pub fn prove(&mut self, grant: Grant) -> Result<(), String> {
        let told = |unkept: Unkept| unkept.to_string();
        if let Some(known) = self.proven.get(&grant) {
            return known.clone().map_err(told);
        }
        let found = canary::prove(PathTable::accesses(grant));
        if !matches!(found, Err(Unkept::Untried(_))) {
            self.proven.insert(grant, found.clone());
        }
        found.map_err(told)
    }

    /// Forgets what a policy asked for that does not run.
    pub fn forget(&mut self, policy: &str) {
        self.made.retain(|(of, _), _| of != policy);
    }
}

impl Guards {
    /// What the command has to enter; from now on it runs.
    pub fn domains(&mut self) -> Vec<Domain> {
        self.paths.is_over = true;
        std::mem::take(&mut self.paths.made).into_values().collect()
    }

    /// Makes a table about files or programs ready for the command, as far as that is allowed.
    pub(super) fn confine(&mut self, ask: PathAsk) {
        let begun = Instant::now();
        let PathAsk { policy, grant, table } = ask;
        let mut decision = self.decision(&policy, action(grant), By::Policy, "command".to_owned());
        decision.what = format!("default {}, {} rules", table.default, table.rules.len());
        if let Some(command) = &self.command {
            decision.cgroup = command.to_string_lossy().into_owned();
        }
        let (mode, why) = self.governor.mode(&policy);
        let result = match mode {
            _ if self.paths.is_over => Err((
                Became::Refused,
                "the command runs, and cannot be put under it any more".to_owned(),
            )),
            Mode::Observe => {
                Err((Became::Refused, format!("the mode is `observe`, nothing is done: {why}")))
            }
            // For the breaker: who fills the budget must not get rid of it.
            Mode::Audit if self.paths.made.contains_key(&(policy.to_string(), grant)) => {
                Ok((Became::Audited, format!("{why}; the table that was asked for before stays")))
            }
            Mode::Audit => self.note(&policy, grant, table).map(|()| (Became::Audited, why)),
            Mode::Enforce => {
                let ready = self.make(&mut decision, &policy, grant, table);
                ready.map(|()| (Became::Done, String::new()))
            }
        };
        decision.took_ns = Some(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let (became, reason) = result.unwrap_or_else(|refused| refused);
        self.conclude(decision, became, reason);
    }

    /// In audit nothing is put under Landlock: what events show is told.
    fn note(
        &mut self,
        policy: &str,
        grant: Grant,
        table: PathTable,
    ) -> Result<(), (Became, String)> {
        let resolved = Resolved::new(&table, &self.paths.home)
            .map_err(|error| (Became::Refused, error.to_string()))?;
        tracing::warn!(
            policy,
            "in audit nothing is put under Landlock: what rules about files and programs would deny is told as far as `open`, \
             `unlink`, `rename` and `exec` show it; of other calls (making directories and links, truncating by path) it is not known"
        );
        let held = HeldPaths { table, resolved, mode: GuardMode::Audit };
        self.outcome.desk.set_paths(policy, grant, held);
        Ok(())
    }

    fn make(
        &mut self,
        decision: &mut Decision,
        policy: &str,
        grant: Grant,
        table: PathTable,
    ) -> Result<(), (Became, String)> {
        let refused = |error: &dyn std::fmt::Display| (Became::Refused, error.to_string());
        let unproven = |reason: &dyn std::fmt::Display| {
            (Became::Refused, format!("it is not proven that rules deny here: {reason}"))
        };
        let accesses = PathTable::accesses(grant);
        let resolved = Resolved::new(&table, &self.paths.home).map_err(|error| refused(&error))?;
        let domain = Domain::new(&resolved, accesses).map_err(|error| refused(&error))?;
        self.paths.prove(grant).map_err(|reason| unproven(&reason))?;
        canary::prove_this(&domain, &resolved, accesses).map_err(|reason| unproven(&reason))?;
        Strength::Prevent.name().clone_into(&mut decision.strength);
        // First it is known what is going to be done, then it is done.
        if let Err(error) = self.records.write(decision) {
            return Err((Became::Failed, format!("the decision cannot be recorded: {error}")));
        }
        self.paths.made.insert((policy.to_owned(), grant), domain);
        let held = HeldPaths { table, resolved, mode: GuardMode::Enforce };
        self.outcome.desk.set_paths(policy, grant, held);
        Ok(())
    }
}
