//! `tipstaff explain`: what was decided, and why.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use tipstaff_runtime::{
    config::{Config, Flags},
    escape,
    guard::{Decision, Outcome, Target, decisions},
};

use super::{Format, Usage, arguments::AgentName};

/// Explain a decision about an action, or list the last ones
///
/// Reads what the agent keeps in its `state_dir`; no agent needs to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff explain\n  \
    tipstaff explain 6920a1f2-17\n  \
    tipstaff explain --format json | jq 'select(.outcome == \"refused\")'")]
pub struct Args {
    /// Id of the decision, as the log has it; without one the last decisions are listed
    id: Option<String>,
    /// So many of the last decisions
    #[arg(long, value_name = "N", default_value = "20", conflicts_with = "id")]
    last: usize,
    /// The configuration file, which says where decisions are kept [default: /etc/tipstaff/tipstaff.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    name: AgentName,
    /// How results are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Prints it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { id, last, config, name, format } = args;
    let config = Config::load(config.as_deref(), &Flags::default()).map_err(Usage::of)?;
    let directory = config.agent.state_dir.join(name.or(&config.agent.name));
    let (records, broken) = decisions::read(&directory)?;
    if broken > 0 {
        tracing::warn!("{broken} lines in {} are no decisions", directory.display());
    }
    let mut out = io::stdout().lock();
    let Some(id) = id else {
        // One that was done has a second record.
        let over = |record: &&Decision| record.outcome != Outcome::Decided;
        let records: Vec<_> = records.iter().filter(over).collect();
        let first = records.len().saturating_sub(last);
        for record in &records[first..] {
            print(record, format, false, &mut out)?;
        }
        if records.is_empty() {
            let nothing = format!("no decisions are kept in {}", directory.display());
            note(format, &nothing, &mut out)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let records: Vec<_> = records.into_iter().filter(|record| record.id == id).collect();
    if records.is_empty() {
        bail!("there is no decision `{id}` in {}", directory.display());
    }
    for record in &records {
        print(record, format, true, &mut out)?;
    }
    if records.last().is_some_and(|record| record.outcome == Outcome::Decided) {
        note(format, "the agent ended before it could say what became of it", &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn note(format: Format, text: &str, out: &mut impl Write) -> io::Result<()> {
    if format == Format::Text { writeln!(out, "{}", escape::control(text)) } else { Ok(()) }
}

fn print(record: &Decision, format: Format, whole: bool, out: &mut impl Write) -> io::Result<()> {
    if format == Format::Json {
        return writeln!(out, "{}", escape::json(&serde_json::to_string(record)?));
    }
    let time = i64::try_from(record.time_ns)
        .ok()
        .and_then(|ns| jiff::Timestamp::from_nanosecond(ns.into()).ok())
        .map_or_else(|| "?".to_owned(), |time| format!("{time:.3}"));
    let mut line = |text: String| writeln!(out, "{}", escape::control(&text));
    let who = if record.policy.is_empty() { "all policies" } else { &record.policy };
    line(format!("{}  {time}  {who}  {}  {record}", record.id, record.scope))?;
    if !whole {
        return Ok(());
    }
    let target = record.target.as_ref().map(process);
    let tree: Vec<_> = record.tree.iter().map(process).collect();
    let latency =
        record.latency_ns.map(|ns| format!("{:?} after the event", Duration::from_nanos(ns)));
    let took = record.took_ns.map(|ns| format!("{:?}", Duration::from_nanos(ns)));
    for (name, value) in [
        ("asked for by", record.by.clone()),
        ("cgroup", record.cgroup.clone()),
        ("mode", record.mode.clone()),
        ("strength", record.strength.clone()),
        ("digest", record.digest.clone()),
        ("generation", record.generation.to_string()),
        ("process", target.unwrap_or_default()),
        ("with it", tree.join("; ")),
        ("done", latency.unwrap_or_default()),
        ("took", took.unwrap_or_default()),
    ] {
        if !value.is_empty() {
            line(format!("  {name:<13} {value}"))?;
        }
    }
    Ok(())
}

/// A process, for eyes.
fn process(target: &Target) -> String {
    let Target { pid, start_ns, path, args, cgroup } = target;
    let started = Duration::from_nanos(*start_ns);
    let more = [("runs", path), ("as", &args.join(" ")), ("in", cgroup)];
    let more = more.into_iter().filter(|(_, value)| !value.is_empty());
    let more: Vec<_> = more.map(|(name, value)| format!(", {name} {value}")).collect();
    format!("{pid}, started {started:?} after boot{}", more.concat())
}
