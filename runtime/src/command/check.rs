//! `tipstaff check`: the configuration and the policies, without a kernel.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tipstaff_runtime::{
    config::{Attach, Config, ConfigError, Flags},
    escape,
    kind::Kinds,
    outcome::{AgentMetrics, Alerts, Metrics, Reserved},
    plan,
    policy::{Compiler, MAX_FILE, Outcome, Workshop},
    probe::tracepoint_kind,
    trust::Trust,
    watch,
};

use super::{Format, arguments::Selection};

/// Check the configuration and the policies, without loading anything into the kernel
///
/// Prints every problem with file, line and key. Policies are compiled, and configured with their
/// settings, as `tipstaff run` would do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff check\n  \
    tipstaff check --config ./tipstaff.toml --policies ./policies\n  \
    tipstaff check --policy target/policies/exec-audit.wasm --format json\n\n\
    Exit codes: 0 all is well, 1 a policy does not load, 2 the configuration is wrong.")]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// How results are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Prints every problem.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { selection: Selection { config, policies, policy }, format } = args;
    let flags = Flags { policies, policy, ..Flags::default() };
    let mut report = Report { format, out: io::stdout().lock(), code: 0 };
    match Config::load(config.as_deref(), &flags) {
        Ok(config) => Check::new(&config)?.run(&mut report)?,
        Err(ConfigError::Problems(problems)) => report.configuration(&problems)?,
        Err(ConfigError::File(error)) => report.problem(2, &error.to_string(), None)?,
    }
    Ok(ExitCode::from(report.code))
}

struct Check<'a> {
    config: &'a Config,
    compiler: Compiler,
    outcome: Outcome,
    kinds: Kinds,
    /// Kinds of the configuration whose fields cannot be known here, and why.
    unknown: BTreeMap<String, String>,
    /// Names of metrics are kept for each policy that was checked, so that another one's is found
    /// that uses one otherwise.
    reserved: Vec<Reserved>,
    /// File of each policy that loaded, by name.
    known: BTreeMap<String, PathBuf>,
}

impl<'a> Check<'a> {
    fn new(config: &'a Config) -> anyhow::Result<Self> {
        let cache = &config.agent.cache_dir;
        // What a policy says while it is configured goes nowhere.
        let counts = Arc::new(AgentMetrics::default());
        let (alerts, _) = Alerts::new(1, Arc::clone(&counts));
        let metrics = Metrics::new(Duration::from_hours(1));
        let (mut own, mut unknown) = (Vec::new(), BTreeMap::new());
        for (probe, number) in config.probes.iter().zip(0..) {
            let Attach::Tracepoint { category, name } = &probe.attach;
            match tracepoint_kind(&format!("{category}:{name}"), number, &probe.name) {
                Ok(kind) => own.push(kind),
                Err(error) => {
                    unknown.insert(probe.name.clone(), error.to_string());
                }
            }
        }
        Ok(Self {
            config,
            compiler: Compiler::new(cache, Workshop::this_program(config.compiler))?,
            outcome: Outcome::new(metrics, alerts, counts),
            kinds: Kinds::with(own),
            unknown,
            reserved: Vec::new(),
            known: BTreeMap::new(),
        })
    }

    fn run(mut self, report: &mut Report<impl Write>) -> io::Result<()> {
        let mut files = self.config.agent.policy_files.clone();
        if let Some(directory) = &self.config.agent.policies {
            match watch::files(directory, &Trust::of(self.config.agent.mode)) {
                Ok(found) if found.is_empty() => {
                    let nothing =
                        format!("{}: there is no .wasm file in this directory", shown(directory));
                    report.problem(1, &nothing, None)?;
                }
                Ok(found) => files.extend(found),
                Err(error) => report.problem(1, &error.to_string(), None)?,
            }
        }
        for path in files {
            self.policy(&path, report)?;
        }
        for name in self.config.policies.keys().filter(|name| !self.known.contains_key(*name)) {
            // Perhaps of a policy that is still to come.
            report.note(&format!("[policy.{name}] is of no policy that was checked"))?;
        }
        Ok(())
    }

    fn policy(&mut self, path: &Path, report: &mut Report<impl Write>) -> io::Result<()> {
        let bytes = match Trust::of(self.config.agent.mode).read(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) => return report.problem(1, &error.to_string(), None),
        };
        let loaded = match self.compiler.load_bytes(path, &bytes) {
            Ok(loaded) => loaded,
            Err(error) => return report.problem(1, &error.to_string(), None),
        };
        let name = &loaded.manifest.name;
        if let Some(other) = self.known.insert(name.clone(), path.to_owned()) {
            let double = format!(
                "{}: the policy `{name}` is in {} as well; remove one of them",
                shown(path),
                shown(&other)
            );
            report.problem(1, &double, Some(name))?;
        }
        let section = self.config.policy(name);
        let digest = loaded.digest.to_string();
        if !section.digest.is_empty() && !section.digest.contains(&digest) {
            let refused = format!(
                "{}: [policy.{name}] does not allow this file; if it should, add \"{digest}\" to its `digest`",
                shown(path)
            );
            return report.problem(2, &refused, Some(name));
        }
        let mode = self.config.agent.mode.min(section.mode);
        if let Err(error) = loaded.check_grants(&section, mode) {
            return report.problem(2, &error.to_string(), Some(name));
        }
        let settings = match section.settings.check(&loaded.manifest, self.config.file.as_deref()) {
            Ok(settings) => settings,
            Err(problems) => return report.configuration(&problems),
        };
        let configured = match loaded.configure(settings, &section.limits, &self.outcome) {
            Ok(configured) => configured,
            Err(error) => return report.problem(1, &error.to_string(), Some(name)),
        };
        let subscriptions = &configured.manifest.subscriptions;
        match configured.reserve_metrics() {
            Ok(reserved) => self.reserved.push(reserved),
            Err(error) => return report.problem(1, &error.to_string(), Some(name)),
        }
        // The fields of a tracepoint are only known on the kernel that has it.
        let unknown = subscriptions.iter().find_map(|subscription| {
            let event = &subscription.event;
            Some((event, self.unknown.get(event)?))
        });
        if let Some((event, why)) = unknown {
            report.note(&format!(
                "{}: fields of `{event}` are checked when the agent runs: {why}",
                shown(path)
            ))?;
        } else {
            let withheld: Vec<_> = section.deny_fields.iter().map(ToString::to_string).collect();
            match plan::bind(name, subscriptions, &self.kinds, &withheld) {
                Ok(plan) => plan
                    .notes
                    .iter()
                    .try_for_each(|note| report.note(&format!("policy `{name}`: {note}")))?,
                Err(error) => {
                    return report.problem(1, &format!("{}: {error}", shown(path)), Some(name));
                }
            }
        }
        let events: Vec<_> =
            subscriptions.iter().map(|subscription| &*subscription.event).collect();
        report.good(path, name, &configured.manifest.version, &events)
    }
}

fn shown(path: &Path) -> String {
    escape::control(&path.to_string_lossy()).into_owned()
}

/// Where results go.
struct Report<W> {
    format: Format,
    out: W,
    code: u8,
}

impl<W: Write> Report<W> {
    fn line(&mut self, text: &str, json: &serde_json::Value) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.out, "{}", escape::control(text)),
            Format::Json => writeln!(self.out, "{}", escape::json(&json.to_string())),
        }
    }

    /// A problem that ends with this exit code.
    fn problem(&mut self, code: u8, message: &str, policy: Option<&str>) -> io::Result<()> {
        self.code = self.code.max(code);
        self.line(message, &json!({ "type": "problem", "policy": policy, "message": message }))
    }

    fn configuration(&mut self, problems: &tipstaff_runtime::config::Problems) -> io::Result<()> {
        self.code = 2;
        problems.0.iter().try_for_each(|problem| {
            let json = json!({
                "type": "problem",
                "file": problem.file.to_string_lossy(),
                "line": problem.line,
                "key": problem.key,
                "message": problem.message,
            });
            self.line(&problem.to_string(), &json)
        })
    }

    fn note(&mut self, message: &str) -> io::Result<()> {
        self.line(&format!("note: {message}"), &json!({ "type": "note", "message": message }))
    }

    fn good(&mut self, path: &Path, name: &str, version: &str, events: &[&str]) -> io::Result<()> {
        let path = path.to_string_lossy();
        let json = json!({ "type": "policy", "file": path, "policy": name, "version": version, "events": events });
        self.line(
            &format!("{path}: ok, {name} {version}, subscribes to {}", events.join(", ")),
            &json,
        )
    }
}
