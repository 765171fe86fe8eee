//! `tipstaff exec-keeper`: the keeper of `tipstaff exec`. Not for people, hence hidden.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tipstaff_runtime::{
    escape,
    exec::{OnDeath, keeper},
};

/// Hold what guards a command, and end the command if who runs it dies
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// The command's cgroup
    #[arg(long, value_name = "DIR")]
    cgroup: PathBuf,
    /// Kill the command if who runs it dies
    #[arg(long)]
    kill: bool,
}

/// Waits at standard input for whoever started it to say that all is done, or to die.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { cgroup, kill } = args;
    let on_death = if kill { OnDeath::Kill } else { OnDeath::Release };
    let say = |text: &str| eprintln!("tipstaff: {}", escape::control(text));
    keeper::keep(&cgroup, on_death, say)
        .with_context(|| format!("the keeper of {}", cgroup.display()))?;
    Ok(ExitCode::SUCCESS)
}
