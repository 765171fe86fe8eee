//! The registry of the policies' metrics. They belong to the policy's name: a counter goes on when
//! an instance restarts or a generation is replaced.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    series::{Counter, DEFAULT_BOUNDS, Gauge, Handle, Histogram, IDLE_SWEEPS, Label},
    table::{FamilySnapshot, MetricKind, Schema, Table},
};
use crate::escape;

/// Longest label value, in bytes: a path fits, a whole command line does not.
pub const MAX_LABEL_VALUE: usize = 256;
/// Longest name of a metric or a label, in bytes.
const MAX_NAME: usize = 128;
/// Most labels of one series.
const MAX_LABELS: usize = 16;
/// Most buckets of a histogram: each one is a series for whoever stores it.
const MAX_BOUNDS: usize = 64;
/// Longest help text, in bytes.
const MAX_HELP: usize = 512;
/// The agent's own metrics begin with this.
pub const RESERVED_PREFIX: &str = "tipstaff_";
/// Labels that the agent or the format uses.
const RESERVED_LABELS: &[&str] = &["policy", "overflow", "le", "quantile"];

/// What a policy calls a metric. A name alone will do: `"shells".into()`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Describe<'a> {
    /// `[a-zA-Z_][a-zA-Z0-9_]*`. A `_total` and the unit at its end are not repeated in the output.
    pub name: &'a str,
    /// Unit (`seconds`, `bytes`); empty where there is none.
    pub unit: &'a str,
    /// What it says; may be empty.
    pub help: &'a str,
}

impl<'a> From<&'a str> for Describe<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, unit: "", help: "" }
    }
}

/// Why a metric was refused. When it happens in `configure`, the policy does not load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Not a name.
    #[error("{what} name {name:?}: expected [a-zA-Z_][a-zA-Z0-9_]* of at most {MAX_NAME} bytes")]
    Name {
        /// "metric", "unit" or "label".
        what: &'static str,
        /// As given.
        name: String,
    },
    /// A name of the agent's.
    #[error(
        "metric `{0}`: names that begin with `{RESERVED_PREFIX}` are the agent's, choose another one"
    )]
    Reserved(String),
    /// A label that means something else.
    #[error(
        "metric `{metric}`: the agent or the format sets the label `{label}` itself, choose another name"
    )]
    ReservedLabel {
        /// Name of the metric.
        metric: String,
        /// Name of the label.
        label: String,
    },
    /// A label given twice.
    #[error("metric `{metric}`: label `{label}` is given twice")]
    LabelTwice {
        /// Name of the metric.
        metric: String,
        /// Name of the label.
        label: String,
    },
    /// Too many labels.
    #[error("metric `{metric}` has {found} labels, expected at most {MAX_LABELS}")]
    Labels {
        /// Name of the metric.
        metric: String,
        /// How many.
        found: usize,
    },
    /// More names than the policy may have series.
    #[error(
        "metric `{metric}`: the policy has {max} metrics already; raise `series` in [policy.{policy}.limits]"
    )]
    TooMany {
        /// Name of the metric.
        metric: String,
        /// Name of the policy.
        policy: String,
        /// The limit.
        max: usize,
    },
    /// Buckets that make no histogram.
    #[error(
        "histogram `{0}`: expected at most {MAX_BOUNDS} finite bucket bounds in ascending order"
    )]
    Bounds(String),
    /// The name is used otherwise.
    #[error(
        "metric `{metric}` has {found} here, but policy `{other}` uses the name with {expected}: rename it in one of them"
    )]
    Conflict {
        /// Name of the metric.
        metric: String,
        /// Who has it already; may be the policy itself.
        other: String,
        /// What is different, as this one has it.
        found: String,
        /// What is different, as the other one has it.
        expected: String,
    },
}

/// The registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    idle: Duration,
    /// The table of each policy's running generation.
    running: Mutex<BTreeMap<String, Arc<Table>>>,
}

impl Metrics {
    /// A registry in which a series with labels expires when nobody wrote to it for `idle`.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        Self(Arc::new(Shared { idle, running: Mutex::default() }))
    }

    /// Begins a generation of a policy, with room for `max_series`. Until [`PolicyMetrics::commit`]
    /// only series that the running generation has as well are visible.
    #[must_use]
    pub fn begin(&self, policy: &str, max_series: usize) -> PolicyMetrics {
        let previous = self.0.lock().get(policy).map(Arc::clone);
        PolicyMetrics {
            shared: Arc::clone(&self.0),
            table: Arc::new(Table::new(policy, max_series, previous)),
        }
    }

    /// Forgets a policy that is gone.
    pub fn remove(&self, policy: &str) {
        self.0.lock().remove(policy);
    }

    /// How often [`Self::sweep`] must be called.
    #[must_use]
    pub fn sweep_every(&self) -> Duration {
        self.0.idle / u32::from(IDLE_SWEEPS)
    }

    /// Takes out the series that were idle for too long.
    pub fn sweep(&self) {
        for table in self.0.tables() {
            table.sweep();
        }
    }

    /// All metrics as they are now, by name.
    #[must_use]
    pub fn families(&self) -> Vec<FamilySnapshot> {
        let mut families = BTreeMap::new();
        for table in self.0.tables() {
            table.snapshot(&mut families);
        }
        families.into_values().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Table>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> Vec<Arc<Table>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// Fails if a running policy of another name uses this name otherwise.
    fn check(&self, policy: &str, name: &str, schema: &Schema) -> Result<(), MetricError> {
        for table in self.tables().iter().filter(|table| table.policy() != policy) {
            for (other_name, other) in table.schemas() {
                same(name, schema, table.policy(), &other_name, &other)?;
            }
        }
        Ok(())
    }
}

/// The metrics of one generation of a policy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    shared: Arc<Shared>,
    table: Arc<Table>,
}

impl PolicyMetrics {
    /// Gives a metric a unit and a help text for when it is made with its name alone.
    pub fn describe(&self, describe: Describe<'_>) -> Result<(), MetricError> {
        family_name(MetricKind::Counter, describe.name, describe.unit)?;
        let help = escape::control(escape::prefix(describe.help, MAX_HELP));
        self.table.describe(describe.name, describe.unit, &help)
    }

    /// The counter's series with these labels.
    pub fn counter<'a>(
        &self,
        describe: impl Into<Describe<'a>>,
        labels: &[(String, String)],
    ) -> Result<Counter, MetricError> {
        self.handle(MetricKind::Counter, describe.into(), labels, &[]).map(Counter)
    }

    /// The gauge's series with these labels.
    pub fn gauge<'a>(
        &self,
        describe: impl Into<Describe<'a>>,
        labels: &[(String, String)],
    ) -> Result<Gauge, MetricError> {
        self.handle(MetricKind::Gauge, describe.into(), labels, &[]).map(Gauge)
    }

    /// The histogram's series with these labels. `bounds` are the upper bounds of its buckets; none:
    /// from a millisecond to five minutes, for seconds. Those given first count for all its series.
    pub fn histogram<'a>(
        &self,
        describe: impl Into<Describe<'a>>,
        labels: &[(String, String)],
        bounds: &[f64],
    ) -> Result<Histogram, MetricError> {
        let bounds = if bounds.is_empty() { DEFAULT_BOUNDS } else { bounds };
        self.handle(MetricKind::Histogram, describe.into(), labels, bounds).map(Histogram)
    }

    /// Puts this generation in the place of the one that ran before, which must not be running any
    /// more. Fails, changing nothing, if another policy took a name in the meantime.
    pub fn commit(&self) -> Result<(), MetricError> {
        let policy = self.table.policy();
        for (name, schema) in self.table.schemas() {
            self.shared.check(policy, &name, &schema)?;
        }
        let previous = self.shared.lock().insert(policy.to_owned(), Arc::clone(&self.table));
        if let Some(previous) = previous.filter(|previous| !Arc::ptr_eq(previous, &self.table)) {
            self.table.inherit(&previous);
        }
        Ok(())
    }

    fn handle(
        &self,
        kind: MetricKind,
        given: Describe<'_>,
        labels: &[Label],
        bounds: &[f64],
    ) -> Result<Handle, MetricError> {
        let (unit, help) = if given.unit.is_empty() && given.help.is_empty() {
            self.table.described(given.name)
        } else {
            (
                given.unit.to_owned(),
                escape::control(escape::prefix(given.help, MAX_HELP)).into_owned(),
            )
        };
        let name = family_name(kind, given.name, &unit)?;
        let labels = canonical(name, labels)?;
        let is_sorted =
            bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|bound| bound.is_finite());
        if bounds.len() > MAX_BOUNDS || !is_sorted {
            return Err(MetricError::Bounds(name.to_owned()));
        }
        let mut schema = Schema {
            kind,
            unit,
            labels: labels.iter().map(|(name, _)| name.clone()).collect(),
            bounds: bounds.into(),
        };
        if let Some(mine) = self.table.schema(name) {
            if kind == mine.kind {
                schema.bounds = Arc::clone(&mine.bounds);
            }
            same(name, &schema, self.table.policy(), name, &mine)?;
        } else {
            self.shared.check(self.table.policy(), name, &schema)?;
            self.table.check_room(name)?;
        }
        Ok(self.table.handle(name, &schema, &help, labels))
    }
}

/// The name without what the exposition puts behind it.
fn family_name<'a>(kind: MetricKind, full: &'a str, unit: &str) -> Result<&'a str, MetricError> {
    check_name("metric", full)?;
    if full.starts_with(RESERVED_PREFIX) {
        return Err(MetricError::Reserved(full.to_owned()));
    }
    let strip = |name: &'a str, suffix: &str| {
        let stripped = name.strip_suffix(suffix).and_then(|name| name.strip_suffix('_'));
        stripped.filter(|name| !name.is_empty()).unwrap_or(name)
    };
    let mut name = full;
    if kind == MetricKind::Counter {
        name = strip(name, "total");
    }
    if !unit.is_empty() {
        check_name("unit", unit)?;
        name = strip(name, unit);
    }
    Ok(name)
}

fn check_name(what: &'static str, name: &str) -> Result<(), MetricError> {
    let is_name = name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name {
        Ok(())
    } else {
        Err(MetricError::Name { what, name: escape::prefix(name, MAX_NAME).to_owned() })
    }
}

/// The labels by name, with values that can be shown.
fn canonical(metric: &str, labels: &[Label]) -> Result<Vec<Label>, MetricError> {
    if labels.len() > MAX_LABELS {
        return Err(MetricError::Labels { metric: metric.to_owned(), found: labels.len() });
    }
    let mut canonical = Vec::with_capacity(labels.len());
    for (label, value) in labels {
        check_name("label", label)?;
        if RESERVED_LABELS.contains(&label.as_str()) || label.starts_with("__") {
            return Err(MetricError::ReservedLabel {
                metric: metric.to_owned(),
                label: label.clone(),
            });
        }
        let value = match escape::control(escape::prefix(value, MAX_LABEL_VALUE)) {
            Cow::Borrowed(value) => value.to_owned(),
            Cow::Owned(value) => escape::prefix(&value, MAX_LABEL_VALUE).to_owned(),
        };
        canonical.push((label.clone(), value));
    }
    canonical.sort();
    match canonical.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            Err(MetricError::LabelTwice { metric: metric.to_owned(), label: pair[0].0.clone() })
        }
        None => Ok(canonical),
    }
}

/// Fails if two families cannot be shown beside each other.
fn same(
    name: &str,
    schema: &Schema,
    other_policy: &str,
    other_name: &str,
    other: &Schema,
) -> Result<(), MetricError> {
    let conflict = |found: String, expected: String| {
        let (metric, other) = (name.to_owned(), other_policy.to_owned());
        Err(MetricError::Conflict { metric, other, found, expected })
    };
    let unit =
        |unit: &str| if unit.is_empty() { "no unit".to_owned() } else { format!("unit `{unit}`") };
    let labels = |labels: &[String]| format!("labels [{}]", labels.join(", "));
    if name != other_name {
        let mine = samples(name, schema);
        return match samples(other_name, other).into_iter().find(|sample| mine.contains(sample)) {
            Some(sample) => conflict(
                format!("the sample `{sample}`"),
                format!("{} `{other_name}`", other.kind.name()),
            ),
            None => Ok(()),
        };
    }
    if schema.kind != other.kind {
        return conflict(
            format!("type {}", schema.kind.name()),
            format!("type {}", other.kind.name()),
        );
    }
    if schema.unit != other.unit {
        return conflict(unit(&schema.unit), unit(&other.unit));
    }
    if schema.labels != other.labels {
        return conflict(labels(&schema.labels), labels(&other.labels));
    }
    if schema.bounds != other.bounds {
        return conflict(
            format!("buckets {:?}", schema.bounds),
            format!("buckets {:?}", other.bounds),
        );
    }
    Ok(())
}

/// The names under which a family's samples appear.
fn samples(name: &str, schema: &Schema) -> Vec<String> {
    let unit = if schema.unit.is_empty() { String::new() } else { format!("_{}", schema.unit) };
    schema.kind.suffixes().iter().map(|suffix| format!("{name}{unit}{suffix}")).collect()
}
