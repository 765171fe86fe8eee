use std::{sync::Arc, time::Duration};

use super::*;

fn metrics() -> Metrics {
    Metrics::new(Duration::from_mins(10))
}

fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `policy name{label=value,...} value` of each series.
fn shown(metrics: &Metrics) -> Vec<String> {
    metrics
        .families()
        .iter()
        .flat_map(|family| {
            family.series.iter().map(|series| {
                let labels: Vec<_> =
                    series.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
                let value = match &series.value {
                    Value::Counter(count) => count.to_string(),
                    Value::Gauge(value) => value.to_string(),
                    Value::Histogram { sum, buckets } => {
                        format!("{sum} in {:?}", buckets.iter().map(|b| b.1).collect::<Vec<_>>())
                    }
                };
                format!("{} {}{{{}}} {value}", series.policy, family.name, labels.join(","))
            })
        })
        .collect()
}

fn expire(metrics: &Metrics) {
    for _ in 0..series::IDLE_SWEEPS {
        metrics.sweep();
    }
}

#[test]
fn counters_gauges_and_histograms_are_shown_by_name_policy_and_labels() {
    let metrics = metrics();
    let policy = metrics.begin("p", 100);
    policy.counter("shells", &labels(&[("exe", "/bin/sh")])).unwrap().add(2);
    policy.counter("shells", &labels(&[("exe", "/bin/ash")])).unwrap().add(1);
    let gauge = policy.gauge("open", &[]).unwrap();
    gauge.set(4.5);
    gauge.add(-1.0);
    let histogram = policy.histogram("took", &[], &[1.0, 2.0]).unwrap();
    for value in [0.5, 1.0, 1.5, 9.0, f64::NAN, f64::INFINITY] {
        histogram.observe(value);
    }
    assert_eq!(shown(&metrics), [] as [&str; 0], "nothing is shown before the policy is committed");
    policy.reserve().unwrap().commit();
    assert_eq!(
        shown(&metrics),
        [
            "p open{} 3.5",
            "p shells{exe=/bin/ash} 1",
            "p shells{exe=/bin/sh} 2",
            "p took{} 12 in [2, 1, 1]"
        ]
    );
}

#[test]
fn a_counter_never_goes_back_whatever_is_added() {
    let metrics = metrics();
    let policy = metrics.begin("p", 100);
    let counter = policy.counter("n", &[]).unwrap();
    counter.add(u64::MAX - 1);
    counter.add(u64::MAX);
    policy.reserve().unwrap().commit();
    assert_eq!(shown(&metrics), [format!("p n{{}} {}", u64::MAX)]);
}

#[test]
fn a_restarted_instance_and_the_next_generation_count_on() {
    let metrics = metrics();
    let first = metrics.begin("p", 100);
    first.reserve().unwrap().commit();
    first.counter("n", &[]).unwrap().add(1);
    first.counter("n", &[]).unwrap().add(1);
    let old = first.counter("late", &[]);

    let second = metrics.begin("p", 100);
    let new = second.counter("n", &[]).unwrap();
    new.add(1);
    // Both make a series that the other one cannot know of.
    second.counter("late", &[]).unwrap().add(10);
    first.counter("only_first", &[]).unwrap().add(5);
    old.unwrap().add(100);
    second.reserve().unwrap().commit();
    new.add(1);
    assert_eq!(shown(&metrics), ["p late{} 110", "p n{} 4", "p only_first{} 5"]);
}

#[test]
fn a_generation_that_does_not_take_over_changes_nothing() {
    let metrics = metrics();
    let first = metrics.begin("p", 100);
    first.counter("n", &[]).unwrap().add(1);
    first.reserve().unwrap().commit();
    let second = metrics.begin("p", 100);
    second.gauge("n", &[]).unwrap().set(7.0);
    second.counter("other", &[]).unwrap().add(1);
    drop(second);
    first.counter("n", &[]).unwrap().add(1);
    assert_eq!(shown(&metrics), ["p n{} 2"]);
}

#[test]
fn a_generation_may_change_the_type_and_labels_of_its_own_metrics() {
    let metrics = metrics();
    let first = metrics.begin("p", 100);
    first.counter("n", &[]).unwrap().add(1);
    first.reserve().unwrap().commit();
    let second = metrics.begin("p", 100);
    second.counter("n", &labels(&[("a", "b")])).unwrap().add(3);
    second.reserve().unwrap().commit();
    assert_eq!(shown(&metrics), ["p n{a=b} 3"]);
}

#[test]
fn a_name_used_with_another_type_unit_label_set_or_buckets_is_refused_and_the_other_policy_named() {
    let metrics = metrics();
    let first = metrics.begin("first", 100);
    first.counter(Describe { name: "n", unit: "bytes", help: "" }, &labels(&[("a", "")])).unwrap();
    first.histogram("h", &[], &[1.0]).unwrap();
    first.reserve().unwrap().commit();
    let second = metrics.begin("second", 100);
    let unit = Describe { name: "n", unit: "bytes", help: "" };
    let errors = [
        second.gauge(unit, &labels(&[("a", "")])).unwrap_err(),
        second.counter("n", &labels(&[("a", "")])).unwrap_err(),
        second.counter(unit, &labels(&[("b", ""), ("a", "")])).unwrap_err(),
        second.histogram("h", &[], &[2.0]).unwrap_err(),
        second.gauge("h_sum", &[]).unwrap_err(),
    ];
    assert_eq!(
        errors.map(|error| error.to_string()),
        [
            "metric `n` has type gauge here, but policy `first` uses the name with type counter: rename it in one of them",
            "metric `n` has no unit here, but policy `first` uses the name with unit `bytes`: rename it in one of them",
            "metric `n` has labels [a, b] here, but policy `first` uses the name with labels [a]: rename it in one of them",
            "metric `h` has buckets [2.0] here, but policy `first` uses the name with buckets [1.0]: rename it in one of them",
            "metric `h_sum` has the sample `h_sum` here, but policy `first` uses the name with histogram `h`: rename it in one of them",
        ]
    );
    second.counter(unit, &labels(&[("a", "x")])).unwrap();
    second.reserve().unwrap().commit();
}

#[test]
fn of_two_policies_that_load_at_once_the_second_to_commit_is_refused() {
    let metrics = metrics();
    let (first, second) = (metrics.begin("first", 100), metrics.begin("second", 100));
    first.counter("n", &[]).unwrap();
    second.gauge("n", &[]).unwrap();
    first.reserve().unwrap().commit();
    assert!(
        matches!(second.reserve(), Err(MetricError::Conflict { other, .. }) if other == "first")
    );
    assert_eq!(shown(&metrics), ["first n{} 0"]);
}

#[test]
fn names_and_labels_that_the_format_or_the_agent_needs_are_refused() {
    let policy = metrics().begin("p", 100);
    let error = |name: &str, pairs: &[(&str, &str)]| {
        policy.counter(name, &labels(pairs)).unwrap_err().to_string()
    };
    assert!(error("tipstaff_x", &[]).contains("names that begin with `tipstaff_` are the agent's"));
    assert!(error("a b", &[]).contains("metric name \"a b\": expected [a-zA-Z_][a-zA-Z0-9_]*"));
    assert!(error("", &[]).contains("metric name \"\""));
    assert!(error("n", &[("policy", "x")]).contains("sets the label `policy` itself"));
    assert!(error("n", &[("a", "x"), ("a", "y")]).contains("label `a` is given twice"));
    assert!(error("n", &[("a\"", "x")]).contains("label name \"a\\\"\""));
    assert!(policy.histogram("n", &[], &[2.0, 1.0]).is_err());
    assert!(policy.histogram("n", &[], &[f64::INFINITY]).is_err());
}

#[test]
fn label_values_are_escaped_and_cut_at_256_bytes() {
    let metrics = metrics();
    let policy = metrics.begin("p", 100);
    policy
        .counter("n", &labels(&[("a", &"é".repeat(200)), ("b", "x\n\x1b[31m\"")]))
        .unwrap()
        .add(1);
    policy.reserve().unwrap().commit();
    let series = metrics.families().remove(0).series.remove(0);
    assert_eq!(series.labels[0].1, "é".repeat(128));
    assert_eq!(series.labels[1].1, "x\\n\\x1b[31m\"");
}

#[test]
fn above_the_cap_values_go_to_one_series_per_name() {
    let metrics = metrics();
    let policy = metrics.begin("p", 3);
    policy.reserve().unwrap().commit();
    for port in 0..10 {
        policy.counter("n", &labels(&[("port", &port.to_string())])).unwrap().add(1);
    }
    assert_eq!(
        shown(&metrics),
        ["p n{overflow=true} 7", "p n{port=0} 1", "p n{port=1} 1", "p n{port=2} 1"]
    );
    policy.histogram("h", &[], &[1.0]).unwrap().observe(3.0);
    assert_eq!(shown(&metrics)[0], "p h{overflow=true} 3 in [0, 1]");
}

#[test]
fn a_policy_has_no_more_names_than_it_may_have_series() {
    let policy = metrics().begin("p", 3);
    let made = (0..10).filter(|n| policy.counter(format!("n{n}").as_str(), &[]).is_ok()).count();
    let described =
        (0..10).filter(|n| policy.describe(format!("n{n}").as_str().into()).is_ok()).count();
    assert_eq!((made, described), (3, 3));
    assert_eq!(
        policy.gauge("more", &[]).unwrap_err().to_string(),
        "metric `more`: the policy has 3 metrics already; raise `series` in [policy.p.limits]"
    );
}

#[test]
fn a_metric_made_by_its_name_alone_has_the_unit_and_help_it_was_described_with() {
    let metrics = metrics();
    let policy = metrics.begin("p", 9);
    policy
        .describe(Describe { name: "took_seconds", unit: "seconds", help: "How long\n" })
        .unwrap();
    policy.histogram("took_seconds", &[], &[1.0]).unwrap().observe(2.0);
    policy.histogram("took_seconds", &[], &[7.0, 8.0]).unwrap().observe(3.0);
    policy.reserve().unwrap().commit();
    let family = metrics.families().remove(0);
    assert_eq!([&*family.name, &*family.unit, &*family.help], ["took", "seconds", "How long\\n"]);
    assert_eq!(shown(&metrics), ["p took{} 5 in [0, 2]"], "the bounds given first count");
}

#[test]
fn series_with_labels_expire_when_idle_and_make_room() {
    let metrics = metrics();
    let policy = metrics.begin("p", 3);
    policy.reserve().unwrap().commit();
    let busy = policy.counter("n", &labels(&[("a", "busy")])).unwrap();
    let idle = policy.counter("n", &labels(&[("a", "idle")])).unwrap();
    policy.counter("total", &[]).unwrap().add(1);
    idle.add(5);
    for _ in 0..series::IDLE_SWEEPS {
        busy.add(1);
        metrics.sweep();
    }
    assert_eq!(shown(&metrics), ["p n{a=busy} 10", "p total{} 1"]);

    policy.counter("n", &labels(&[("a", "next")])).unwrap().add(1);
    idle.add(1);
    assert_eq!(
        shown(&metrics),
        ["p n{a=busy} 10", "p n{a=next} 1", "p n{overflow=true} 1", "p total{} 1"],
        "a revived series finds no room"
    );
}

#[test]
fn an_expired_series_counts_on_when_its_handle_is_used_again() {
    let metrics = metrics();
    let policy = metrics.begin("p", 3);
    policy.reserve().unwrap().commit();
    let counter = policy.counter("n", &labels(&[("a", "b")])).unwrap();
    counter.add(5);
    expire(&metrics);
    assert_eq!(shown(&metrics), [] as [&str; 0]);
    counter.add(1);
    counter.clone().add(1);
    assert_eq!(shown(&metrics), ["p n{a=b} 7"]);
}

#[test]
fn what_the_next_generation_does_not_use_expires_even_without_labels() {
    let metrics = metrics();
    let first = metrics.begin("p", 3);
    first.counter("gone", &[]).unwrap().add(1);
    first.reserve().unwrap().commit();
    let second = metrics.begin("p", 3);
    second.reserve().unwrap().commit();
    assert_eq!(shown(&metrics), ["p gone{} 1"]);
    expire(&metrics);
    assert_eq!(shown(&metrics), [] as [&str; 0]);
}

#[test]
fn a_removed_policy_takes_its_metrics_and_frees_their_names() {
    let metrics = metrics();
    let first = metrics.begin("first", 3);
    first.counter("n", &[]).unwrap().add(1);
    first.reserve().unwrap().commit();
    metrics.remove("first");
    let second = metrics.begin("second", 3);
    second.gauge("n", &[]).unwrap().set(1.0);
    second.reserve().unwrap().commit();
    assert_eq!(shown(&metrics), ["second n{} 1"]);
}

#[test]
fn the_exposition_has_type_unit_help_and_policy_and_keeps_families_together() {
    let metrics = metrics();
    let agent = Arc::new(AgentMetrics::default());
    for name in ["first", "second"] {
        let policy = metrics.begin(name, 100);
        let read = Describe { name: "read_bytes_total", unit: "bytes", help: "Read\nso far \\o/." };
        policy.counter(read, &labels(&[("file", "a\"b\\c\nd")])).unwrap().add(1);
        policy.histogram("took", &[], &[0.5]).unwrap().observe(0.25);
        policy.reserve().unwrap().commit();
    }
    agent.traps.get_or_create(&PolicyLabels { policy: "first".into() }).inc();
    let text = expose::Exposition::new(&agent, &metrics).text().unwrap();
    let expected = r#"# HELP read_bytes Read\\nso far \\o/.
# TYPE read_bytes counter
# UNIT read_bytes bytes
read_bytes_total{policy="first",file="a\"b\\c\\nd"} 1
read_bytes_total{policy="second",file="a\"b\\c\\nd"} 1
# HELP took From a policy.
# TYPE took histogram
took_sum{policy="first"} 0.25
took_count{policy="first"} 1
took_bucket{le="0.5",policy="first"} 1
took_bucket{le="+Inf",policy="first"} 1
took_sum{policy="second"} 0.25
took_count{policy="second"} 1
took_bucket{le="0.5",policy="second"} 1
took_bucket{le="+Inf",policy="second"} 1
"#;
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains("# TYPE tipstaff_traps counter\ntipstaff_traps_total{policy=\"first\"} 1\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}
