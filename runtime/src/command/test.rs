//! `tipstaff test`: events from a file, through the same path as those from the kernel, and what a
//! policy made of them.

mod compare;
mod find;

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use serde_json::{Value, json};
use tipstaff_runtime::{
    guard::{
        Action, Ask, Desk, Mode, Told,
        paths::{self, PathAsk},
    },
    kind::Kinds,
    outcome::{
        AgentMetrics, Alert, Alerts, FamilySnapshot, MetricKind, Metrics, SeriesSnapshot,
        Value as Number,
    },
    plan,
    policy::{CompileLimits, Compiler, Configured, Limits, Loaded, Outcome, Pool, Workshop},
    reader::{Reader, Subscriber},
    source::jsonl::Jsonl,
};

use super::{Format, Usage};

/// Time that a case may take.
const BOUND: Duration = Duration::from_mins(1);
/// Most alerts of one case.
const ALERTS: usize = 100_000;

/// Run a policy over recorded events and compare what it says with what is expected
///
/// Each `cases/NAME.jsonl` holds events as `tipstaff events --format json` prints them; beside it are
/// `NAME.expected.jsonl` with the alerts, the actions that it asked for and the metrics at the end, and, if needed,
/// `NAME.settings.toml` with settings. Neither root nor a kernel with eBPF is needed. With BLESS=1 in
/// the environment what is expected is written anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff test .\n  \
    tipstaff test policies/exec-audit\n  \
    tipstaff test exec-audit.wasm --cases policies/exec-audit/cases\n  \
    BLESS=1 tipstaff test .")]
pub struct Args {
    /// The policy, or the folder with its source
    policy: PathBuf,
    /// Directory of the cases [default: `cases` in the folder, or beside the file]
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Runs all cases.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { policy, cases, format } = args;
    let found = find::find(&policy, cases).map_err(Usage::of)?;
    let cache = tempfile::tempdir().context("cannot make a directory for compiled code")?;
    let loaded = Compiler::new(cache.path(), Workshop::this_program(CompileLimits::default()))?
        .load(&found.policy)?;
    let bless = env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut out = io::stdout().lock();
    let mut failed = 0;
    for case in &found.cases {
        let name = case.file_stem().unwrap_or_default().to_string_lossy();
        let said = run_case(&loaded, case).with_context(|| format!("case {name}"))?;
        let expected = case.with_extension("expected.jsonl");
        if bless {
            fs::write(&expected, lines(&said))
                .with_context(|| format!("cannot write {}", expected.display()))?;
        }
        let differences = compare::compare(&read_expected(&expected)?, &said);
        failed += u32::from(differences.is_some());
        match (format, &differences) {
            (Format::Json, _) => {
                writeln!(
                    out,
                    "{}",
                    json!({ "case": name, "ok": differences.is_none(), "differences": differences })
                )?;
            }
            (Format::Text, None) => writeln!(out, "ok    {name}")?,
            (Format::Text, Some(differences)) => {
                writeln!(
                    out,
                    "FAIL  {name}: `-` is expected in {}, `+` is what came",
                    expected.display()
                )?;
                for line in differences {
                    writeln!(out, "      {line}")?;
                }
            }
        }
    }
    if failed > 0 {
        if format == Format::Text {
            writeln!(
                out,
                "{failed} of {} cases failed; if that is right, BLESS=1 rewrites what is expected",
                found.cases.len()
            )?;
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn read_expected(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}, line {}", path.display(), number + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

fn lines(values: &[Value]) -> String {
    let mut text = String::new();
    for value in values {
        text += &value.to_string();
        text.push('\n');
    }
    text
}

/// What the policy says about the events of one file: alerts in order, then metrics.
fn run_case(loaded: &Loaded, case: &Path) -> anyhow::Result<Vec<Value>> {
    let kinds = Kinds::built_in();
    let source = Jsonl::open(case, &kinds)?;
    let counts = Arc::new(AgentMetrics::default());
    let (alerts, raised) = Alerts::new(ALERTS, Arc::clone(&counts));
    // Whatever it asks for is noted, as if it were granted and could be done.
    let (desk, told) = Desk::new(true);
    desk.set_mode(&loaded.manifest.name, Mode::Enforce, "");
    let outcome = Outcome::new(Metrics::new(Duration::from_hours(1)), alerts, Arc::clone(&counts))
        .with_desk(desk);
    let pool = Pool::new(1, outcome.clone()).context("cannot start a thread")?;
    let policy = pool.start(configure(loaded, case, &outcome)?)?;

    let manifest = policy.manifest();
    let plan = Arc::new(plan::bind(&manifest.name, &manifest.subscriptions, &kinds, &[])?);
    let subscriber =
        Subscriber { plan, queue: Arc::clone(policy.queue()), latency: Duration::from_millis(1) };
    let reader =
        Reader::start(source, &kinds, counts, vec![subscriber]).context("cannot start a thread")?;
    ensure!(reader.wait_for_end(BOUND), "the events were not read within {BOUND:?}");
    reader.stop();
    ensure!(policy.stop(BOUND), "the policy did not end within {BOUND:?}");
    let traps = policy.numbers().traps;
    ensure!(traps == 0, "the policy failed {traps} times; the log says where");

    let mut said: Vec<Value> = raised.try_iter().map(|alert| alert_line(&alert)).collect();
    said.extend(told.try_iter().map(|told| action_line(&told)));
    for family in outcome.metrics.families() {
        said.extend(family.series.iter().map(|series| metric_line(&family, series)));
    }
    Ok(said)
}

/// Gives the policy the settings of a case, and limits that no case reaches.
fn configure(loaded: &Loaded, case: &Path, outcome: &Outcome) -> anyhow::Result<Configured> {
    let path = case.with_extension("settings.toml");
    let given = match fs::read_to_string(&path) {
        Ok(text) => text.parse().map_err(|error| anyhow!("{}: {error}", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => toml::Table::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let settings = loaded.manifest.settings(&given)?;
    let limits = Limits {
        queue: usize::MAX,
        cpu_percent: u32::MAX,
        alerts_burst: u32::MAX,
        log_lines_burst: u32::MAX,
        ..Limits::default()
    };
    let mut configured = loaded.configure(settings, &limits, outcome)?;
    // How often time passes while a case runs would depend on the machine: there is a last tick only.
    configured.manifest.tick_ns = None;
    Ok(configured)
}

fn object(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

/// An alert without what differs from run to run.
fn alert_line(alert: &Alert) -> Value {
    let Alert { policy: _, wall_ns: _, severity, message, labels } = alert;
    json!({ "type": "alert", "severity": severity.name(), "message": message, "labels": object(labels) })
}

/// What it asked for, or why that was refused at once.
fn action_line(told: &Told) -> Value {
    match told {
        Told::Ask(Ask { policy: _, scope, guard, number: _, action }) => {
            let what = match action {
                Action::Set { table, .. } => table.to_string(),
                Action::Add(rule) => rule.to_string(),
                Action::Clear => String::new(),
            };
            json!({ "type": "action", "action": action.name(), "scope": scope.to_string(), "guard": guard, "what": what })
        }
        Told::Paths(PathAsk { policy: _, grant, table }) => {
            json!({ "type": "action", "action": paths::action(*grant), "scope": "command", "what": table.to_string() })
        }
        Told::Refused { policy: _, scope, action, reason } => {
            json!({ "type": "action", "action": action, "scope": scope, "refused": reason })
        }
        Told::Signal(ask) => {
            json!({ "type": "action", "action": ask.action(), "signal": ask.signal.to_string(), "pid": ask.pid, "start": ask.start })
        }
        Told::Tripped(_) => json!({ "type": "action", "action": "breaker" }),
    }
}

fn metric_line(family: &FamilySnapshot, series: &SeriesSnapshot) -> Value {
    let FamilySnapshot { name, kind, unit, .. } = family;
    let unit = if unit.is_empty() { String::new() } else { format!("_{unit}") };
    let suffix = if *kind == MetricKind::Counter { "_total" } else { "" };
    let value = match &series.value {
        Number::Counter(count) => json!(count),
        Number::Gauge(value) => json!(value),
        Number::Histogram { sum, buckets } => {
            let buckets = buckets.iter().map(|(bound, count)| json!({ "up_to": bound.is_finite().then_some(bound), "count": count }));
            json!({ "sum": sum, "buckets": buckets.collect::<Vec<_>>() })
        }
    };
    json!({ "type": "metric", "name": format!("{name}{unit}{suffix}"), "labels": object(&series.labels), "value": value })
}
