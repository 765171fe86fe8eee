//! What is kept for a policy's name, whatever becomes of its instances and generations: a policy that
//! is lost or replaced gets no second burst.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::state::Store;
use crate::{
    guard::{Desk, PolicyDesk},
    outcome::{
        AgentMetrics, Alerts, LimitLabels, Metrics, PolicyAlerts, PolicyLabels, PolicyMetrics, Rate,
    },
    policy::{Limits, counts},
};

/// Where policies' output goes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The registry of their metrics.
    pub metrics: Metrics,
    /// The way of their alerts.
    pub alerts: Alerts,
    /// What the agent counts.
    pub counts: Arc<AgentMetrics>,
    /// Where they ask for actions.
    pub desk: Desk,
    kept: Arc<Mutex<HashMap<String, Kept>>>,
}

/// What is kept for one name. Cheap to clone.
#[derive(Debug, Clone)]
struct Kept {
    alert_rate: Arc<Mutex<Rate>>,
    log_rate: Arc<Mutex<Rate>>,
    store: Arc<Mutex<Store>>,
}

/// The output of one generation of a policy: what its instances share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyOutcome {
    /// Name of the policy.
    pub name: Arc<str>,
    /// Its metrics.
    pub metrics: PolicyMetrics,
    /// The way of its alerts.
    pub(super) alerts: PolicyAlerts,
    /// How many log lines it may write.
    pub(super) log_rate: Arc<Mutex<Rate>>,
    /// How many alerts, which the generations share, too.
    alert_rate: Arc<Mutex<Rate>>,
    /// How many of each this generation may have, once it runs.
    own_rates: (Rate, Rate),
    /// Log lines that were too many.
    pub(super) log_limited: Counter,
    /// Series of metrics that were too many.
    pub(super) series_limited: Counter,
    /// What it keeps.
    pub(super) store: Arc<Mutex<Store>>,
    /// How much it may keep, in bytes.
    pub(super) store_limit: usize,
    /// How much it keeps.
    pub(super) store_bytes: Gauge,
    /// What it wanted to keep and could not.
    pub(super) store_refused: Counter,
    /// Where it asks for actions.
    pub(super) desk: PolicyDesk,
    counts: Arc<AgentMetrics>,
}

impl Outcome {
    /// The ways out, for all policies. Nobody acts for them: their mode is observe.
    #[must_use]
    pub fn new(metrics: Metrics, alerts: Alerts, counts: Arc<AgentMetrics>) -> Self {
        let (desk, _) = Desk::new(false);
        Self { metrics, alerts, counts, desk, kept: Arc::default() }
    }

    /// The same with a desk at which they ask for actions.
    #[must_use]
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk, ..self }
    }

    /// The output of a new generation.
    pub(in crate::policy) fn begin(&self, name: &str, limits: &Limits) -> PolicyOutcome {
        let alert_rate = Rate::new(limits.alerts_per_minute, limits.alerts_burst);
        let log_rate = Rate::new(limits.log_lines_per_minute, limits.log_lines_burst);
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = if let Some(kept) = all.get(name) {
            kept.clone()
        } else {
            let shared = |rate: &Rate| Arc::new(Mutex::new(rate.clone()));
            let kept = Kept {
                alert_rate: shared(&alert_rate),
                log_rate: shared(&log_rate),
                store: Arc::default(),
            };
            all.insert(name.to_owned(), kept.clone());
            kept
        };
        let labels = PolicyLabels { policy: name.to_owned() };
        let limited = |limit: &str| {
            let labels = LimitLabels { policy: name.to_owned(), limit: limit.to_owned() };
            self.counts.limits_reached.get_or_create_owned(&labels)
        };
        PolicyOutcome {
            name: name.into(),
            metrics: self.metrics.begin(name, limits.series),
            alerts: self.alerts.policy(name, Arc::clone(&kept.alert_rate)),
            alert_rate: kept.alert_rate,
            log_rate: kept.log_rate,
            own_rates: (alert_rate, log_rate),
            log_limited: self.counts.log_lines_limited.get_or_create_owned(&labels),
            series_limited: limited("series"),
            store: kept.store,
            store_limit: limits.state,
            store_bytes: self.counts.state.get_or_create_owned(&labels),
            store_refused: limited("state"),
            desk: self.desk.policy(name, limits),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Forgets a policy that is gone, or that did not come to run.
    pub fn forget(&self, name: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.counts.state.remove(&PolicyLabels { policy: name.to_owned() });
        self.metrics.remove(name);
    }
}

impl PolicyOutcome {
    /// Counts that the policy reached the limit of that key.
    pub(super) fn limit_reached(&self, key: &str) {
        counts::limit_reached(&self.counts, &self.name, key);
    }

    /// The generation takes over: from now on its own limits count, which until then were those of the
    /// one before it.
    pub(in crate::policy) fn takes_over(&self) {
        for (rate, own) in
            [(&self.alert_rate, &self.own_rates.0), (&self.log_rate, &self.own_rates.1)]
        {
            rate.lock().unwrap_or_else(PoisonError::into_inner).limit_to(own);
        }
    }
}
