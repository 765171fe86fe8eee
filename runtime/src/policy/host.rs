//! What the host offers to guests: one file per interface, and the state that belongs to an
//! instance. Whatever comes from a guest is hostile: numbers are clamped, texts cut, rates limited.

mod alerts;
mod log;
mod metrics;

use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use wasmtime::component::{HasSelf, Linker, ResourceTable};

use super::{Limits, bindings::Author, deadline::Deadline, limiter::Limiter};
use crate::outcome::{
    AgentMetrics, Alerts, Metrics, PolicyAlerts, PolicyLabels, PolicyMetrics, Rate,
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
}

/// The output of one generation of a policy: what its instances share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyOutcome {
    /// Name of the policy.
    pub name: Arc<str>,
    /// Its metrics.
    pub metrics: PolicyMetrics,
    alerts: PolicyAlerts,
    log_rate: Arc<Mutex<Rate>>,
    log_limited: Counter,
}

impl PolicyOutcome {
    /// The output of a new generation.
    pub fn new(outcome: &Outcome, name: &str, limits: &Limits) -> Self {
        let labels = PolicyLabels { policy: name.to_owned() };
        let alert_rate = Rate::new(limits.alerts_per_minute, limits.alerts_burst);
        let log_rate = Rate::new(limits.log_lines_per_minute, limits.log_lines_burst);
        Self {
            name: name.into(),
            metrics: outcome.metrics.begin(name, limits.series),
            alerts: outcome.alerts.policy(name, alert_rate),
            log_rate: Arc::new(Mutex::new(log_rate)),
            log_limited: outcome.counts.log_lines_limited.get_or_create_owned(&labels),
        }
    }
}

/// What belongs to one instance.
pub struct State {
    /// How much memory it has.
    pub limiter: Limiter,
    /// When the call that runs has to end.
    pub deadline: Deadline,
    outcome: PolicyOutcome,
    handles: ResourceTable,
}

impl State {
    /// The state of a new instance.
    pub fn new(outcome: PolicyOutcome, limits: &Limits) -> Self {
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(limits.handles);
        Self {
            limiter: Limiter::new(limits),
            deadline: Deadline::new(limits.cpu_per_call),
            outcome,
            handles,
        }
    }
}

/// All interfaces that are granted to every policy.
pub fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    Author::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}
