//! From what was typed in the file and on the command line to what will run: over the defaults.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use super::{
    document::At,
    effective::{Agent, Config, Flags, Guard, Metrics, Policy, Probe},
    problem::{Problem, Problems},
    typed,
    value::{DenyField, Listen, no_such},
};
use crate::{
    guard::Mode,
    kind::Kinds,
    policy::{CompileLimits, Limits},
};

impl Config {
    pub(super) fn resolve(
        typed: typed::File,
        file: Option<&Path>,
        flags: &Flags,
    ) -> Result<Self, Problems> {
        let mut problems = Problems(Vec::new());
        let typed::File { agent, compiler, metrics, guard, limits, probe, policy } = typed;
        let limits = limits_with(&Limits::default(), value(limits));
        let agent = Agent::default().with(value(agent), file, flags);
        let compiler = compiler_with(CompileLimits::default(), value(compiler));
        let metrics = Metrics::default().with(value(metrics), file, flags.metrics, &mut problems);
        let guard = Guard::default().with(value(guard));
        let probes = probes(value(probe), file, &mut problems);
        let mut policies = BTreeMap::new();
        for (name, policy) in value(policy) {
            let typed::Policy {
                digest,
                mode,
                grants,
                unpinned,
                require,
                on_quarantine,
                deny_fields,
                filter,
                limits: own,
                settings,
            } = policy.value;
            let deny_fields = value(deny_fields);
            check_fields(&name.0, &deny_fields, &probes, file, &mut problems);
            let filter = value(filter);
            problems.0.extend(filter.check(&name.0, &probes, file));
            let policy = Policy {
                digest: value(digest).into_iter().map(|digest| digest.0).collect(),
                mode: or(mode, Mode::Enforce),
                grants: value(grants),
                unpinned: value(unpinned),
                require: require.map(|at| at.value),
                on_quarantine: value(on_quarantine),
                deny_fields: deny_fields.into_iter().map(|field| field.value).collect(),
                filter,
                limits: limits_with(&limits, value(own)),
                settings: value(settings),
            };
            policies.insert(name.0, policy);
        }
        if !problems.0.is_empty() {
            problems.0.sort_by_key(|problem| problem.line);
            return Err(problems);
        }
        Ok(Self {
            file: file.map(Path::to_owned),
            agent,
            compiler,
            metrics,
            guard,
            limits,
            probes,
            policies,
        })
    }
}

fn value<T: Default>(typed: Option<At<T>>) -> T {
    typed.map(|at| at.value).unwrap_or_default()
}

fn or<T>(typed: Option<At<T>>, default: T) -> T {
    typed.map_or(default, |at| at.value)
}

impl Agent {
    fn with(self, typed: typed::Agent, file: Option<&Path>, flags: &Flags) -> Self {
        let typed::Agent {
            name,
            mode,
            policies,
            cache_dir,
            state_dir,
            latency,
            keys,
            cpu_percent,
            events_per_cgroup,
        } = typed;
        let Flags { name: name_flag, policies: policies_flag, policy, metrics: _ } = flags;
        // Paths in the file start where the file is, those on the command line where the user is.
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        let in_file = |path: Option<At<PathBuf>>| path.map(|path| folder.join(path.value));
        let policies = match (policies_flag, &policy[..]) {
            (Some(flag), _) => Some(flag.clone()),
            (None, []) => in_file(policies).or(self.policies),
            (None, _) => None,
        };
        Self {
            name: name_flag
                .as_ref()
                .map_or_else(|| name.map_or(self.name, |at| at.value.0), |flag| flag.0.clone()),
            mode: or(mode, self.mode),
            policies,
            policy_files: policy.clone(),
            cache_dir: in_file(cache_dir).unwrap_or(self.cache_dir),
            state_dir: in_file(state_dir).unwrap_or(self.state_dir),
            latency: latency.map_or(self.latency, |at| at.value.0),
            keys: keys.map_or(self.keys, |at| at.value.0),
            cpu_percent: cpu_percent.map(|at| at.value.0),
            events_per_cgroup: events_per_cgroup.map(|at| at.value.0),
        }
    }
}

impl Guard {
    fn with(self, typed: typed::Guard) -> Self {
        let typed::Guard { always_allow, protected, actions_per_minute, breaker } = typed;
        Self {
            always_allow: always_allow.map_or(self.always_allow, |at| {
                at.value.into_iter().map(|allowed| allowed.0).collect()
            }),
            protected: or(protected, self.protected),
            actions_per_minute: actions_per_minute.map_or(self.actions_per_minute, |at| at.value.0),
            breaker: breaker.map_or(self.breaker, |at| at.value.0),
        }
    }
}

impl Metrics {
    fn with(
        self,
        typed: typed::Metrics,
        file: Option<&Path>,
        flag: Option<Listen>,
        problems: &mut Problems,
    ) -> Self {
        let typed::Metrics { listen, allow_remote, idle_expiry } = typed;
        let line = listen.as_ref().filter(|_| flag.is_none()).map(|at| at.line);
        let asked = flag.or(listen.map(|at| at.value));
        let listen = asked.unwrap_or(self.listen);
        if let Listen::On(address) = listen
            && !address.ip().is_loopback()
            && !or(allow_remote, false)
        {
            problems.0.push(Problem {
                file: file.filter(|_| line.is_some()).unwrap_or(Path::new("--metrics")).to_owned(),
                line,
                key: if line.is_some() { "metrics.listen".to_owned() } else { String::new() },
                message: format!(
                    "{address} is not a loopback address, so other machines may read all metrics; \
                     add `allow_remote = true` to [metrics] if they may, or listen on 127.0.0.1:{}",
                    address.port()
                ),
            });
        }
        let idle_expiry = idle_expiry.map_or(self.idle_expiry, |at| at.value.0);
        Self { listen, asked: asked.is_some(), idle_expiry }
    }
}

fn compiler_with(limits: CompileLimits, typed: typed::Compiler) -> CompileLimits {
    let typed::Compiler { cpu, memory } = typed;
    let cpu = cpu.map(|at| at.value.0);
    CompileLimits {
        cpu: cpu.unwrap_or(limits.cpu),
        wall: cpu.map_or(limits.wall, |cpu| cpu * 10),
        memory: memory.map_or(limits.memory, |at| at.value.0),
    }
}

/// These limits, and what is typed over them.
fn limits_with(limits: &Limits, typed: typed::Limits) -> Limits {
    let typed::Limits {
        cpu_per_call,
        cpu_percent,
        start_up,
        memory,
        table_elements,
        parts,
        host_call,
        handles,
        file,
        subscriptions,
        batch,
        queue,
        series,
        alerts_per_minute,
        alerts_burst,
        log_lines_per_minute,
        log_lines_burst,
        state,
        actions_per_minute,
        tables,
        rules,
        table_text,
    } = typed;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        cpu_per_call: cpu_per_call.map_or(limits.cpu_per_call, |at| at.value.0),
        cpu_percent: cpu_percent.map_or(limits.cpu_percent, |at| at.value.0),
        start_up: start_up.map_or(limits.start_up, |at| at.value.0),
        memory: memory.map_or(limits.memory, |at| size(at.value.0)),
        table_elements: table_elements.map_or(limits.table_elements, |at| size(at.value.0.into())),
        parts: parts.map_or(limits.parts, |at| size(at.value.0.into())),
        host_call: host_call.map_or(limits.host_call, |at| size(at.value.0)),
        handles: handles.map_or(limits.handles, |at| size(at.value.0.into())),
        file: file.map_or(limits.file, |at| size(at.value.0)),
        subscriptions: subscriptions.map_or(limits.subscriptions, |at| size(at.value.0.into())),
        batch: batch.map_or(limits.batch, |at| size(at.value.0)),
        queue: queue.map_or(limits.queue, |at| size(at.value.0)),
        series: series.map_or(limits.series, |at| size(at.value.0.into())),
        alerts_per_minute: alerts_per_minute.map_or(limits.alerts_per_minute, |at| at.value.0),
        alerts_burst: alerts_burst.map_or(limits.alerts_burst, |at| at.value.0),
        log_lines_per_minute: log_lines_per_minute
            .map_or(limits.log_lines_per_minute, |at| at.value.0),
        log_lines_burst: log_lines_burst.map_or(limits.log_lines_burst, |at| at.value.0),
        state: state.map_or(limits.state, |at| size(at.value.0)),
        actions_per_minute: actions_per_minute.map_or(limits.actions_per_minute, |at| at.value.0),
        tables: tables.map_or(limits.tables, |at| size(at.value.0.into())),
        rules: rules.map_or(limits.rules, |at| size(at.value.0.into())),
        table_text: table_text.map_or(limits.table_text, |at| size(at.value.0)),
    }
}

fn probes(
    typed: Vec<At<typed::Probe>>,
    file: Option<&Path>,
    problems: &mut Problems,
) -> Vec<Probe> {
    let built_in = Kinds::built_in();
    let mut names = HashSet::new();
    let mut probes = Vec::new();
    for At { value: typed::Probe { name, attach }, line } in typed {
        let mut problem = |line, key: &str, message| {
            let file = file.unwrap_or(Path::new("")).to_owned();
            problems.0.push(Problem { file, line: Some(line), key: key.to_owned(), message });
        };
        let (Some(name), Some(attach)) = (&name, &attach) else {
            let missing = if name.is_none() { "name" } else { "attach" };
            problem(line, "probe", format!("a probe needs `{missing}`"));
            continue;
        };
        if built_in.named(&name.value.0).is_some() {
            problem(
                name.line,
                "probe.name",
                format!("`{}` is a built-in event kind, choose another name", name.value.0),
            );
        } else if !names.insert(name.value.0.clone()) {
            problem(
                name.line,
                "probe.name",
                format!("there is another probe `{}`, choose another name", name.value.0),
            );
        }
        probes.push(Probe { name: name.value.0.clone(), attach: attach.value.clone(), line });
    }
    probes
}

/// Finds fields that no kind has: a typing error here would give away what it was meant to hold back.
fn check_fields(
    policy: &str,
    denied: &[At<DenyField>],
    probes: &[Probe],
    file: Option<&Path>,
    problems: &mut Problems,
) {
    let built_in = Kinds::built_in();
    for At { value: DenyField { kind, field }, line } in denied {
        // The fields of a tracepoint are only known on the kernel that has it.
        if probes.iter().any(|probe| kind.as_ref().is_none_or(|kind| *kind == probe.name)) {
            continue;
        }
        let kinds: Vec<_> = built_in
            .iter()
            .filter(|built_in| kind.as_ref().is_none_or(|kind| *kind == built_in.name))
            .collect();
        let message = if let (Some(kind), true) = (kind, kinds.is_empty()) {
            let names: Vec<_> = built_in.iter().map(|kind| &*kind.name).collect();
            no_such("event kind", kind, &names)
        } else if !kinds.iter().any(|kind| kind.has_within(field)) {
            let names: Vec<_> =
                kinds.iter().flat_map(|kind| &kind.fields).map(|field| &*field.name).collect();
            no_such("field", field, &names)
        } else {
            continue;
        };
        problems.0.push(Problem {
            file: file.unwrap_or(Path::new("")).to_owned(),
            line: Some(*line),
            key: format!("policy.{policy}.deny_fields"),
            message,
        });
    }
}
