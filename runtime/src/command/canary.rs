//! `tipstaff canary`: the child on which the agent tries whether rules deny. Not for people, hence
//! hidden.

use std::process::ExitCode;

use anyhow::Context as _;
use tipstaff_runtime::{agent, exec::domain};

/// Try what the agent denies, when a line comes on standard input
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Try what comes on standard input, under the rules about files and programs that come before it
    #[arg(long)]
    rules: bool,
}

/// Exit code 0: it was denied; 1: it was not; 2: it could not be tried.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.rules {
        domain::canary::sing().context("cannot try").map_err(super::Usage::of)?;
        return Ok(ExitCode::SUCCESS);
    }
    let denied = agent::canary::sing().context("cannot try").map_err(super::Usage::of)?;
    Ok(if denied { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
