//! `tipstaff plan`: what the policies ask for, and what would be done for it on this kernel.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tipstaff_events::sample::Sample;
use tipstaff_runtime::{
    config::{Attach, Config, ConfigError, Flags},
    escape,
    guard::{Grant, Mode},
    kind::{Kind, Kinds},
    outcome::{AgentMetrics, Alerts, Metrics},
    plan::{self, Bound, Plan, Union},
    policy::{Compiler, MAX_FILE, Outcome, Workshop, grants},
    probe::{KindReport, Probes, Report, RingSizes, tracepoint_kind},
    trust::Trust,
    watch,
};

use super::{Format, Usage, arguments::Selection};

/// Show how policies would be served on this kernel, as EXPLAIN shows a query plan
///
/// For each policy: the kinds and fields that it gets, and where its conditions are tested. For each kind:
/// how well it is seen, by which hooks, which other hooks were tried and what the kernel said, and what
/// it costs where that was measured. For each map: its size. The probes are attached for a moment to see
/// whether they work; no policy is started. Without root only the policies' side is known.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff plan\n  \
    tipstaff plan --policies ./policies\n  \
    tipstaff plan --policy target/policies/syscall-profile.wasm --format json")]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// How the plan is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// What a kind was measured to cost who makes its events: benches/results/2026-11-20.md. Others were not
/// measured.
const MEASURED: &[(&str, &str)] =
    &[("syscall_stats", "54 to 61 ns for each system call of the machine, 260 ns with latencies")];

/// Prints the plan.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { selection: Selection { config, policies, policy }, format } = args;
    let flags = Flags { policies, policy, ..Flags::default() };
    let config = Config::load(config.as_deref(), &flags).map_err(|error| match error {
        ConfigError::Problems(problems) => Usage::of(anyhow::anyhow!("{problems}")),
        ConfigError::File(error) => Usage::of(error),
    })?;
    let mut printer = Printer { format, out: io::stdout().lock() };
    let mut probes = Probes::open(RingSizes::default());
    if let Ok(probes) = &mut probes {
        probes.limit_keys(config.agent.keys);
    }
    let kinds = kinds(&config, probes.as_mut().ok(), &mut printer)?;
    let plans = plans(&config, &kinds)?;
    let union = plan::union(plans.iter().map(|planned| &planned.plan));
    for planned in &plans {
        printer.policy(planned, &union, &kinds)?;
    }
    if let Some(percent) = config.agent.cpu_percent {
        printer.agent_budget(percent, &plans, &union, &kinds)?;
    }
    if let Some(events) = config.agent.events_per_cgroup {
        printer.cgroup_budget(events, &union, &kinds)?;
    }
    match &mut probes {
        Ok(probes) => {
            let report = probes.apply(&union)?;
            printer.kinds(&report, &union, &kinds)?;
            printer.maps(probes)?;
        }
        Err(error) => printer.note(&format!("hooks, coverage and maps are not known: {error}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A policy as it would run.
struct Planned {
    name: String,
    version: String,
    /// The conditions of its manifest, by index.
    conditions: Vec<Option<String>>,
    plan: Plan,
    /// What it may have done to the machine.
    guards: Vec<Grant>,
    /// Whether it would be done.
    enforces: bool,
}

/// What an action of this capability promises, and what it takes.
fn promise(guard: Grant) -> Option<(&'static str, &'static str)> {
    let strength = guard.strength()?.name();
    let how = match guard {
        Grant::Network => "proven on a child of the agent's before the first table is put in force",
        Grant::File | Grant::Exec => {
            "in `tipstaff exec` alone, proven on children of the agent's before the command starts"
        }
        Grant::Signal => "sent by the agent after the fact: what it is sent upon has happened once",
        Grant::Urgent => return None,
    };
    Some((strength, how))
}

/// The kinds of this agent.
fn kinds(
    config: &Config,
    mut probes: Option<&mut Probes>,
    printer: &mut Printer<impl Write>,
) -> anyhow::Result<Kinds> {
    let mut own = Vec::new();
    for (probe, number) in config.probes.iter().zip(0..) {
        let Attach::Tracepoint { category, name } = &probe.attach;
        let spec = format!("{category}:{name}");
        let kind = match &mut probes {
            Some(probes) => probes.tracepoint(&spec, &probe.name),
            None => tracepoint_kind(&spec, number, &probe.name),
        };
        match kind {
            Ok(kind) => own.push(kind),
            Err(error) => printer.note(&format!("probe `{}`: {error}", probe.name))?,
        }
    }
    Ok(Kinds::with(own))
}

fn plans(config: &Config, kinds: &Kinds) -> anyhow::Result<Vec<Planned>> {
    let mut files = config.agent.policy_files.clone();
    if let Some(directory) = &config.agent.policies {
        files.extend(watch::files(directory, &Trust::of(config.agent.mode))?);
    }
    // What a policy says while it is configured goes nowhere.
    let counts = Arc::new(AgentMetrics::default());
    let (alerts, _) = Alerts::new(1, Arc::clone(&counts));
    let outcome = Outcome::new(Metrics::new(Duration::from_hours(1)), alerts, counts);
    let workshop = Workshop::this_program(config.compiler);
    let compiler = Compiler::new(&config.agent.cache_dir, workshop)?;
    files.iter().map(|path| planned(path, config, kinds, &compiler, &outcome)).collect()
}

fn planned(
    path: &Path,
    config: &Config,
    kinds: &Kinds,
    compiler: &Compiler,
    outcome: &Outcome,
) -> anyhow::Result<Planned> {
    let loaded = compiler.load_bytes(path, &Trust::of(config.agent.mode).read(path, MAX_FILE)?)?;
    let name = loaded.manifest.name.clone();
    let section = config.policy(&name);
    let file = config.file.as_deref();
    let within = || format!("policy `{name}` in {}", path.display());
    loaded.check_grants(&section, config.agent.mode.min(section.mode))?;
    let settings = section
        .settings
        .check(&loaded.manifest, file)
        .map_err(|problems| anyhow::anyhow!("{problems}"))
        .with_context(within)?;
    let configured = loaded.configure(settings, &section.limits, outcome)?;
    let withheld: Vec<_> = section.deny_fields.iter().map(ToString::to_string).collect();
    let subscriptions = &configured.manifest.subscriptions;
    let mut plan = plan::bind(&name, subscriptions, kinds, &withheld).with_context(within)?;
    section
        .filter
        .apply(&name, &mut plan, kinds, file)
        .map_err(|problems| anyhow::anyhow!("{problems}"))
        .with_context(within)?;
    if !section.grants.contains(&Grant::Urgent) {
        plan.calm(&name);
    }
    Ok(Planned {
        version: configured.manifest.version.clone(),
        conditions: subscriptions.iter().map(|asked| asked.condition.clone()).collect(),
        name,
        plan,
        guards: grants(&loaded.imports).collect(),
        enforces: config.agent.mode.min(section.mode) == Mode::Enforce
            && grants(&loaded.imports).next().is_some(),
    })
}

/// Where the plan goes.
struct Printer<W> {
    format: Format,
    out: W,
}

impl<W: Write> Printer<W> {
    /// An object, or these lines.
    fn say(&mut self, json: &Value, lines: &[String]) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(self.out, "{}", escape::json(&json.to_string())),
            Format::Text => {
                lines.iter().try_for_each(|line| writeln!(self.out, "{}", escape::control(line)))
            }
        }
    }

    fn note(&mut self, message: &str) -> io::Result<()> {
        self.say(&json!({ "type": "note", "message": message }), &[format!("note: {message}")])
    }

    fn policy(&mut self, planned: &Planned, union: &Union, kinds: &Kinds) -> io::Result<()> {
        let Planned { name, version, conditions, plan, guards, enforces: _ } = planned;
        let mut lines = vec![format!("policy {name} {version}")];
        let promises = guards.iter().filter_map(|guard| Some((guard.name(), promise(*guard)?)));
        let promises: Vec<_> = promises.collect();
        lines.extend(
            promises.iter().map(|(guard, (strength, how))| format!("  {guard}: {strength}, {how}")),
        );
        let promises: Vec<_> = promises
            .iter()
            .map(|(guard, (strength, how))| json!({ "guard": guard, "strength": strength, "how": how }))
            .collect();
        let mut subscriptions = Vec::new();
        for bound in plan.bound() {
            let condition = conditions.get(usize::from(bound.index)).and_then(Option::as_deref);
            let kind = kind_name(bound.kind, kinds);
            let fields: Vec<&str> =
                bound.columns.iter().map(|column| column.name.as_str()).collect();
            let tested = tested(bound, union);
            let every = bound.fold.as_ref().map(|fold| Duration::from_nanos(fold.every_ns()));
            lines.push(match every {
                Some(every) => format!("  {kind}, added up in the kernel, rows every {every:?}"),
                None if bound.urgent => format!("  {kind}, urgent"),
                None => format!("  {kind}"),
            });
            lines.push(format!("    fields  {}", fields.join(", ")));
            if bound.sample != Sample::ALL {
                let kernel = union
                    .filters
                    .get(&bound.kind)
                    .map_or(Sample::ALL, |filter| filter.sample().asked());
                let taken = match bound.sample.after(kernel) {
                    (Sample::ALL, _) => "taken in the kernel",
                    _ if kernel == Sample::ALL => "taken by the agent",
                    _ => "taken in the kernel as far as others allow, then by the agent",
                };
                lines.push(format!("    sample  {}, {taken}", bound.sample));
            }
            if let Some(tested) = tested {
                lines.push(format!("    where   {}, {tested}", condition.unwrap_or("(operator)")));
            }
            subscriptions.push(json!({
                "kind": kind,
                "fields": fields,
                "where": condition,
                "tested": tested,
                "urgent": bound.urgent,
                "sample": bound.sample.every(),
                "sample_by": bound.sample.by().to_string(),
                "every_ns": bound.fold.as_ref().map(tipstaff_runtime::fold::Fold::every_ns),
            }));
        }
        lines.extend(plan.notes.iter().map(|note| format!("  note: {note}")));
        let json = json!({ "type": "policy", "policy": name, "version": version, "guards": promises, "subscriptions": subscriptions, "notes": plan.notes });
        self.say(&json, &lines)
    }

    fn kinds(&mut self, report: &Report, union: &Union, kinds: &Kinds) -> io::Result<()> {
        for (id, KindReport { coverage, hooks: _, programs, rejected }) in report {
            let name = kind_name(*id, kinds);
            let collected = kinds.get(*id).map(|kind| collected(kind, union)).unwrap_or_default();
            let cost = MEASURED.iter().find(|(kind, _)| *kind == name).map(|(_, cost)| *cost);
            let mut lines = vec![
                format!("kind {name}: coverage {coverage}"),
                format!("  hooks      {}", programs.join(", ")),
            ];
            lines.extend(
                rejected
                    .iter()
                    .map(|tried| format!("  rejected   {}: {}", tried.hook, tried.reason)),
            );
            lines.push(format!("  collected  {}", collected.join(", ")));
            lines.push(format!("  cost       {}", cost.unwrap_or("not measured")));
            let rejected: Vec<_> = rejected
                .iter()
                .map(|tried| json!({ "hook": tried.hook, "reason": tried.reason }))
                .collect();
            let json = json!({
                "type": "kind",
                "kind": name,
                "coverage": coverage.to_string(),
                "hooks": programs,
                "rejected": rejected,
                "collected": collected,
                "filtered": union.filters.contains_key(id),
                "cost": cost,
            });
            self.say(&json, &lines)?;
        }
        Ok(())
    }

    fn agent_budget(
        &mut self,
        percent: u32,
        plans: &[Planned],
        union: &Union,
        kinds: &Kinds,
    ) -> io::Result<()> {
        let needed = |kind: &u16| {
            plans.iter().any(|planned| planned.enforces && planned.plan.wanted.contains_key(kind))
        };
        let thinnable = union.bounded.iter().filter(|kind| !needed(kind));
        let thinnable: Vec<_> = thinnable.map(|kind| kind_name(*kind, kinds)).collect();
        let json = json!({ "type": "agent_budget", "cpu_percent": percent, "kinds": thinnable });
        let of = if thinnable.is_empty() { "no kind".to_owned() } else { thinnable.join(", ") };
        self.say(
            &json,
            &[format!("agent: {percent} % of a core, else fewer events are taken of {of}")],
        )
    }

    fn cgroup_budget(&mut self, events: u32, union: &Union, kinds: &Kinds) -> io::Result<()> {
        let bounded: Vec<_> = union.bounded.iter().map(|kind| kind_name(*kind, kinds)).collect();
        let json =
            json!({ "type": "cgroup_budget", "events_per_second": events, "kinds": bounded });
        let of = if bounded.is_empty() { "no kind".to_owned() } else { bounded.join(", ") };
        self.say(&json, &[format!("each cgroup: {events} events per second of {of}")])
    }

    fn maps(&mut self, probes: &Probes) -> io::Result<()> {
        let mut total = 0;
        for map in probes.maps() {
            total += map.bytes;
            let json = json!({ "type": "map", "map": map.name, "object": map.object, "entries": map.entries, "bytes": map.bytes });
            let (name, object) = (&map.name, map.object);
            let (entries, size) = (map.entries, size(map.bytes));
            self.say(&json, &[format!("map {name} of {object}: {entries} entries, {size}")])?;
        }
        self.say(
            &json!({ "type": "maps", "bytes": total }),
            &[format!("all maps: {}", size(total))],
        )
    }
}

fn kind_name(id: u16, kinds: &Kinds) -> &str {
    kinds.get(id).map_or("", |kind| &kind.name)
}

/// Where the condition of a subscription is tested, if it has one.
fn tested(bound: &Bound, union: &Union) -> Option<&'static str> {
    let filter = bound.filter.as_ref()?;
    let is_pushed = union.filters.get(&bound.kind).is_some_and(|filter| filter.count > 0);
    Some(match (is_pushed, filter.is_pushed_whole()) {
        (true, true) => "tested in the kernel",
        (true, false) => "tested in the kernel as far as it can, then by the agent",
        (false, _) => "tested by the agent",
    })
}

/// The fields that probes collect: those that cost nothing are always there.
fn collected(kind: &Kind, union: &Union) -> Vec<String> {
    let word = union.wanted.get(&kind.id).copied().unwrap_or(0);
    let asked = kind.fields.iter().filter(|field| {
        matches!(field.from, tipstaff_runtime::kind::From::Record { .. })
            && (field.wanted == 0 || word & field.wanted == field.wanted)
    });
    asked.map(|field| field.name.to_string()).collect()
}

/// For eyes.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
