//! Alerts on their way from policies to the sink: bounded, limited per policy, never blocking.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam_channel::{Receiver, Sender};

use super::{AgentMetrics, PolicyLabels, Rate};

/// An alert that a policy raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Name of the policy.
    pub policy: String,
    /// When it was raised, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What happened, for a human. May hold any character: sinks escape it.
    pub message: String,
    /// Names and values.
    pub labels: Vec<(String, String)>,
}

/// How bad something is, with the numbers that policies use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// 0: worth knowing.
    Info,
    /// 1: someone should look.
    Warning,
    /// 2: someone should look now.
    Critical,
}

impl Severity {
    /// The severity of that number. The contract may grow: a number above the known is critical.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Info,
            1 => Self::Warning,
            _ => Self::Critical,
        }
    }

    /// Name in JSON and text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// It is on its way to the sink.
    Sent,
    /// The policy raises more than it may: dropped and counted.
    Limited,
    /// The sink does not keep up: dropped and counted.
    Full,
}

/// The way to the sink. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Alerts {
    to_sink: Sender<Alert>,
    counts: Arc<AgentMetrics>,
}

impl Alerts {
    /// A way that holds at most `capacity` alerts, and its end for the sink.
    #[must_use]
    pub fn new(capacity: usize, counts: Arc<AgentMetrics>) -> (Self, Receiver<Alert>) {
        let (to_sink, from_policies) = crossbeam_channel::bounded(capacity);
        (Self { to_sink, counts }, from_policies)
    }

    /// The way for one policy, with its limit. The limit belongs to the policy's name: keep it when
    /// an instance restarts or a generation is replaced, or that gives a fresh burst.
    #[must_use]
    pub fn policy(&self, name: &str, rate: Arc<Mutex<Rate>>) -> PolicyAlerts {
        PolicyAlerts { way: self.clone(), labels: PolicyLabels { policy: name.to_owned() }, rate }
    }
}

/// The way for one policy. Cheap to clone; clones share the limit.
#[derive(Debug, Clone)]
pub struct PolicyAlerts {
    way: Alerts,
    labels: PolicyLabels,
    rate: Arc<Mutex<Rate>>,
}

impl PolicyAlerts {
    /// Sends an alert of this policy. Never blocks.
    pub fn raise(
        &self,
        wall_ns: u64,
        severity: Severity,
        message: String,
        labels: Vec<(String, String)>,
    ) -> Raised {
        let AgentMetrics { alerts, alerts_limited, alerts_dropped, .. } = &*self.way.counts;
        if !self.rate.lock().unwrap_or_else(PoisonError::into_inner).allow() {
            alerts_limited.get_or_create(&self.labels).inc();
            return Raised::Limited;
        }
        let alert =
            Alert { policy: self.labels.policy.clone(), wall_ns, severity, message, labels };
        if self.way.to_sink.try_send(alert).is_err() {
            alerts_dropped.get_or_create(&self.labels).inc();
            return Raised::Full;
        }
        alerts.get_or_create(&self.labels).inc();
        Raised::Sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(way: &PolicyAlerts) -> Raised {
        way.raise(7, Severity::Warning, "m".into(), vec![])
    }

    #[test]
    fn each_alert_is_sent_limited_or_dropped_and_counted_as_such() {
        let counts = Arc::new(AgentMetrics::default());
        let (alerts, sink) = Alerts::new(3, Arc::clone(&counts));
        let rate = || Arc::new(Mutex::new(Rate::new(1, 2)));
        let (noisy, calm) = (alerts.policy("noisy", rate()), alerts.policy("calm", rate()));
        assert_eq!(
            [(); 4].map(|()| raise(&noisy)),
            [Raised::Sent, Raised::Sent, Raised::Limited, Raised::Limited]
        );
        assert_eq!([(); 2].map(|()| raise(&calm)), [Raised::Sent, Raised::Full]);
        assert_eq!(
            sink.try_iter().map(|alert| alert.policy).collect::<Vec<_>>(),
            ["noisy", "noisy", "calm"]
        );
        let count = |family: &super::super::agent_metrics::PerPolicy, policy: &str| {
            family.get_or_create(&PolicyLabels { policy: policy.into() }).get()
        };
        assert_eq!([count(&counts.alerts, "noisy"), count(&counts.alerts, "calm")], [2, 1]);
        assert_eq!(
            [count(&counts.alerts_limited, "noisy"), count(&counts.alerts_limited, "calm")],
            [2, 0]
        );
        assert_eq!(
            [count(&counts.alerts_dropped, "noisy"), count(&counts.alerts_dropped, "calm")],
            [0, 1]
        );
    }

    #[test]
    fn clones_share_the_limit() {
        let (alerts, _sink) = Alerts::new(9, Arc::default());
        let way = alerts.policy("p", Arc::new(Mutex::new(Rate::new(1, 1))));
        assert_eq!([raise(&way), raise(&way.clone())], [Raised::Sent, Raised::Limited]);
    }
}
