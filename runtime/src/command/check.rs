//! `tipstaff check`: the configuration, without a kernel.

use std::{path::PathBuf, process::ExitCode};

use tipstaff_runtime::config::{Config, Flags};

use super::Usage;

/// Check the configuration and the policies, without loading anything into the kernel
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff check\n  \
    tipstaff check --config ./tipstaff.toml --policies ./policies")]
pub struct Args {
    /// Configuration file [default: /etc/tipstaff/tipstaff.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of policies, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// A policy file; may be given several times
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
}

/// Prints every problem.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { config, policies, policy } = args;
    let flags = Flags { policies, policy, ..Flags::default() };
    Config::load(config.as_deref(), &flags).map_err(Usage::of)?;
    Ok(ExitCode::SUCCESS)
}
