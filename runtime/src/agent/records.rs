//! The records of decisions: on disk, in the log, and counted.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    guard::{Decision, Decisions, Governor, Mode, Outcome},
    outcome::{ActionLabels, AgentMetrics},
    trust::TrustError,
};

/// Who asked for what is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Policy,
    Operator,
    Agent,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Operator => "operator",
            Self::Agent => "agent",
        }
    }
}

/// See the module's documentation.
pub(super) struct Records {
    decisions: Option<Decisions>,
    counts: Arc<AgentMetrics>,
    /// What begins the ids of this agent's decisions.
    stamp: String,
    /// Number of the last decision.
    decided: u64,
    /// What was not done as it should have been in enforce mode, until the agent is ready.
    missed: Option<Vec<Decision>>,
}

impl Records {
    /// Records in this directory; without one they are only logged and counted.
    pub fn open(directory: Option<&Path>, counts: &Arc<AgentMetrics>) -> Result<Self, TrustError> {
        Ok(Self {
            decisions: directory.map(Decisions::open).transpose()?,
            counts: Arc::clone(counts),
            stamp: format!("{:x}", wall().as_millis()),
            decided: 0,
            missed: Some(Vec::new()),
        })
    }

    /// A decision that is not made yet. Without a policy it is about all of them.
    pub fn draft(
        &mut self,
        governor: &Governor,
        policy: &str,
        action: &str,
        by: By,
        scope: String,
    ) -> Decision {
        self.decided += 1;
        let member = governor.member(policy);
        let mode = if policy.is_empty() { governor.agent_mode() } else { governor.mode(policy).0 };
        Decision {
            id: format!("{}-{}", self.stamp, self.decided),
            time_ns: 0,
            policy: policy.to_owned(),
            digest: member.map(|member| member.digest.clone()).unwrap_or_default(),
            generation: member.map_or(0, |member| member.generation),
            action: action.to_owned(),
            by: by.name().to_owned(),
            scope,
            cgroup: String::new(),
            mode: mode.name().to_owned(),
            strength: String::new(),
            outcome: Outcome::Decided,
            reason: String::new(),
            what: String::new(),
            conflicts: Vec::new(),
            target: None,
            tree: Vec::new(),
            latency_ns: None,
            took_ns: None,
        }
    }

    /// Puts it on disk as it is, before it is done.
    pub fn write(&mut self, decision: &mut Decision) -> io::Result<()> {
        decision.time_ns = u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX);
        self.decisions.as_mut().map_or(Ok(()), |decisions| decisions.write(decision))
    }

    /// Hands it to the kernel as it is, before it is done, where that cannot wait for the disk.
    pub fn append(&mut self, decision: &mut Decision) -> io::Result<()> {
        decision.time_ns = u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX);
        self.decisions.as_mut().map_or(Ok(()), |decisions| decisions.append(decision))
    }

    /// Returns when all records are on disk.
    pub fn sync(&mut self) {
        if let Some(Err(error)) = self.decisions.as_mut().map(Decisions::sync) {
            tracing::error!(%error, "decisions cannot be recorded");
        }
    }

    /// What was missed at the start, which is over.
    pub fn started(&mut self) -> Vec<Decision> {
        self.missed.take().unwrap_or_default()
    }

    /// Notes, at the start, that what a policy wanted in enforce mode is not done.
    pub fn missed(&mut self, decision: &Decision, reason: &str) {
        if let Some(missed) = &mut self.missed {
            missed.push(Decision { reason: reason.to_owned(), ..decision.clone() });
        }
    }

    /// Records, tells and counts what became of it.
    pub fn conclude(&mut self, decision: Decision, became: Outcome, reason: String) {
        self.conclude_unsynced(decision, became, reason);
        self.sync();
    }

    /// The same, without waiting for the disk: [`Self::sync`] does.
    pub fn conclude_unsynced(&mut self, mut decision: Decision, became: Outcome, reason: String) {
        (decision.outcome, decision.reason) = (became, reason);
        if let Err(error) = self.append(&mut decision) {
            tracing::error!(id = decision.id, %error, "a decision cannot be recorded");
        }
        let is_missed = matches!(became, Outcome::Refused | Outcome::Failed | Outcome::Undone);
        if is_missed && decision.mode == Mode::Enforce.name() {
            self.missed(&decision, &decision.reason);
        }
        let Decision { id, policy, scope, mode, .. } = &decision;
        if is_missed {
            tracing::warn!(id, policy, scope, mode, "{decision}");
        } else {
            tracing::info!(id, policy, scope, mode, "{decision}");
        }
        let labels = ActionLabels {
            policy: decision.policy,
            action: decision.action,
            outcome: became.name().to_owned(),
        };
        self.counts.actions.get_or_create(&labels).inc();
    }
}

/// Time since 1970.
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
