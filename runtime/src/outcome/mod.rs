//! What policies say: metrics and alerts; and what the agent says of itself.
//!
//! | who | calls |
//! |---|---|
//! | agent | [`Metrics::new`], [`Alerts::new`], `AgentMetrics::default` once; [`Metrics::sweep`] every [`Metrics::sweep_every`] |
//! | policy host, before `configure` of a generation | [`Metrics::begin`], which gives the [`PolicyMetrics`] that its instances use |
//! | policy host, on a call of the guest | [`PolicyMetrics::counter`] and so on, kept in the resource table; then [`Counter::add`] |
//! | policy host, when nothing else can go wrong | [`PolicyMetrics::reserve`]: from now on nobody else gets its names |
//! | policy host, when the generation takes over | [`Reserved::commit`]; dropped without it, nothing was changed |
//! | policy host, when the policy is gone | [`Metrics::remove`] |
//! | policy host, for alerts | [`Alerts::policy`] once per policy, [`PolicyAlerts::raise`] |
//! | everyone | the fields of [`AgentMetrics`] |
//! | sinks | [`Metrics::families`], [`expose::Exposition`], the receiver of [`Alerts::new`] |
//!
//! An instance that restarts uses the same [`PolicyMetrics`], so that its counters go on.

pub mod agent_metrics;
mod alert;
pub mod expose;
mod metrics;
mod rate;
mod rules;
mod series;
mod table;

pub use agent_metrics::{
    ActionLabels, AgentMetric, AgentMetrics, CauseLabels, Delay, DenialLabels, KindLabels,
    LimitLabels, LossLabels, PolicyLabels, StateLabels, TransitionLabels,
};
pub use alert::{Alert, Alerts, PolicyAlerts, Raised, Severity};
pub use metrics::{Describe, Metrics, PolicyMetrics, Reserved};
pub use rate::Rate;
pub use rules::MetricError;
pub use series::{Counter, Gauge, Histogram, Value};
pub use table::{FamilySnapshot, MetricKind, SeriesSnapshot};

#[cfg(test)]
mod tests;
