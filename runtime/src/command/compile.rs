//! `tipstaff compile`: the agent's compiler child. Not for people, hence hidden.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tipstaff_runtime::policy::compile;

/// Compile a policy, with few resources and no rights
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Empty folder for what it makes
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// The policy; `-` for standard input
    file: PathBuf,
}

/// Compiles, and prints one line of JSON.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { into, file } = args;
    compile::child(&into, &file)
        .with_context(|| format!("cannot compile into {}", into.display()))?;
    Ok(ExitCode::SUCCESS)
}
