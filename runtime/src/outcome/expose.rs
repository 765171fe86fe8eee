//! All metrics in the text format that Prometheus reads, through the exporter library.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{AgentMetrics, FamilySnapshot, MetricKind, Metrics, Value};

/// `Content-Type` of [`Exposition::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/metrics` answers.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// The agent's own metrics and those of all policies.
    #[must_use]
    pub fn new(agent: &Arc<AgentMetrics>, policies: &Metrics) -> Self {
        let mut registry = Registry::default();
        agent.register(&mut registry);
        registry.register_collector(Box::new(Policies(policies.clone())));
        Self(registry)
    }

    /// The metrics as they are now.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Policies(Metrics);

impl Collector for Policies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.families().iter().try_for_each(|family| encode(&mut encoder, family))
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, family: &FamilySnapshot) -> fmt::Result {
    let kind = match family.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    let unit = (!family.unit.is_empty()).then(|| Unit::Other(family.unit.clone()));
    let help = if family.help.is_empty() { "From a policy." } else { &family.help };
    // The library writes it as it is, and the format knows no other escape that may occur here.
    let help = help.replace('\\', "\\\\");
    let mut metric = encoder.encode_descriptor(&family.name, &help, unit.as_ref(), kind)?;
    for series in &family.series {
        let mut labels = vec![("policy", series.policy.as_str())];
        labels.extend(series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut one = metric.encode_family(&labels)?;
        match &series.value {
            Value::Counter(count) => {
                one.encode_counter::<[(&str, &str); 0], _, u64>(count, None)?;
            }
            Value::Gauge(value) => one.encode_gauge(value)?,
            Value::Histogram { sum, buckets } => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                one.encode_histogram::<[(&str, &str); 0]>(*sum, count, buckets, None)?;
            }
        }
    }
    Ok(())
}
