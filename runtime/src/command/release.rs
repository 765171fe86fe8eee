//! `tipstaff release`: takes rules out of force, at once.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use tipstaff_runtime::{
    agent::lock,
    control::{self, Request},
};

use super::{Format, arguments::AgentName, mode};

/// Take the rules of a policy, or of all policies, out of force at once
///
/// The mode of the policy, or with --all of the agent, is observe from then on, so that they are not put
/// in force again: `tipstaff mode` changes that. Where no agent runs there is nothing to release, as
/// rules end with their agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff release --all\n  \
    tipstaff release --policy deploy-guard")]
pub struct Args {
    /// Of all policies
    #[arg(long, required_unless_present = "policy", conflicts_with = "policy")]
    all: bool,
    /// Of this policy
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    #[command(flatten)]
    name: AgentName,
    /// How results are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Says how many tables there were.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { all: _, policy, name, format } = args;
    let answered = control::ask(&lock::directory()?, name.get(), Request::Release { policy })?;
    if format == Format::Text {
        writeln!(io::stdout(), "released {} tables", answered.released)?;
    }
    mode::print(&answered, format)?;
    Ok(ExitCode::SUCCESS)
}
