//! `tipstaff mode`: how far a running agent and its policies go.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tipstaff_runtime::{
    agent::lock,
    control::{self, Answered, Request, Standing},
    escape,
    guard::Mode,
};

use super::{Format, arguments::AgentName};

/// Show how far a running agent and its policies go, or change it
///
/// The milder of the agent's and the policy's mode counts. What is changed here lasts until the agent
/// ends, or until the configuration says something else than before. A policy that had asked for too
/// much may act again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff mode\n  \
    tipstaff mode audit\n  \
    tipstaff mode enforce --policy deploy-guard")]
pub struct Args {
    /// The new mode: observe (no actions), audit (decided and reported), enforce (done)
    #[arg(value_name = "MODE")]
    set: Option<Mode>,
    /// Of this policy, instead of the agent
    #[arg(long, value_name = "POLICY", requires = "set")]
    policy: Option<String>,
    #[command(flatten)]
    name: AgentName,
    /// How results are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Prints how all stands then.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { set, policy, name, format } = args;
    let request = Request::Mode { set: set.map(|mode| mode.to_string()), policy };
    let answered = control::ask(&lock::directory()?, name.get(), request)?;
    print(&answered, format)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints how all stands.
pub fn print(answered: &Answered, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        return writeln!(out, "{}", escape::json(&serde_json::to_string(answered)?));
    }
    let mut lines = vec![format!("agent {}", answered.mode)];
    for Standing { policy, mode, why, tables } in &answered.policies {
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        lines.push(format!("policy {policy} {mode}{why}"));
        for table in tables {
            let does = if table.mode == "enforce" { "denies" } else { "only tells" };
            lines.push(format!("  table in {}: {does}", table.scope));
        }
    }
    lines.iter().try_for_each(|line| writeln!(out, "{}", escape::control(line)))
}
