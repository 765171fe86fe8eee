//! `tipstaff exec`: one command under policies.

mod report;

use std::{
    ffi::OsString,
    fs::File,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tipstaff_runtime::{
    agent::{Agent, Charge, Keep, Order, Ready},
    config::{Config, Flags, Listen},
    escape,
    exec::{
        Ended, ExecError, Identity, Keeper, Links, NotStarted, OnDeath, Process, Scope, StandIn,
        Supervisor, leave_descriptors_to_the_command, named,
    },
    guard::{Grant, Mode, paths::Home},
    outcome::{AgentMetrics, Alerts, Metrics, expose::Exposition},
    sink::{
        Totals,
        blocked::{Feed, Files, Sums},
        stdout, summary,
    },
    trust::Trust,
    watch::Watch,
};

use super::{Format, end_on_panic};
use report::Report;

/// Exit code of our own failures, as `env` has it: nothing was run.
pub const FAILED: u8 = 125;

/// Exit code if rules denied something and `--fail-on-block` was given.
const BLOCKED: u8 = 123;

/// After this long it is said that processes do not die.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look for a signal while policies are loaded.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Run one command under policies, which see it and whatever it starts
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sudo tipstaff exec --policy exec-audit.wasm -- ./deploy.sh --now\n  \
    sudo tipstaff exec --policies ./policies --format json --report run.jsonl -- make -j4\n\n\
    The command runs in a cgroup of its own, and the policies see what happens there and in cgroups \
    below: from its exec on, everything that it starts, also in other sessions, and nothing else. It \
    starts when the probes are attached; if a policy does not run, it does not start. What moves \
    itself out of the cgroup is seen no more; only root can.\n\n\
    Standard input and output, other open descriptors, environment, limits and signals that are \
    ignored or blocked are the command's as if it were run without us, except that SIGPIPE is not \
    ignored. It runs as the user who called sudo (with that user's groups, HOME, USER and LOGNAME, and \
    without capabilities), or as --user says. Alerts, with --audit and --enforce what rules denied, and \
    at the end the summary, go to standard error, or to --report.\n\n\
    INT, TERM, HUP, QUIT, USR1, USR2, WINCH, TSTP and CONT that are sent to tipstaff alone are \
    passed on. The command stays in the process group and on the terminal that it is started on, which \
    tipstaff leaves: so keys such as Ctrl-C and Ctrl-Z reach the command directly, and once.\n\n\
    Without --audit or --enforce nothing is done to the command. With --audit what policies ask for is \
    decided and told, and denies nothing. With --enforce it is done, and all that policies ask for at \
    the start is in force before the command starts; if it cannot be, the command does not start. What a \
    policy may ask for, and the file that may ask, stand in the configuration, which must be root's.\n\n\
    When the command ends, tipstaff ends. Processes that it left behind live on, are named in a \
    warning, and are watched no more; where rules deny, they are killed.\n\n\
    Exit code: the command's; 128 and the signal that killed it; 125 for a failure of our own, in \
    which case nothing was run; 123 with --fail-on-block if rules denied something; 126 if the command cannot be run, 127 if it is not there. If Ctrl-C \
    kills it on a terminal, tipstaff dies of SIGINT as well, so that a script does not go on.")]
pub struct Args {
    /// Configuration file [default: /etc/tipstaff/tipstaff.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A policy file; may be given several times
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Directory of policies: those that are there at the start
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// User to run the command as, by name or number [default: whoever called, also through sudo]
    #[arg(long, value_name = "USER")]
    user: Option<OsString>,
    /// File for alerts and the summary, instead of standard error
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How alerts and the summary are written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// What becomes of the command and all that it started if tipstaff is killed
    /// [default: release, with --enforce kill]
    #[arg(long, value_name = "WHAT")]
    on_death: Option<Death>,
    /// Decide what policies ask for, and tell what it would deny
    #[arg(long, conflicts_with = "enforce")]
    audit: bool,
    /// Do what policies ask for
    #[arg(long)]
    enforce: bool,
    /// Exit with 123, whatever the command's exit code, if rules denied something
    #[arg(long, requires = "enforce")]
    fail_on_block: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    /// How far policies go.
    fn mode(&self) -> Mode {
        match (self.audit, self.enforce) {
            (_, true) => Mode::Enforce,
            (true, _) => Mode::Audit,
            _ => Mode::Observe,
        }
    }
}

/// What becomes of the command if we die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Death {
    /// It is killed, with all that it started.
    Kill,
    /// It lives on.
    Release,
}

/// Runs the command. An error is a failure of our own, for [`FAILED`].
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    end_on_panic();
    let mode = args.mode();
    let Args { config: file, policy, policies, user, report, format, on_death, command, .. } = args;
    let identity = Identity::find(user.as_deref())?;
    if identity.as_ref().is_some_and(Identity::is_root) {
        eprintln!(
            "tipstaff: the command runs as root, and a root process can undo what watches it: leave its cgroup, detach probes, kill this process"
        );
    }
    let flags =
        Flags { name: None, policies: policies.clone(), policy, metrics: Some(Listen::Off) };
    let mut config = Config::load_for(mode, file.as_deref(), &flags)?;
    let files = files(&config, policies.is_some())?;
    config.agent.policies = None;
    let out = match &report {
        Some(path) => Some(
            File::create(path)
                .map_err(|source| ExecError::Report { path: path.clone(), source })?,
        ),
        None => None,
    };

    let scope = Scope::make(|path, processes| {
        tracing::warn!(
            "{}: a command of an earlier `tipstaff exec` has left processes, which nothing watches: {}",
            path.display(),
            named(processes)
        );
    })
    .map_err(ExecError::from)?;
    let paths = beginnings(identity.as_ref()).context("the working directory")?;
    // First of all: it inherits what we were given.
    let stand_in =
        StandIn::spawn(&command, identity.as_ref(), scope.path()).map_err(ExecError::StandIn)?;
    leave_descriptors_to_the_command().map_err(ExecError::StandIn)?;
    let supervisor = Supervisor::new().map_err(ExecError::Signals)?;
    let on_death = match on_death {
        Some(Death::Kill) => OnDeath::Kill,
        None if mode == Mode::Enforce => OnDeath::Kill,
        Some(Death::Release) | None => OnDeath::Release,
    };
    let keeper = Keeper::start(scope.path(), on_death).map_err(ExecError::Keeper)?;

    let counts = Arc::new(AgentMetrics::default());
    let metrics = Metrics::new(config.metrics.idle_expiry);
    let (alerts, raised) = Alerts::new(stdout::WAITING, Arc::clone(&counts));
    // What is denied is told, whatever policies say of it.
    let feed =
        (mode > Mode::Observe).then(|| Feed::new(attempts_on_files(&config, mode))).transpose()?;
    let links = Links::to(&keeper);
    let keep = links.clone();
    let charge = Charge {
        command: Some(scope.path().to_owned()),
        paths,
        mode: Some(mode),
        decisions: None,
        keep: Some(Keep(Arc::new(move |links| keep.keep(links)))),
        witness: feed.as_ref().map(|feed| feed.subscriber.clone()),
    };
    let tally = Tally(Arc::new(Exposition::new(&counts, &metrics)));
    let agent = Agent::start(config, Arc::clone(&counts), metrics.clone(), alerts, &charge)?;
    let kinds = agent.kinds().clone();
    let (orders, ordered) = unbounded();
    let (tell, ready) = bounded(1);
    let named = files.len();
    let _ = orders.send(Order::Files(files));
    let work = Work {
        supervisor,
        stand_in,
        keeper: Some(keeper),
        links,
        scope,
        on_death,
        named,
        tally: tally.clone(),
    };
    let work = work.start(ready, orders)?;
    let report = Report::start(out, format, raised, feed, agent.desk(), &counts)
        .context("cannot start the threads for the report")?;
    agent.run(&ordered, None, |ready| {
        let _ = tell.send(ready);
    });
    drop(tell);

    let result = work.join().map_err(|_| anyhow::anyhow!("the thread of the command is gone"))?;
    let Done { ended, supervisor } = match result {
        Ok(done) => done,
        Err(error) => return refused(error),
    };
    let (denied, would_deny) = (tally.denied("denied"), tally.denied("would_deny"));
    let sums = Sums { denied: denied.unwrap_or(0), would_deny: would_deny.unwrap_or(0) };
    let summary = summary(&metrics.families(), &Totals::of(&counts, &kinds), report.style);
    let on_files = report.finish(sums, summary);
    // What is not known is no proof that nothing was denied.
    if args.fail_on_block && (denied != Some(0) || on_files > 0) {
        return Ok(BLOCKED.into());
    }
    supervisor.end_as(ended);
    Ok(ended.code().into())
}

/// Where paths in rules begin.
fn beginnings(identity: Option<&Identity>) -> std::io::Result<Home> {
    let home = identity.map_or_else(
        || std::env::var_os("HOME").unwrap_or_else(|| "/".into()),
        |identity| identity.home.clone(),
    );
    Ok(Home { directory: std::env::current_dir()?, home: home.into() })
}

/// Which events on files tell of what rules deny, if a policy may ask for rules about files.
fn attempts_on_files(config: &Config, mode: Mode) -> Option<Files> {
    let mut sections = config.policies.values();
    let is_granted = |grant: &Grant| matches!(grant, Grant::File | Grant::Exec);
    sections.any(|section| section.grants.iter().any(is_granted)).then_some(match mode {
        Mode::Enforce => Files::Denied,
        Mode::Observe | Mode::Audit => Files::All,
    })
}

/// What the agent has counted of rules.
#[derive(Clone)]
struct Tally(Arc<Exposition>);

impl Tally {
    /// Calls and queries that rules denied, or would have (`would_deny`).
    fn denied(&self, verdict: &str) -> Option<u64> {
        self.sum("tipstaff_denials_total{", &[&format!("verdict={verdict:?}")])
    }

    /// Whether rules were put in force that deny.
    fn has_denying_rules(&self) -> bool {
        ["action=\"set-table\"", "action=\"add\""]
            .iter()
            // Where it is not known, they may be there.
            .any(|action| {
                self.sum("tipstaff_actions_total{", &[action, "outcome=\"done\""]) != Some(0)
            })
    }

    /// `None`: nobody knows.
    fn sum(&self, family: &str, labels: &[&str]) -> Option<u64> {
        let text = self.0.text().ok()?;
        let lines = text.lines().filter(|line| line.starts_with(family));
        lines
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

/// Why nothing was run, or how what was to be run ended before.
fn refused(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    match error.downcast_ref() {
        Some(NotStarted::Refused { code, reason }) => {
            eprintln!("tipstaff: {}", escape::control(reason));
            Ok((*code).into())
        }
        Some(NotStarted::Ended(ended)) => Ok(ended.code().into()),
        _ => Err(error),
    }
}

/// The files of policies.
fn files(config: &Config, with_directory: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = config.agent.policy_files.clone();
    if let Some(directory) = config.agent.policies.as_deref().filter(|_| with_directory) {
        // What comes later is not waited for.
        let (_, there) = Watch::start(directory, Trust::of(config.agent.mode), |_| ())
            .with_context(|| format!("the directory of policies {}", directory.display()))?;
        files.extend(there);
    }
    for file in &files {
        file.symlink_metadata().with_context(|| format!("the policy {}", file.display()))?;
    }
    files.sort();
    files.dedup();
    if files.is_empty() { Err(ExecError::NoPolicy.into()) } else { Ok(files) }
}

/// What is done beside the agent, which has the main thread.
struct Work {
    supervisor: Supervisor,
    stand_in: StandIn,
    keeper: Option<Keeper>,
    links: Links,
    scope: Scope,
    on_death: OnDeath,
    /// Policies that must run.
    named: usize,
    tally: Tally,
}

/// What came of it.
struct Done {
    ended: Ended,
    supervisor: Supervisor,
}

impl Work {
    /// Begins. `ready` says how the policies stand; the agent is told to stop at the end.
    fn start(
        self,
        ready: Receiver<Ready>,
        orders: Sender<Order>,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<Done>>> {
        let run = move || {
            let result = self.run(&ready);
            let _ = orders.send(Order::Stop);
            result
        };
        let thread = thread::Builder::new().name("command".to_owned()).spawn(run);
        thread.context("cannot start the thread for the command")
    }

    fn run(self, ready: &Receiver<Ready>) -> anyhow::Result<Done> {
        let Self { supervisor, stand_in, mut keeper, links, scope, on_death, named, tally } = self;
        let result =
            started(&supervisor, stand_in, keeper.as_ref(), ready, named).and_then(|command| {
                let lost = |dead: Keeper| another(dead, &scope, on_death, &links);
                supervisor.wait(command, &mut keeper, lost).context("cannot wait for the command")
            });
        if tally.has_denying_rules() {
            end_left(&scope);
        }
        let left = scope.processes();
        if left.is_empty() {
            if let Err(error) = scope.remove() {
                tracing::warn!("cannot remove the command's cgroup: {error}");
            }
        } else {
            tell_left(&left);
        }
        if let Some(keeper) = keeper {
            // The command has run: its end is what counts.
            if let Err(error) = keeper.release() {
                tracing::warn!("the keeper cannot be waited for: {error}");
            }
        }
        Ok(Done { ended: result?, supervisor })
    }
}

/// Starts the command when the policies run. Its number.
fn started(
    supervisor: &Supervisor,
    stand_in: StandIn,
    keeper: Option<&Keeper>,
    ready: &Receiver<Ready>,
    named: usize,
) -> anyhow::Result<rustix::process::Pid> {
    let Ready { running, not_done, domains } = loop {
        match ready.recv_timeout(LOOK_EVERY) {
            Ok(ready) => break ready,
            Err(RecvTimeoutError::Disconnected) => return Err(ExecError::NoAgent.into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(signal) = supervisor.asked_to_end() {
            return Err(NotStarted::Ended(Ended::Killed(signal.as_raw())).into());
        }
    };
    if running < named {
        return Err(ExecError::Policies { refused: named - running, named }.into());
    }
    if let Some(first) = not_done.first() {
        let (count, policy, what) = (not_done.len(), first.policy.clone(), first.to_string());
        return Err(ExecError::NotGuarded { count, policy, what }.into());
    }
    if let Some(keeper) = keeper {
        supervisor.step_aside(keeper);
    }
    let command = stand_in.pid();
    stand_in.start(&domains)?;
    Ok(command)
}

/// A keeper in the place of one that is dead.
fn another(dead: Keeper, scope: &Scope, on_death: OnDeath, links: &Links) -> Option<Keeper> {
    let how = dead.reap().map_or_else(|error| error.to_string(), |status| status.to_string());
    match Keeper::start(scope.path(), on_death) {
        Ok(keeper) => {
            tracing::warn!("the keeper has died ({how}): there is another one now");
            if let Err(error) = links.move_to(&keeper) {
                tracing::error!(
                    "it does not hold the rules of the command: {error}; if this process dies, they end before the command does"
                );
            }
            Some(keeper)
        }
        Err(error) => {
            tracing::error!(
                "the keeper has died ({how}), and there is no other one: {error}; if this process dies, too, nothing ends the command"
            );
            None
        }
    }
}

/// Kills what the command left behind: its rules end with us.
fn end_left(scope: &Scope) {
    let left = scope.processes();
    if !left.is_empty() {
        tracing::warn!(
            "the command has ended and left processes, which are killed, as the rules for them end: {}",
            named(&left)
        );
    }
    let late = || tracing::warn!("these do not die: {}", named(&scope.processes()));
    if let Err(error) = scope.kill(PATIENCE, late) {
        tracing::error!("cannot kill what the command left behind: {error}");
    }
}

fn tell_left(left: &[Process]) {
    tracing::warn!(
        "the command has ended and left processes, which live on and are watched no more: {}",
        named(left)
    );
}
