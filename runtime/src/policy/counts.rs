//! What the agent counts about one policy.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

use crate::{
    manifest::Manifest,
    outcome::{AgentMetrics, Delay, LimitLabels, LossLabels, PolicyLabels},
    queue::{Batch, Cause, Gap},
};

/// Handles to the agent's metrics of one policy. Cheap enough to clone.
#[derive(Debug, Clone)]
pub struct Counts {
    metrics: Arc<AgentMetrics>,
    policy: String,
    /// Kinds of the subscriptions.
    kinds: Vec<String>,
    rows: Counter,
    batches: Counter,
    calls: Counter,
    cpu: Counter<f64, AtomicU64>,
    traps: Counter,
    throttled: Counter<f64, AtomicU64>,
    delay: Delay,
}

/// The same as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Numbers {
    /// Rows of batches that the policy took.
    pub rows: u64,
    /// Batches that it took.
    pub batches: u64,
    /// Calls, also those that failed.
    pub calls: u64,
    /// Processor time of all calls, in seconds.
    pub cpu_seconds: f64,
    /// Instances that were lost.
    pub traps: u64,
}

/// Counts that a policy reached the limit of that key.
pub fn limit_reached(metrics: &AgentMetrics, policy: &str, key: &str) {
    let labels = LimitLabels { policy: policy.to_owned(), limit: key.to_owned() };
    metrics.limits_reached.get_or_create(&labels).inc();
}

impl Counts {
    /// Handles for the policy of this manifest.
    pub fn new(metrics: &Arc<AgentMetrics>, manifest: &Manifest) -> Self {
        let labels = PolicyLabels { policy: manifest.name.clone() };
        Self {
            kinds: manifest
                .subscriptions
                .iter()
                .map(|subscription| subscription.event.clone())
                .collect(),
            rows: metrics.rows.get_or_create_owned(&labels),
            batches: metrics.batches.get_or_create_owned(&labels),
            calls: metrics.calls.get_or_create_owned(&labels),
            cpu: metrics.call_cpu.get_or_create_owned(&labels),
            traps: metrics.traps.get_or_create_owned(&labels),
            throttled: metrics.throttled.get_or_create_owned(&labels),
            delay: metrics.delivery_delay.get_or_create_owned(&labels),
            policy: labels.policy,
            metrics: Arc::clone(metrics),
        }
    }

    /// A call took this processor time.
    pub fn called(&self, cpu: Duration) {
        self.calls.inc();
        self.cpu.inc_by(cpu.as_secs_f64());
    }

    /// The policy is called with a batch at this time.
    pub fn delivers(&self, batch: &Batch, now_ns: u64) {
        self.delay.observe(Duration::from_nanos(now_ns.saturating_sub(batch.first_ns)));
    }

    /// The policy took a batch.
    pub fn delivered(&self, batch: &Batch) {
        self.batches.inc();
        self.rows.inc_by(batch.events.iter().sum());
    }

    /// A batch was lost with the instance, or nobody is there to take it.
    pub fn lost(&self, batch: &Batch) {
        for (kind, &events) in self.kinds.iter().zip(&batch.events) {
            self.add_lost(kind, Cause::InstanceLost, events);
        }
    }

    /// The queue dropped those of these that were not lost before.
    pub fn dropped(&self, gaps: &[Gap]) {
        for gap in gaps.iter().filter(|gap| gap.cause == Cause::QueueFull) {
            self.limit_reached("queue");
            if let Some(kind) = self.kinds.get(usize::from(gap.subscription)) {
                self.add_lost(kind, gap.cause, gap.lost);
            }
        }
    }

    fn add_lost(&self, kind: &str, cause: Cause, events: u64) {
        if events > 0 {
            let labels = LossLabels { kind: kind.to_owned(), cause: cause.name().to_owned() };
            self.metrics.events_lost.get_or_create(&labels).inc_by(events);
        }
    }

    /// An instance was lost, or could not be started.
    pub fn failed(&self) {
        self.traps.inc();
    }

    /// The policy reached the limit of that key.
    pub fn limit_reached(&self, key: &str) {
        limit_reached(&self.metrics, &self.policy, key);
    }

    /// The policy has to wait so long because its share of a core is used up.
    pub fn throttled(&self, wait: Duration) {
        self.limit_reached("cpu_percent");
        self.throttled.inc_by(wait.as_secs_f64());
    }

    /// The numbers of now.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            rows: self.rows.get(),
            batches: self.batches.get(),
            calls: self.calls.get(),
            cpu_seconds: self.cpu.get(),
            traps: self.traps.get(),
        }
    }
}
