//! `tipstaff compile`: the agent's compiler child. Not for people, hence hidden.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tipstaff_runtime::policy::compile;

/// Compile a policy into the cache, with few resources and no rights
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Directory of the cache
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// The policy; `-` for standard input
    file: PathBuf,
}

/// Compiles, and prints one line of JSON.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { cache, file } = args;
    compile::child(&cache, &file)
        .with_context(|| format!("cannot compile into {}", cache.display()))?;
    Ok(ExitCode::SUCCESS)
}
