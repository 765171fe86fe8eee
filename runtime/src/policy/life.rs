//! The states that a policy goes through, each told in the log and counted.

use std::{fmt, sync::Arc};

use crate::outcome::{AgentMetrics, TransitionLabels};

/// How a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// Its file is compiled, and has described itself.
    Loaded,
    /// An instance took its settings.
    Configured,
    /// What it asks for is resolved on this kernel, and its probes are attached.
    Planned,
    /// An instance takes batches.
    Running,
    /// The instance was lost; another one will be started.
    Restarting,
    /// Too many instances were lost: what comes is dropped, until the policy is replaced or removed.
    Quarantined,
    /// Another generation runs in its place.
    Replaced,
    /// It is gone.
    Removed,
    /// The agent ended.
    Stopped,
}

impl Life {
    /// All states, with the names that the log and metrics use.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Loaded, "loaded"),
        (Self::Configured, "configured"),
        (Self::Planned, "planned"),
        (Self::Running, "running"),
        (Self::Restarting, "restarting"),
        (Self::Quarantined, "quarantined"),
        (Self::Replaced, "replaced"),
        (Self::Removed, "removed"),
        (Self::Stopped, "stopped"),
    ];

    /// Name in the log and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(life, _)| *life == self).map_or("", |(_, name)| name)
    }

    pub(super) fn from_number(number: u8) -> Self {
        Self::ALL
            .iter()
            .map(|(life, _)| *life)
            .find(|life| *life as u8 == number)
            .unwrap_or(Self::Stopped)
    }
}

/// One generation of a policy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Generation {
    policy: Arc<str>,
    number: u32,
    counts: Arc<AgentMetrics>,
}

impl Generation {
    /// The generation of that number, from 1.
    #[must_use]
    pub fn new(policy: &str, number: u32, counts: &Arc<AgentMetrics>) -> Self {
        Self { policy: policy.into(), number, counts: Arc::clone(counts) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The one after it.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { number: self.number + 1, ..self.clone() }
    }

    /// Says that it came into this state, and how that came.
    pub fn enters(&self, life: Life, how: &dyn fmt::Display) {
        let (policy, generation, state) = (&*self.policy, self.number, life.name());
        match life {
            Life::Restarting | Life::Quarantined => {
                tracing::error!(policy, generation, state, "{how}");
            }
            // On the way to the next state, or as the agent itself says.
            Life::Configured | Life::Planned | Life::Stopped => {
                tracing::debug!(policy, generation, state, "{how}");
            }
            Life::Loaded | Life::Running | Life::Replaced | Life::Removed => {
                tracing::info!(policy, generation, state, "{how}");
            }
        }
        let labels = TransitionLabels { policy: policy.to_owned(), state: state.to_owned() };
        self.counts.transitions.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_one_name_and_one_number() {
        for (number, (life, name)) in (0u8..).zip(Life::ALL) {
            assert_eq!((*life as u8, life.name()), (number, *name));
            assert_eq!(Life::from_number(number), *life);
        }
    }

    #[test]
    fn every_transition_is_counted() {
        let counts = Arc::new(AgentMetrics::default());
        let first = Generation::new("p", 1, &counts);
        first.enters(Life::Running, &"");
        let second = first.next();
        second.enters(Life::Running, &"");
        let labels = TransitionLabels { policy: "p".into(), state: "running".into() };
        assert_eq!(counts.transitions.get_or_create_owned(&labels).get(), 2);
        assert_eq!((first.number(), second.number()), (1, 2));
    }
}
