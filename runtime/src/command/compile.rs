//! `tipstaff compile`: the agent's compiler child. Not for people, hence hidden.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use tipstaff_runtime::policy::{CompileLimits, compile};

/// Compile a policy from standard input, with few resources and no rights
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Processor time that it may take
    #[arg(long, value_name = "SECONDS")]
    cpu: u64,
    /// Memory that it may take
    #[arg(long, value_name = "BYTES")]
    memory: u64,
    /// Wall time that it may take
    #[arg(long, value_name = "SECONDS")]
    wall: u64,
}

/// Compiles, and prints one line of JSON and the compiled code.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { cpu, memory, wall } = *args;
    compile::child(&CompileLimits {
        cpu: Duration::from_secs(cpu),
        memory,
        wall: Duration::from_secs(wall),
    })
    .context("cannot compile")?;
    Ok(ExitCode::SUCCESS)
}
