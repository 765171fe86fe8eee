//! `tipstaff run`: the agent.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use crossbeam_channel::{Sender, unbounded};
use sd_notify::NotifyState;
use tipstaff_runtime::{
    agent::{Agent, Charge, Lock, Order, lock},
    config::{Config, Flags, Listen, Name},
    control::Control,
    outcome::{AgentMetrics, Alerts, Metrics, expose::Exposition},
    sink::{
        Style, Totals,
        http::{ServeError, Server},
        stdout::{self, Stdout},
        summary,
    },
    trust::Trust,
    watch::{Told, Watch},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use super::{
    Format, Usage,
    arguments::{self, Selection},
    end_on_panic,
};

/// How long standard output may take for the last words.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Run policies over what happens in the kernel
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff run\n  \
    tipstaff run --policies ./policies --duration 20s\n  \
    tipstaff run --policy ./exec-audit.wasm --format json --metrics off\n\n\
    Every `.wasm` file in the directory of policies runs; files may come, change and go at any time.\n\
    SIGHUP reads the configuration again where there is no controlling terminal. SIGINT and SIGTERM\n\
    deliver what was seen and end the agent; it then prints what the policies computed.")]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Name of this agent: one of a name runs at a time [default: tipstaff]
    #[arg(long, value_name = "NAME", value_parser = arguments::name)]
    name: Option<Name>,
    /// End after this time, such as 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = arguments::time)]
    duration: Option<Duration>,
    /// How alerts and the summary are written to standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Where Prometheus finds metrics, or `off` [default: 127.0.0.1:9470]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = arguments::listen)]
    metrics: Option<Listen>,
}

/// Runs the agent until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    end_on_panic();
    let Args { selection, name, duration, format, metrics } = args;
    let Selection { config: file, policies, policy } = selection;
    let flags = Flags { name, policies, policy, metrics };
    let load = move || Config::load(file.as_deref(), &flags);
    let config = load().map_err(Usage::of)?;
    let locks = lock::directory()?;
    let _lock = Lock::take(&locks, &config.agent.name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tokio")
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    let server = runtime.block_on(serve(&config))?;

    let counts = Arc::new(AgentMetrics::default());
    let metrics = Metrics::new(config.metrics.idle_expiry);
    let (alerts, raised) = Alerts::new(stdout::WAITING, Arc::clone(&counts));
    let charge = Charge {
        decisions: Some(config.agent.state_dir.join(&config.agent.name)),
        ..Charge::default()
    };
    let agent =
        Agent::start(config.clone(), Arc::clone(&counts), metrics.clone(), alerts, &charge)?;
    let kinds = agent.kinds().clone();

    let (orders, ordered) = unbounded();
    let closed = orders.clone();
    let style = match format {
        Format::Text => Style::text_on(&io::stdout()),
        Format::Json => Style::Json,
    };
    // Who reads our output has gone: there is nobody to work for.
    let closed = move || drop(closed.send(Order::Stop));
    let output = Stdout::start(raised, style, Arc::clone(&counts), closed)
        .context("cannot start the thread for standard output")?;

    let (_watch, mut files) = watch(&config, &orders)?;
    files.extend(config.agent.policy_files.iter().cloned());
    let _ = orders.send(Order::Files(files));
    let control = {
        let _entered = runtime.enter();
        Control::bind(&locks, &config.agent.name)?
    };
    runtime.spawn(control.serve(orders.clone()));
    listen_to_signals(&runtime, &orders, config.agent.policy_files.clone(), load)?;

    let is_ready = Arc::new(AtomicBool::new(false));
    let address = server.as_ref().map(Server::address);
    if let Some(server) = server {
        let exposition = Arc::new(Exposition::new(&counts, &metrics));
        runtime.spawn(server.serve(exposition, Arc::clone(&is_ready), std::future::pending()));
    }
    let mut runs_nothing = false;
    agent.run(&ordered, duration.map(|duration| Instant::now() + duration), |ready| {
        let running = ready.running;
        is_ready.store(true, Ordering::Relaxed);
        runs_nothing = running == 0 && config.agent.policies.is_none();
        if runs_nothing {
            // No file can come in its place.
            let _ = orders.send(Order::Stop);
            return;
        }
        say_ready(&config, running, address);
    });
    let _ = sd_notify::notify(&[NotifyState::Stopping]);

    let last_words = summary(&metrics.families(), &Totals::of(&counts, &kinds), style);
    if !output.finish(last_words, LAST_WORDS) {
        tracing::warn!("standard output does not take the summary");
    }
    runtime.shutdown_background();
    Ok(if runs_nothing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Takes the address for metrics. Where nobody asked for one, a busy one is no reason not to run.
async fn serve(config: &Config) -> Result<Option<Server>, ServeError> {
    let Listen::On(address) = config.metrics.listen else { return Ok(None) };
    match Server::bind(address).await {
        Ok(server) => Ok(Some(server)),
        Err(error @ ServeError::Busy(_)) if !config.metrics.asked => {
            tracing::warn!("{error}; going on without");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Watches the directory of policies, if there is to be one. Also the files in it.
fn watch(config: &Config, orders: &Sender<Order>) -> anyhow::Result<(Option<Watch>, Vec<PathBuf>)> {
    let Some(directory) = &config.agent.policies else { return Ok((None, Vec::new())) };
    let orders = orders.clone();
    let tell = move |told| match told {
        Told::Changes(changes) => {
            // One that is gone is looked for as well, and not found.
            let files = changes.gone.into_iter().chain(changes.came).collect();
            let _ = orders.send(Order::Files(files));
        }
        Told::Unreadable(error) => {
            tracing::error!("the directory of policies: {error}; what runs goes on");
        }
    };
    let (watch, files) =
        Watch::start(directory, Trust::of(config.agent.mode), tell).map_err(|error| {
            let hint = if error.is_missing() {
                "; make it, or name another one with --policies DIR"
            } else {
                ""
            };
            Usage::of(anyhow::anyhow!("the directory of policies: {error}{hint}"))
        })?;
    if files.is_empty() && config.agent.policy_files.is_empty() {
        tracing::warn!(directory = %directory.display(), "no policy there yet: a `.wasm` file that is put there runs at once");
    }
    Ok((Some(watch), files))
}

fn listen_to_signals(
    runtime: &Runtime,
    orders: &Sender<Order>,
    named: Vec<PathBuf>,
    load: impl Fn() -> Result<Config, tipstaff_runtime::config::ConfigError> + Send + 'static,
) -> io::Result<()> {
    let _entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What `nohup` ignores stays ignored.
    let mut hang_up = (!ignores_hang_up()).then(|| signal(SignalKind::hangup())).transpose()?;
    // With a terminal it means that the terminal is gone.
    let reloads = File::open("/dev/tty").is_err();
    let orders = orders.clone();
    runtime.spawn(async move {
        let mut stops = false;
        loop {
            let is_hang_up = tokio::select! {
                _ = interrupt.recv() => false,
                _ = terminate.recv() => false,
                Some(()) = async { hang_up.as_mut()?.recv().await } => true,
            };
            let order = match (is_hang_up && reloads).then(&load) {
                // Asked twice: whoever asks does not want to wait.
                None if stops => std::process::exit(130),
                None => {
                    stops = true;
                    Order::Stop
                }
                Some(Ok(config)) => Order::Configuration(Box::new(config)),
                Some(Err(error)) => {
                    for line in error.to_string().lines() {
                        tracing::error!("{line}");
                    }
                    tracing::error!(
                        "the configuration is not taken over: what runs goes on as before"
                    );
                    continue;
                }
            };
            if matches!(order, Order::Configuration(_)) {
                let _ = orders.send(Order::Files(named.clone()));
            }
            if orders.send(order).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Whether whoever started this wants it to outlive its terminal.
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

fn say_ready(config: &Config, running: usize, metrics: Option<std::net::SocketAddr>) {
    let metrics =
        metrics.map_or_else(|| "off".to_owned(), |address| format!("http://{address}/metrics"));
    let directory =
        config.agent.policies.as_deref().map_or_else(|| "off".into(), Path::to_string_lossy);
    tracing::info!(policies = running, directory = %directory, metrics, "ready");
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!("cannot tell the service manager that the agent is ready: {error}");
    }
}
