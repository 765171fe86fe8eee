//! The agent: puts probes, reader and policies together, and does what it is told.
//!
//! One thread, the one that calls [`Agent::run`], does what takes its time and must not be done on
//! the reader or on tokio's threads: it attaches and detaches probes, configures policies, and lets
//! them join and leave the reader. What it is told comes as [`Order`]s. Files are read and compiled
//! by the threads of the [`loader`], so that one that takes long holds nobody up.

mod budget;
pub mod canary;
mod expense;
mod force;
mod guards;
mod loader;
pub mod lock;
mod names;
mod policies;
mod records;
mod refused;
mod sight;
mod thrift;

use std::{
    fmt, fs, io,
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, after, never, select, tick};

use crate::{
    config::{Attach, Config},
    control::{self, Answered, Request},
    exec::Domain,
    guard::{Decision, Desk, Mode, NoMode, Told, paths::Home},
    kind::Kinds,
    outcome::{AgentMetrics, Alerts, Metrics},
    policy::{Compiler, LoadError, Outcome, Pool, Workshop},
    probe::{ProbeError, Probes, RingSizes},
    reader::{Reader, Subscriber},
    source::Rings,
    sys,
    trust::TrustError,
};

pub use lock::{Lock, LockError};

use guards::{Guards, PolicyMode};
use loader::{Answer, Loader};
use policies::{Policies, modes::check_files};

/// The states of policies are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long readiness waits for the process table.
const SETTLE: Duration = Duration::from_secs(1);

/// What the agent is told.
#[derive(Debug)]
pub enum Order {
    /// These files of policies are new, changed, or gone.
    Files(Vec<PathBuf>),
    /// This is the configuration now.
    Configuration(Box<Config>),
    /// The operator asks, by the control socket.
    Control(Request, tokio::sync::oneshot::Sender<Answered>),
    /// The end.
    Stop,
}

/// What an agent is started for besides its configuration. `tipstaff run` leaves it empty but for
/// `decisions`; `tipstaff exec` has a command, and the mode of its command line.
#[derive(Debug, Clone, Default)]
pub struct Charge {
    /// Directory, on the v2 hierarchy, of the cgroup that the scope `command` means. Without one there
    /// is no such scope.
    pub command: Option<PathBuf>,
    /// Where paths in rules begin that do not begin with `/`.
    pub paths: Home,
    /// Mode in place of that of the configuration.
    pub mode: Option<Mode>,
    /// Directory in which decisions about actions are kept, made if it is missing. Without one they are
    /// only logged and counted.
    pub decisions: Option<PathBuf>,
    /// Who keeps the links of guards, so that rules outlive the agent.
    pub keep: Option<Keep>,
    /// Who gets rows besides the policies, from before the first policy to the end.
    pub witness: Option<Subscriber>,
}

/// Takes copies of the links of a guard, which is in force for as long as they are there. Called before
/// the guard counts as done; where it fails, nothing is put in force.
#[derive(Clone)]
pub struct Keep(pub Arc<KeepLinks>);

/// See [`Keep`].
pub type KeepLinks = dyn Fn(&[BorrowedFd<'_>]) -> io::Result<()> + Send + Sync;

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keep")
    }
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The probes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A `[[probe]]` of the configuration.
    #[error("{file}:{line}: probe `{name}`: {source}")]
    OwnProbe {
        /// The configuration file.
        file: String,
        /// Line of the probe.
        line: usize,
        /// Its name.
        name: String,
        /// What is wrong.
        source: ProbeError,
    },
    /// The engine for policies.
    #[error(transparent)]
    Engine(#[from] LoadError),
    /// The directory of decisions.
    #[error("decisions cannot be kept (`state_dir` in [agent]): {0}")]
    Decisions(#[from] TrustError),
    /// A thread or a descriptor.
    #[error("cannot start the agent's threads: {0}")]
    Io(#[from] io::Error),
}

/// How it stands when what the first order named runs or was refused, and what was asked for in that is
/// done or was not.
#[derive(Debug)]
pub struct Ready {
    /// Number of policies that run.
    pub running: usize,
    /// What policies should have got in enforce mode, and did not: whoever counts on their rules goes no
    /// further.
    pub not_done: Vec<Decision>,
    /// Rules about files and programs, which whoever becomes the command has to enter.
    pub domains: Vec<Domain>,
}

/// See the module's documentation.
pub struct Agent {
    config: Config,
    /// Mode in place of that of the configuration.
    mode: Option<Mode>,
    policies: Policies,
    loader: Loader,
    answers: Receiver<Answer>,
    /// What policies ask for.
    told: Receiver<Told>,
    desk: Desk,
    metrics: Metrics,
}

impl Agent {
    /// Opens the probes and starts the threads. Loads no policy, and attaches nothing. The mode of the
    /// configuration is replaced by that of the charge, if it has one. With a command, policies see only
    /// what happens in its cgroup and below it.
    pub fn start(
        config: Config,
        counts: Arc<AgentMetrics>,
        metrics: Metrics,
        alerts: Alerts,
        charge: &Charge,
    ) -> Result<Self, StartError> {
        let mut config = config;
        config.agent.mode = charge.mode.unwrap_or(config.agent.mode);
        sys::memory::keep_little();
        let command = charge.command.as_ref().map(fs::metadata).transpose()?;
        let scope = command.map(|directory| directory.ino());
        let mut probes = Probes::open_within(RingSizes::default(), scope)?;
        probes.limit_keys(config.agent.keys);
        if scope.is_none() {
            // Files are compiled by children. A command, which is a child, too, is not hidden.
            probes.hidden().hide_with_children(probes.pid())?;
        }
        let kinds = own_kinds(&config, &mut probes)?;
        let reader = Reader::start(Rings::new(&probes)?, &kinds, Arc::clone(&counts), Vec::new())?;
        let cache = &config.agent.cache_dir;
        let compiler = Compiler::new(cache, Workshop::this_program(config.compiler))?;
        let (desk, told) = Desk::new(charge.command.is_some());
        let outcome = Outcome::new(metrics.clone(), alerts, counts).with_desk(desk.clone());
        let guards = Guards::new(&config, charge, outcome.clone())?;
        let pool = Pool::new(Pool::default_workers(), outcome.clone())?;
        let (loader, answers) = Loader::start(&compiler)?;
        let mut policies = Policies::new(kinds, probes, reader, pool, outcome, guards);
        policies.set_budgets(&config);
        if let Some(witness) = &charge.witness {
            policies.add_witness(witness.clone())?;
        }
        let mode = charge.mode;
        Ok(Self { config, mode, policies, loader, answers, told, desk, metrics })
    }

    /// The kinds of this agent.
    #[must_use]
    pub fn kinds(&self) -> &Kinds {
        self.policies.kinds()
    }

    /// Where policies ask for actions.
    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Obeys until it is told to stop or until that time, then delivers everything that was seen
    /// and ends all policies. `ready` is called once, see [`Ready`].
    pub fn run(
        mut self,
        orders: &Receiver<Order>,
        until: Option<Instant>,
        mut ready: impl FnMut(Ready),
    ) {
        let end = until
            .map_or_else(never, |until| after(until.saturating_duration_since(Instant::now())));
        let (look, sweep) = (tick(LOOK_EVERY), tick(self.metrics.sweep_every()));
        let mut is_ready = false;
        loop {
            select! {
                recv(orders) -> order => match order {
                    Ok(Order::Files(paths)) => self.files(paths),
                    Ok(Order::Configuration(config)) => self.reconfigure(*config),
                    Ok(Order::Control(request, answer)) => {
                        // Whoever asked may have gone.
                        let _ = answer.send(self.answer(request));
                    }
                    Ok(Order::Stop) | Err(_) => break,
                },
                recv(self.answers) -> answer => if let Ok(answer) = answer {
                    self.take(answer);
                },
                recv(self.told) -> told => if let Ok(told) = told {
                    self.policies.act(told);
                    // What waits is not to wait for the disk.
                    if self.told.is_empty() {
                        self.policies.sync();
                    }
                },
                recv(look) -> _ => self.policies.look(&self.config),
                recv(sweep) -> _ => self.metrics.sweep(),
                recv(end) -> _ => break,
            }
            if !is_ready && self.loader.was_asked() && self.loader.is_idle() {
                is_ready = true;
                self.policies.settle(SETTLE);
                self.policies.look(&self.config);
                self.desk.begin_command();
                // What was asked for until now is in force before anybody counts on it.
                while let Ok(told) = self.told.try_recv() {
                    self.policies.act(told);
                }
                self.policies.sync();
                ready(self.policies.ready());
            }
        }
        self.policies.stop();
    }

    /// How far actions may go; a policy's own mode may be milder.
    fn mode(&self) -> Mode {
        self.policies.standing().0
    }

    /// Does what the operator asks for.
    fn answer(&mut self, request: Request) -> Answered {
        let done = match request {
            Request::Mode { set: None, policy: _ } => Ok(0),
            Request::Mode { set: Some(mode), policy } => mode
                .parse()
                .map_err(|error: NoMode| error.to_string())
                .and_then(|mode| self.policies.set_mode(policy.as_deref(), mode, &self.config))
                .map(|()| 0),
            Request::Release { policy } => self.policies.release(policy.as_deref()),
        };
        let (mode, policies) = self.policies.standing();
        let standing = |policy: PolicyMode| control::Standing {
            policy: policy.policy,
            mode: policy.mode.to_string(),
            why: policy.why,
            tables: policy
                .scopes
                .iter()
                .map(|(scope, mode)| control::Tabled {
                    scope: scope.to_string(),
                    mode: mode.to_string(),
                })
                .collect(),
        };
        Answered {
            version: control::VERSION,
            error: done.as_ref().err().cloned(),
            mode: mode.to_string(),
            policies: policies.into_iter().map(standing).collect(),
            released: done.unwrap_or_default(),
        }
    }

    /// First what is gone, so that a file that was renamed does not meet its own policy.
    fn files(&mut self, paths: Vec<PathBuf>) {
        let (there, gone): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| path.symlink_metadata().is_ok());
        for path in gone {
            self.loader.forget(&path);
            let waiting = self.policies.file_is_gone(&path);
            self.loader.load(waiting, self.mode());
        }
        self.loader.load(there, self.mode());
    }

    fn take(&mut self, answer: Answer) {
        let Some((path, result)) = self.loader.take(answer) else { return };
        match result {
            Ok(Some(loaded)) => self.policies.admit(loaded, &self.config),
            Ok(None) => {
                let waiting = self.policies.file_is_gone(&path);
                self.loader.load(waiting, self.mode());
            }
            Err(error) => self.policies.refuse(path, &error),
        }
    }

    /// Takes over what can change while the agent runs.
    fn reconfigure(&mut self, new: Config) {
        let old = &self.config;
        // Where the file says the same as before, what `tipstaff mode` said goes on to count, and the file
        // was read as one that says less.
        if new.agent.mode == old.agent.mode
            && self.mode() > new.agent.mode
            && let Err(error) = check_files(&new, self.mode())
        {
            tracing::error!("{error}");
            tracing::error!("the configuration is not taken over: what runs goes on as before");
            return;
        }
        let fixed = [
            ("agent.name", old.agent.name != new.agent.name),
            ("agent.policies", old.agent.policies != new.agent.policies),
            ("agent.state_dir", old.agent.state_dir != new.agent.state_dir),
            ("agent.cache_dir", old.agent.cache_dir != new.agent.cache_dir),
            ("compiler", old.compiler != new.compiler),
            ("agent.keys", old.agent.keys != new.agent.keys),
            ("metrics", old.metrics != new.metrics),
            (
                "probe",
                old.probes
                    .iter()
                    .map(|probe| (&probe.name, &probe.attach))
                    .ne(new.probes.iter().map(|probe| (&probe.name, &probe.attach))),
            ),
        ];
        for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
            tracing::warn!(key, "this key takes effect when the agent is started again");
        }
        self.config = Config {
            agent: crate::config::Agent {
                mode: self.mode.unwrap_or(new.agent.mode),
                latency: new.agent.latency,
                cpu_percent: new.agent.cpu_percent,
                events_per_cgroup: new.agent.events_per_cgroup,
                ..self.config.agent.clone()
            },
            compiler: self.config.compiler,
            metrics: self.config.metrics,
            probes: self.config.probes.clone(),
            ..new
        };
        // What was refused may be accepted now.
        self.loader.load(self.policies.take_refused(), self.mode());
        self.policies.reconfigure(&self.config);
        tracing::info!("configuration taken over");
    }
}

/// The built-in kinds, and those of the configuration.
fn own_kinds(config: &Config, probes: &mut Probes) -> Result<Kinds, StartError> {
    let mut own = Vec::new();
    for probe in &config.probes {
        let Attach::Tracepoint { category, name } = &probe.attach;
        let kind =
            probes.tracepoint(&format!("{category}:{name}"), &probe.name).map_err(|source| {
                StartError::OwnProbe {
                    file: config
                        .file
                        .as_deref()
                        .unwrap_or_else(|| "".as_ref())
                        .display()
                        .to_string(),
                    line: probe.line,
                    name: probe.name.clone(),
                    source,
                }
            })?;
        own.push(kind);
    }
    Ok(Kinds::with(own))
}
