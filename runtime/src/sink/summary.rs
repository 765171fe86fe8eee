//! What the policies computed, when the agent ends: a table, or JSON Lines.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::Serialize;

use super::line::{self, Style};
use crate::{
    escape,
    kind::Kinds,
    outcome::{AgentMetrics, FamilySnapshot, KindLabels, LossLabels, SeriesSnapshot, Value},
    queue::Cause,
};

/// Series of one metric and policy that the table shows: what fits a screen.
const TOP: usize = 10;
/// Longest label value that the table shows whole, in characters.
const LABEL: usize = 60;

/// What was seen and what was lost, over all kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Events taken from the source.
    pub events: u64,
    /// Events lost, by cause.
    pub lost: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// The totals so far.
    #[must_use]
    pub fn of(metrics: &AgentMetrics, kinds: &Kinds) -> Self {
        let mut totals = Self::default();
        for kind in kinds.iter() {
            let kind = kind.name.to_string();
            totals.events += metrics
                .events
                .get(&KindLabels { kind: kind.clone() })
                .map_or(0, |count| count.get());
            for (_, cause) in Cause::ALL {
                let labels = LossLabels { kind: kind.clone(), cause: (*cause).to_owned() };
                if let Some(lost) = metrics
                    .events_lost
                    .get(&labels)
                    .map(|count| count.get())
                    .filter(|&lost| lost > 0)
                {
                    *totals.lost.entry(cause).or_default() += lost;
                }
            }
        }
        totals
    }
}

/// The final summary.
#[must_use]
pub fn summary(families: &[FamilySnapshot], totals: &Totals, style: Style) -> String {
    match style {
        Style::Text { .. } => text(families, totals),
        Style::Json => json(families, totals),
    }
}

fn text(families: &[FamilySnapshot], totals: &Totals) -> String {
    let mut rows = Vec::new();
    for family in families {
        // Sorted by policy already.
        for series in family.series.chunk_by(|a, b| a.policy == b.policy) {
            rows.extend(top(family, series));
        }
    }
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    let mut out = String::new();
    if !rows.is_empty() {
        rows.insert(0, ["policy", "metric", "value", "labels"].map(str::to_owned));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let [policies, metrics, values] = [0, 1, 2].map(|column| width(column).unwrap_or(0));
        for [policy, metric, value, labels] in &rows {
            let line =
                format!("{policy:<policies$}  {metric:<metrics$}  {value:>values$}  {labels}");
            out += line.trim_end();
            out.push('\n');
        }
    }
    let lost: Vec<_> =
        totals.lost.iter().map(|(cause, lost)| format!("{lost} lost ({cause})")).collect();
    let lost = if lost.is_empty() { "none lost".to_owned() } else { lost.join(", ") };
    out + &format!("{} events, {lost}\n", totals.events)
}

/// The largest series of one metric and policy, and how many more there are.
fn top(family: &FamilySnapshot, series: &[SeriesSnapshot]) -> Vec<[String; 4]> {
    let mut sorted: Vec<_> = series.iter().collect();
    sorted.sort_by(|a, b| size(&b.value).partial_cmp(&size(&a.value)).unwrap_or(Ordering::Equal));
    let policy = escape::control(&series[0].policy).into_owned();
    let row = |value, labels| [policy.clone(), family.exposed_name(), value, labels];
    let mut rows: Vec<_> = sorted
        .iter()
        .take(TOP)
        .map(|series| {
            let labels = series.labels.iter().map(|(name, value)| line::label(name, &tail(value)));
            row(value(&series.value), labels.collect::<Vec<_>>().join(" "))
        })
        .collect();
    if sorted.len() > TOP {
        rows.push(row("...".to_owned(), format!("({} more)", sorted.len() - TOP)));
    }
    rows
}

/// The end of a long value: of a path it says most.
fn tail(value: &str) -> String {
    let excess = value.chars().count().saturating_sub(LABEL);
    if excess == 0 {
        return value.to_owned();
    }
    let end: String = value.chars().skip(excess + 3).collect();
    format!("...{end}")
}

fn value(value: &Value) -> String {
    match value {
        Value::Counter(count) => count.to_string(),
        Value::Gauge(value) => value.to_string(),
        Value::Histogram { sum, .. } => {
            let count = size(value);
            let mean = if count > 0.0 { sum / count } else { 0.0 };
            format!("{count} x {mean:.3}")
        }
    }
}

/// What series are sorted by.
#[expect(clippy::cast_precision_loss, reason = "for order and display only")]
fn size(value: &Value) -> f64 {
    match value {
        Value::Counter(count) => *count as f64,
        Value::Gauge(value) => *value,
        Value::Histogram { buckets, .. } => {
            buckets.iter().map(|(_, count)| *count).sum::<u64>() as f64
        }
    }
}

fn json(families: &[FamilySnapshot], totals: &Totals) -> String {
    #[derive(Serialize)]
    struct Metric<'a> {
        r#type: &'static str,
        policy: &'a str,
        name: String,
        kind: &'static str,
        unit: &'a str,
        labels: BTreeMap<&'a str, &'a str>,
        #[serde(flatten)]
        value: MetricValue,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum MetricValue {
        Count { value: u64 },
        Number { value: f64 },
        Distribution { sum: f64, count: u64, buckets: Vec<Bucket> },
    }
    #[derive(Serialize)]
    struct Bucket {
        /// `null`: no bound.
        upper_bound: Option<f64>,
        count: u64,
    }
    #[derive(Serialize)]
    struct Summary<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        totals: &'a Totals,
    }
    let mut out = String::new();
    for family in families {
        for SeriesSnapshot { policy, labels, value } in &family.series {
            out += &line::line(&Metric {
                r#type: "metric",
                policy,
                name: family.exposed_name(),
                kind: family.kind.name(),
                unit: &family.unit,
                labels: labels.iter().map(|(name, value)| (&**name, &**value)).collect(),
                value: match value {
                    Value::Counter(value) => MetricValue::Count { value: *value },
                    Value::Gauge(value) => MetricValue::Number { value: *value },
                    Value::Histogram { sum, buckets } => MetricValue::Distribution {
                        sum: *sum,
                        count: buckets.iter().map(|(_, count)| count).sum(),
                        buckets: buckets
                            .iter()
                            .map(|&(bound, count)| Bucket {
                                upper_bound: bound.is_finite().then_some(bound),
                                count,
                            })
                            .collect(),
                    },
                },
            });
        }
    }
    out + &line::line(&Summary { r#type: "summary", totals })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::{Describe, Metrics};

    fn families() -> Vec<FamilySnapshot> {
        let metrics = Metrics::new(Duration::from_mins(1));
        let policy = metrics.begin("exec-audit", 100);
        for n in 0_u32..12 {
            let labels = [("exe".to_owned(), format!("/bin/{n}"))];
            policy.counter("executions", &labels).unwrap().add((n * n).into());
        }
        policy.reserve().unwrap().commit();
        let other = metrics.begin("a", 100);
        let took = Describe { name: "took", unit: "seconds", help: "" };
        other.histogram(took, &[], &[1.0]).unwrap().observe(0.5);
        other.gauge("open", &[("n".into(), "x\x1b y".into())]).unwrap().set(1.5);
        other.reserve().unwrap().commit();
        metrics.families()
    }

    #[test]
    fn the_table_is_aligned_and_shows_the_largest_series() {
        let totals = Totals { events: 7, lost: [("ring_full", 2)].into() };
        let table = summary(&families(), &totals, Style::Text { colour: false });
        let lines: Vec<_> = table.lines().collect();
        let expected = [
            r"policy      metric                value  labels",
            r#"a           open                    1.5  n="x\x1b y""#,
            r"a           took_seconds      1 x 0.500",
            r"exec-audit  executions_total        121  exe=/bin/11",
        ];
        assert_eq!(lines[..4], expected, "{table}");
        assert_eq!(lines[12], "exec-audit  executions_total          4  exe=/bin/2");
        assert_eq!(lines[13], "exec-audit  executions_total        ...  (2 more)");
        assert_eq!(lines[14..], ["7 events, 2 lost (ring_full)"]);
    }

    #[test]
    fn of_a_long_label_value_the_end_is_shown() {
        let long = format!("/{}/bin/rustc", "x".repeat(100));
        assert_eq!(tail(&long).chars().count(), LABEL);
        assert!(tail(&long).starts_with("...x") && tail(&long).ends_with("x/bin/rustc"));
        assert_eq!(tail("/bin/sh"), "/bin/sh");
    }

    #[test]
    fn without_metrics_only_the_totals_are_shown() {
        let totals = Totals { events: 7, lost: BTreeMap::new() };
        assert_eq!(summary(&[], &totals, Style::Text { colour: false }), "7 events, none lost\n");
    }

    #[test]
    fn json_has_one_line_per_series_and_the_totals_last() {
        let totals = Totals { events: 7, lost: [("ring_full", 2)].into() };
        let text = summary(&families(), &totals, Style::Json);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 15);
        let find = |name: &str| lines.iter().find(|line| line["name"] == name).unwrap().clone();
        assert_eq!(
            find("executions_total"),
            serde_json::json!({
                "type": "metric", "policy": "exec-audit", "name": "executions_total", "kind": "counter", "unit": "",
                "labels": { "exe": "/bin/0" }, "value": 0,
            })
        );
        assert_eq!(find("open")["value"], 1.5);
        assert_eq!(
            find("took_seconds")["buckets"][1],
            serde_json::json!({ "upper_bound": null, "count": 0 })
        );
        assert_eq!(
            lines[14],
            serde_json::json!({ "type": "summary", "events": 7, "lost": { "ring_full": 2 } })
        );
    }

    #[test]
    fn totals_are_summed_over_kinds() {
        let metrics = AgentMetrics::default();
        for kind in ["exec", "exit"] {
            metrics.events.get_or_create(&KindLabels { kind: kind.into() }).inc_by(5);
            let labels = LossLabels { kind: kind.into(), cause: "queue_full".into() };
            metrics.events_lost.get_or_create(&labels).inc_by(2);
        }
        let totals = Totals::of(&metrics, &Kinds::built_in());
        assert_eq!(totals, Totals { events: 10, lost: [("queue_full", 4)].into() });
    }
}
