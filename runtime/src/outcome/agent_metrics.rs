//! What the agent says of itself. A metric is written once, in the list below: from there come its
//! field, its registration and `docs/metrics.md`.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

/// One metric of the agent, for its documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMetric {
    /// Name of the field in [`AgentMetrics`].
    pub field: &'static str,
    /// Name in the exposition, without a counter's `_total`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Unit; empty where there is none.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $($(#[$field_doc])* pub $field: String),+ }

        impl Labelled for $name {
            const LABELS: &'static [&'static str] = &[$(stringify!($field)),+];
        }
    )+};
}

trait Labelled {
    const LABELS: &'static [&'static str];
}

labels! {
    /// Of one policy.
    PolicyLabels {
        /// Name of the policy.
        policy
    }
    /// Of one event kind.
    KindLabels {
        /// Name of the kind.
        kind
    }
    /// Events that were lost.
    LossLabels {
        /// Name of the kind.
        kind,
        /// Name of the cause, from [`crate::queue::Cause::ALL`].
        cause
    }
    /// Something that happened for a reason.
    CauseLabels {
        /// What the reason was.
        cause
    }
    /// A policy that came into a state.
    TransitionLabels {
        /// Name of the policy.
        policy,
        /// Name of the state.
        state
    }
    /// A limit of a policy.
    LimitLabels {
        /// Name of the policy.
        policy,
        /// Key of the limit in `[limits]`.
        limit
    }
    /// Actions that were decided.
    ActionLabels {
        /// Name of the policy that asked, or that it is about; empty for all.
        policy,
        /// Name of the action.
        action,
        /// What became of it, from [`crate::guard::Outcome::ALL`].
        outcome
    }
    /// What rules denied.
    DenialLabels {
        /// Name of the policy.
        policy,
        /// `denied`, or in audit `would_deny`.
        verdict
    }
    /// Policies in one state.
    StateLabels {
        /// Name of the state.
        state
    }
}

/// A metric's type and labels, for its documentation.
trait Documented {
    const KIND: MetricType;
    const LABELS: &'static [&'static str] = &[];
}

impl Documented for Counter {
    const KIND: MetricType = <Self as TypedMetric>::TYPE;
}

impl Documented for Gauge {
    const KIND: MetricType = <Self as TypedMetric>::TYPE;
}

impl Documented for Gauge<f64, AtomicU64> {
    const KIND: MetricType = <Self as TypedMetric>::TYPE;
}

impl Documented for Delay {
    const KIND: MetricType = <Self as TypedMetric>::TYPE;
}

/// How times from 10 us to 10 s are distributed.
#[derive(Debug, Clone)]
pub struct Delay(Histogram);

impl Default for Delay {
    fn default() -> Self {
        let bounds = (-5..1).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power)));
        Self(Histogram::new(bounds.chain([10.0])))
    }
}

impl Delay {
    /// Counts a time.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}

impl TypedMetric for Delay {
    const TYPE: MetricType = Histogram::TYPE;
}

impl EncodeMetric for Delay {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl<L: Labelled, M: Documented> Documented for Family<L, M> {
    const KIND: MetricType = M::KIND;
    const LABELS: &'static [&'static str] = L::LABELS;
}

macro_rules! agent_metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty $(, $unit:ident)?;)+) => {
        /// The agent's own metrics. The handles are cheap to clone: on a hot path keep the one that
        /// `get_or_create_owned` gives, and add to it without a look-up.
        #[derive(Debug, Default)]
        pub struct AgentMetrics { $($(#[doc = $help])+ pub $field: $type),+ }

        impl AgentMetrics {
            /// Every metric, in the order of the documentation.
            #[must_use]
            pub fn list() -> Vec<AgentMetric> {
                vec![$({
                    let unit = unit!($($unit)?);
                    let unit = unit.as_ref().map_or("", |_| concat!($(stringify!($unit))?));
                    let suffix = if unit.is_empty() { String::new() } else { format!("_{}", unit.to_lowercase()) };
                    AgentMetric {
                        field: stringify!($field),
                        name: format!("{}_{}{suffix}", Self::PREFIX, stringify!($field)),
                        kind: match <$type as Documented>::KIND {
                            MetricType::Counter => "counter",
                            MetricType::Histogram => "histogram",
                            _ => "gauge",
                        },
                        labels: <$type as Documented>::LABELS,
                        unit,
                        help: concat!($($help),+).trim_ascii(),
                    }
                }),+]
            }

            /// Puts them into a registry, under the agent's prefix.
            pub(super) fn register(&self, registry: &mut Registry) {
                let Self { $($field),+ } = self;
                let registry = registry.sub_registry_with_prefix(Self::PREFIX);
                // The library ends the help text with a full stop.
                $(let help = concat!($($help),+).trim_ascii().trim_end_matches('.');
                match unit!($($unit)?) {
                    Some(unit) => registry.register_with_unit(stringify!($field), help, unit, $field.clone()),
                    None => registry.register(stringify!($field), help, $field.clone()),
                })+
            }
        }
    };
}

macro_rules! unit {
    () => {
        None::<Unit>
    };
    ($unit:ident) => {
        Some(Unit::$unit)
    };
}

impl AgentMetrics {
    const PREFIX: &str = "tipstaff";
}

/// A counter for each policy.
pub(super) type PerPolicy = Family<PolicyLabels, Counter>;

agent_metrics! {
    /// Events that the reader took from its source, by kind.
    events: Family<KindLabels, Counter>;
    /// Events that were lost before a policy saw them, by kind and by where it happened.
    events_lost: Family<LossLabels, Counter>;
    /// What the agent used of the processors in the last two seconds, as a share of one core: its own threads, and
    /// its programs in the kernel. Measured while `cpu_percent` is set in `[agent]`.
    agent_cpu_share: Gauge<f64, AtomicU64>;
    /// Of so many events that policies ask for the agent takes one, to stay within `cpu_percent` in `[agent]`, by
    /// kind. Kinds of which it never took fewer are not listed.
    budget_sample: Family<KindLabels, Gauge>;
    /// Cgroups of which events were left out within the last second because they made more than
    /// `events_per_cgroup` allows.
    cgroups_over_budget: Gauge;
    /// Events that passed although nobody knows whether the budget of their cgroup allowed it: more cgroups
    /// made events at the same time than there is room for.
    events_unbudgeted: Counter;
    /// Records that were shorter than their kind says, or pointed outside of themselves.
    records_malformed: Counter;
    /// Rows that were older than one already delivered, and flagged as late.
    rows_late: Counter;
    /// Processes in the process table, ended ones that are still asked for included.
    processes: Gauge;
    /// Processes that were forgotten too early, or not remembered, because the table was full.
    processes_evicted: Counter;
    /// Rows handed to a policy.
    rows: PerPolicy;
    /// Batches handed to a policy, one call each.
    batches: PerPolicy;
    /// Calls of a policy: `configure`, `on-batch` and `on-tick`.
    calls: PerPolicy;
    /// Processor time that a policy's calls took.
    call_cpu: Family<PolicyLabels, Counter<f64, AtomicU64>>, Seconds;
    /// Calls that ended in an error (trap, deadline, limit) and cost the policy's instance.
    traps: PerPolicy;
    /// Bytes of rows that wait in a policy's queue.
    queue: Family<PolicyLabels, Gauge>, Bytes;
    /// Bytes of state that the agent keeps for a policy.
    state: Family<PolicyLabels, Gauge>, Bytes;
    /// Policies, by state.
    policies: Family<StateLabels, Gauge>;
    /// How often a policy came into a state: loaded, configured, planned, running, restarting,
    /// quarantined, replaced, removed, stopped.
    transitions: Family<TransitionLabels, Counter>;
    /// How often a policy reached one of its limits, by the limit's key in `[limits]`.
    limits_reached: Family<LimitLabels, Counter>;
    /// Time that a policy had to wait because it had used up its share of a core.
    throttled: Family<PolicyLabels, Counter<f64, AtomicU64>>, Seconds;
    /// Time from an event until the policy was called with it, for the oldest event of each batch.
    delivery_delay: Family<PolicyLabels, Delay>, Seconds;
    /// Enriched fields that had no value in a row, by field and reason.
    enrichment_misses: Family<CauseLabels, Counter>;
    /// Alerts that a policy raised and that went on to the sink.
    alerts: PerPolicy;
    /// Alerts dropped because the policy raised more than its limit.
    alerts_limited: PerPolicy;
    /// Alerts dropped because the sink did not keep up.
    alerts_dropped: PerPolicy;
    /// Log lines dropped because the policy wrote more than its limit.
    log_lines_limited: PerPolicy;
    /// Decisions about actions, by what became of them: done, audited, refused, failed, undone.
    actions: Family<ActionLabels, Counter>;
    /// Time from an event until a signal that a policy sends upon it was sent.
    signal_delay: Family<PolicyLabels, Delay>, Seconds;
    /// Operations that the rules of a policy denied, or would have denied in audit, counted in the kernel.
    denials: Family<DenialLabels, Counter>;
    /// Lines dropped because standard output did not take them.
    output_dropped: Counter;
}

impl Documented for Counter<f64, AtomicU64> {
    const KIND: MetricType = MetricType::Counter;
}

/// The reference of the agent's metrics, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Metrics\n\n<!-- Made from runtime/src/outcome/agent_metrics.rs; BLESS=1 cargo test rewrites it. -->\n\n\
         `/metrics` on the address of `[metrics]` has the metrics of the policies, each with the label `policy`,\n\
         and those of the agent itself, which are below. `/healthz` there says whether the agent is ready: 200, or 503.\n\n\
         | name | type | labels | unit | meaning |\n|---|---|---|---|---|\n",
    );
    for AgentMetric { field: _, name, kind, labels, unit, help } in AgentMetrics::list() {
        let total = if kind == "counter" { "_total" } else { "" };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        out += &[
            "| `",
            &name,
            total,
            "` | ",
            kind,
            " | ",
            &labels,
            " | ",
            &unit.to_lowercase(),
            " | ",
            help,
            " |\n",
        ]
        .concat();
    }
    out += "\nPolicies' metrics follow these rules:\n\n\
        - A name belongs to one type, unit and set of labels. A policy that uses it otherwise does not load.\n\
        - A counter goes on when a policy's instance restarts or its file is replaced.\n\
        - Label values are cut at 256 bytes, and control characters in them are escaped.\n\
        - Above a policy's cap (`series` in `[limits]`) values are counted in one series for each name, with\n  \
          `overflow=\"true\"` in place of its labels.\n\
        - A series with labels that nobody wrote to for `idle_expiry` is forgotten; it goes on where it was if the\n  \
          policy still holds it when it writes again, else it begins anew. One without labels stays.\n\
        - Names that begin with `tipstaff_` are the agent's.\n";
    out
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn docs_metrics_md_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("BLESS").is_some() {
            fs::write(path, reference()).unwrap();
        }
        let found = fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == reference(),
            "docs/metrics.md is not what the list says: run with BLESS=1 to rewrite it"
        );
    }

    #[test]
    fn every_metric_is_exposed_under_its_documented_name() {
        let metrics = AgentMetrics::default();
        metrics.output_dropped.inc();
        metrics.queue.get_or_create(&PolicyLabels { policy: "p".into() }).set(3);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let names: Vec<_> = AgentMetrics::list().into_iter().map(|metric| metric.name).collect();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(
                names.iter().any(|name| line.starts_with(&format!("{name} "))),
                "{line} is not documented"
            );
        }
        assert!(text.contains("\ntipstaff_queue_bytes{policy=\"p\"} 3\n"), "{text}");
        assert!(text.contains("\ntipstaff_output_dropped_total 1\n"), "{text}");
    }

    /// The source files of the agent without their tests and without white space.
    fn sources(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path
                .file_name()
                .is_none_or(|name| name != "tests.rs" && name != "agent_metrics.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                into.extend(code.split_whitespace());
                into.push('\n');
            }
        }
    }

    #[test]
    fn somebody_writes_to_every_metric() {
        let mut code = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        for metric in AgentMetrics::list() {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let is_written = code.match_indices(metric.field).any(|(at, field)| {
                let (before, after) = (&code[..at], &code[at + field.len()..]);
                // Written at once, or handed to something that writes.
                let writes = [".inc()", ".inc_by(", ".set(", ".get_or_create("]
                    .iter()
                    .any(|write| after.starts_with(write));
                let handed = ["metrics.", "counts."].iter().any(|holder| before.ends_with(holder));
                (writes && !before.ends_with(is_part)) || (handed && !after.starts_with(is_part))
            });
            assert!(is_written, "nobody writes to `{}`", metric.name);
        }
    }
}
