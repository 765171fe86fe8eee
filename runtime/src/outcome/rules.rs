//! What names, labels and buckets may be, and when two metrics cannot have the same name.

use std::borrow::Cow;

use super::{
    series::{Label, OVERFLOW},
    table::{MetricKind, Schema},
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
pub(super) const MAX_HELP: usize = 512;
/// The agent's own metrics begin with this.
pub const RESERVED_PREFIX: &str = "tipstaff_";
/// Labels that the agent or the format uses.
const RESERVED_LABELS: &[&str] = &["policy", OVERFLOW, "le", "quantile"];

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

/// The name without what the exposition puts behind it.
pub(super) fn family_name<'a>(
    kind: MetricKind,
    full: &'a str,
    unit: &str,
) -> Result<&'a str, MetricError> {
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

/// Fails if these are no upper bounds of buckets.
pub(super) fn check_bounds(histogram: &str, bounds: &[f64]) -> Result<(), MetricError> {
    let ascend = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|bound| bound.is_finite());
    if bounds.len() <= MAX_BOUNDS && ascend {
        Ok(())
    } else {
        Err(MetricError::Bounds(histogram.to_owned()))
    }
}

/// The labels by name, with values that can be shown.
pub(super) fn canonical(metric: &str, labels: &[Label]) -> Result<Vec<Label>, MetricError> {
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
pub(super) fn same(
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
