//! `tipstaff events`: live events, decoded. It asks for rows as a policy does, and prints them.

mod list;
mod print;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use crossbeam_channel::{Receiver, bounded, never, select};
use tipstaff_runtime::{
    decode::{self, Decoder},
    escape,
    kind::{Kind, Kinds},
    nearest,
    outcome::AgentMetrics,
    plan::{self, Plan, bind_to_decode},
    predicate::Predicate,
    probe::{Coverage, Probes, Report, RingSizes},
    queue::Queue,
    reader::{Reader, Subscriber},
    source::Rings,
};

use super::{Format, Usage, arguments};

/// How long an event waits for others before it is printed.
const LATENCY: Duration = Duration::from_millis(20);
/// Bytes of events that may wait to be printed.
const QUEUE_BYTES: usize = 64 << 20;
/// How long standard output may take to accept the last events.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long to wait for the process table before saying that all is ready.
const SETTLE: Duration = Duration::from_secs(2);
/// What stands before the name of a tracepoint.
const TRACEPOINT: &str = "tracepoint:";

/// Print events of the kernel as they happen
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff events exec exit\n  \
    tipstaff events open --where 'path ^= /etc/ and result < 0' --duration 10s\n  \
    tipstaff events connect --fields comm,address,port,outcome,container.id --format json\n  \
    tipstaff events tracepoint:block:block_rq_complete\n  \
    tipstaff events --list\n  \
    tipstaff events exec --list\n\n\
    Conditions compare fields by = != < <= > >=, texts also by ~ (contains), ^= (begins with) and $= \
    (ends with), addresses with networks such as 10.0.0.0/8; `and`, `or`, `not` and parentheses put \
    them together. Lost events are told where they are missing, as lines of the kind `gap`, and on \
    standard error.")]
pub struct Args {
    /// Kinds of events, or tracepoints as tracepoint:CATEGORY:NAME
    #[arg(value_name = "KIND", required_unless_present = "list")]
    kinds: Vec<String>,
    /// Print only events for which this holds
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Print only these fields; `all` for all, with those that cost look-ups
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    fields: Vec<String>,
    /// End after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = arguments::time)]
    duration: Option<Duration>,
    /// How events are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// List the kinds, or the fields of these kinds, and watch nothing
    #[arg(long)]
    list: bool,
}

/// Prints events until the time is over, a signal comes, or nobody reads any more.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { kinds: names, condition, fields, duration, format, list } = args;
    let has_tracepoints = names.iter().any(|name| name.starts_with(TRACEPOINT));
    // What can be known without the kernel's help is told before anything is asked of it.
    let mut kinds = Kinds::built_in();
    for name in names.iter().filter(|name| !name.starts_with(TRACEPOINT)) {
        find(&kinds, name)?;
    }
    if list && !has_tracepoints {
        return list::list(&kinds, &names, format);
    }
    let wish = Wish { names, condition, fields };
    if !has_tracepoints {
        wish.plan(&kinds)?;
    }
    let mut probes = Probes::open(RingSizes::default())?;
    if has_tracepoints {
        kinds = with_tracepoints(&wish.names, &mut probes)?;
    }
    if list {
        return list::list(&kinds, &wish.names, format);
    }
    let plan = Arc::new(wish.plan(&kinds)?);

    let stop = signals()?;
    let metrics = Arc::new(AgentMetrics::default());
    let (wake, ready) = bounded(1);
    let ready_again = move || {
        // If it is full the printer is told already.
        let _ = wake.try_send(());
    };
    let queue = Arc::new(Queue::new(QUEUE_BYTES, ready_again));
    let subscriber =
        Subscriber { plan: Arc::clone(&plan), queue: Arc::clone(&queue), latency: LATENCY };
    let report = probes.apply(&plan::union([&*plan].into_iter()))?;
    tell_coverage(&report, &plan, &kinds)?;
    let reader =
        Reader::start(Rings::new(&probes)?, &kinds, Arc::clone(&metrics), vec![subscriber])?;
    let printer = print::Printer::start(queue, ready, Decoder::new(&plan, &kinds), format)?;
    reader.settle(SETTLE);
    eprintln!("tipstaff: ready");

    let end =
        duration.map_or_else(never, |duration| crossbeam_channel::at(Instant::now() + duration));
    select! {
        recv(end) -> _ => {}
        recv(stop) -> _ => {}
        recv(printer.closed()) -> _ => {}
    }
    // The probes first, so that everything that they saw is printed.
    drop(probes);
    reader.stop();
    let totals = printer.finish(LAST_WORDS)?;
    let lost =
        if totals.lost > 0 { format!(", {} lost", totals.lost) } else { ", none lost".to_owned() };
    eprintln!("tipstaff: {} events{lost}", totals.events);
    Ok(ExitCode::SUCCESS)
}

/// What is to be printed.
struct Wish {
    names: Vec<String>,
    condition: Option<String>,
    fields: Vec<String>,
}

impl Wish {
    fn plan(&self, kinds: &Kinds) -> anyhow::Result<Plan> {
        let mut asked: Vec<Arc<Kind>> = Vec::new();
        for name in &self.names {
            let kind = find(kinds, name)?;
            if !asked.iter().any(|other| other.id == kind.id) {
                asked.push(Arc::clone(kind));
            }
        }
        self.check_fields(&asked)?;
        let subscriptions: Vec<_> =
            asked.iter().map(|kind| decode::subscription(kind, self.fields_of(kind))).collect();
        let mut plan = bind_to_decode("events", &subscriptions, kinds).map_err(Usage::of)?;
        if let Some(condition) = &self.condition {
            for (index, kind) in asked.iter().enumerate() {
                plan.filter(index, Predicate::parse(condition, kind).map_err(Usage::of)?);
            }
        }
        Ok(plan)
    }

    fn fields_of<'a>(&'a self, kind: &'a Kind) -> Vec<&'a str> {
        if self.fields.iter().any(|field| field == "all") {
            kind.fields.iter().map(|field| field.name.as_ref()).collect()
        } else if self.fields.is_empty() {
            decode::own_fields(kind).collect()
        } else {
            self.fields.iter().map(String::as_str).collect()
        }
    }

    /// A field that only some of the kinds have is printed for those.
    fn check_fields(&self, kinds: &[Arc<Kind>]) -> anyhow::Result<()> {
        for field in self.fields.iter().filter(|field| *field != "all") {
            if !kinds.iter().any(|kind| kind.field(field).is_some()) {
                let all = kinds
                    .iter()
                    .flat_map(|kind| kind.fields.iter().map(|field| field.name.as_ref()));
                let hint = nearest::hint(field, all);
                return Err(Usage::of(anyhow!(
                    "--fields: none of these events has a field `{field}`{hint}"
                )));
            }
        }
        Ok(())
    }
}

fn find<'k>(kinds: &'k Kinds, name: &str) -> anyhow::Result<&'k Arc<Kind>> {
    let name = name.strip_prefix(TRACEPOINT).unwrap_or(name);
    kinds.named(name).ok_or_else(|| {
        let hint = nearest::hint(name, kinds.iter().map(|kind| kind.name.as_ref()));
        Usage::of(anyhow!("there is no event `{name}`{hint}; `tipstaff events --list` shows all"))
    })
}

/// The built-in kinds, and a kind for each tracepoint.
fn with_tracepoints(names: &[String], probes: &mut Probes) -> anyhow::Result<Kinds> {
    let mut more: Vec<Kind> = Vec::new();
    for spec in names.iter().filter_map(|name| name.strip_prefix(TRACEPOINT)) {
        if !more.iter().any(|kind| kind.name == spec) {
            more.push(probes.tracepoint(spec, spec).map_err(Usage::of)?);
        }
    }
    Ok(Kinds::with(more))
}

/// Says what is not seen, or not all of it. Fails if nothing that was asked for is seen.
fn tell_coverage(report: &Report, plan: &Plan, kinds: &Kinds) -> anyhow::Result<()> {
    let mut seen = false;
    for bound in plan.bound() {
        let Some(kind) = kinds.get(bound.kind) else { continue };
        let Some(found) = report.get(&bound.kind) else { continue };
        seen |= !matches!(found.coverage, Coverage::None(_));
        if matches!(found.coverage, Coverage::Full | Coverage::Unverified) {
            continue;
        }
        eprintln!(
            "tipstaff: {}: coverage {}",
            kind.name,
            escape::control(&found.coverage.to_string())
        );
        for rejected in &found.rejected {
            let (hook, reason) =
                (escape::control(&rejected.hook), escape::control(&rejected.reason));
            eprintln!("tipstaff: {}: tried {hook}: {reason}", kind.name);
        }
    }
    if seen { Ok(()) } else { bail!("this kernel shows none of these events") }
}

/// A channel that hears of SIGINT and SIGTERM.
fn signals() -> anyhow::Result<Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot listen for signals")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let (tell, told) = bounded(1);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        drop(tell);
    })?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(names: &[&str], condition: Option<&str>, fields: &[&str]) -> anyhow::Result<Plan> {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let wish =
            Wish { names: own(names), condition: condition.map(Into::into), fields: own(fields) };
        wish.plan(&Kinds::built_in())
    }

    fn message(names: &[&str], condition: Option<&str>, fields: &[&str]) -> String {
        let error = plan(names, condition, fields).unwrap_err();
        assert!(error.is::<Usage>(), "{error:#} is an error of usage");
        format!("{error:#}")
    }

    #[test]
    fn what_was_mistyped_is_told_with_what_was_meant() {
        assert_eq!(
            message(&["exce"], None, &[]),
            "there is no event `exce`; the nearest is `exec`; `tipstaff events --list` shows all"
        );
        assert_eq!(
            message(&["exec"], None, &["pth"]),
            "--fields: none of these events has a field `pth`; the nearest is `path`"
        );
        assert_eq!(
            message(&["exec"], Some("uidd = 0"), &[]),
            "event `exec` has no field `uidd`; the nearest is `uid`"
        );
    }

    #[test]
    fn every_kind_can_be_printed_with_every_field() {
        let kinds = Kinds::built_in();
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name.as_ref()).collect();
        let plan = plan(&names, None, &["all"]).unwrap();
        assert_eq!(plan.bound().count(), names.len());
    }

    #[test]
    fn a_field_that_only_one_kind_has_is_printed_for_that_one() {
        let plan = plan(&["exec", "exit", "exec"], None, &["path", "pid"]).unwrap();
        let columns: Vec<usize> = plan.bound().map(|bound| bound.columns.len()).collect();
        assert_eq!(columns, [3, 2]);
    }
}
