//! The command line. Help, man pages and completions are made from here.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    command::{
        canary, check, compile, events, exec, exec_keeper, exec_stand_in, explain, inspect, mode,
        new, plan, release, run, test,
    },
    log::LogArgs,
};

/// Watches the kernel through eBPF and feeds decoded events to sandboxed WebAssembly policies
#[derive(Debug, Parser)]
#[command(
    name = "tipstaff",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 finding or failure, 2 usage or configuration error (`exec` has its own).\n\
                  `tipstaff COMMAND --help` has examples."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Exec(exec::Args),
    Check(check::Args),
    Plan(plan::Args),
    Events(events::Args),
    Mode(mode::Args),
    Release(release::Args),
    Explain(explain::Args),
    Inspect(inspect::Args),
    Test(test::Args),
    New(new::Args),
    Compile(compile::Args),
    Canary(canary::Args),
    ExecKeeper(exec_keeper::Args),
    ExecStandIn(exec_stand_in::Args),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(args),
            Self::Exec(args) => exec::run(args),
            Self::Check(args) => check::run(args),
            Self::Plan(args) => plan::run(args),
            Self::Events(args) => events::run(args),
            Self::Mode(args) => mode::run(args),
            Self::Release(args) => release::run(args),
            Self::Explain(args) => explain::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Test(args) => test::run(args),
            Self::New(args) => new::run(args),
            Self::Compile(args) => compile::run(&args),
            Self::Canary(args) => canary::run(&args),
            Self::ExecKeeper(args) => exec_keeper::run(args),
            Self::ExecStandIn(args) => exec_stand_in::run(args),
            Self::Completions(args) => completions(&args),
            Self::Man(args) => man(&args),
        }
    }
}

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tipstaff completions bash > /etc/bash_completion.d/tipstaff")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tipstaff", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(ExitCode::SUCCESS)
}

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tipstaff man | man -l -\n  tipstaff man --directory /usr/local/share/man/man1"
)]
pub struct ManArgs {
    /// Write `tipstaff.1`, `tipstaff-run.1` and so on into this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    if let Some(directory) = &args.directory {
        fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .with_context(|| format!("cannot write manual pages to {}", directory.display()))?;
    } else {
        clap_mangen::Man::new(command).render(&mut io::stdout())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_is_shown_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(help.contains(&format!("tipstaff {name}")), "`{name} --help` has no example");
        }
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = tempfile::TempDir::new().unwrap();
        man(&ManArgs { directory: Some(dir.path().join("man1")) }).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = dir.path().join(format!("man1/tipstaff-{}.1", command.get_name()));
            assert!(fs::read_to_string(&page).unwrap().contains("Example"), "{}", page.display());
        }
    }
}
