//! The `tipstaff` command.
#![deny(unsafe_code)]

mod cli;
mod command;
mod log;

use std::{env, io, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};
use tipstaff_runtime::escape;

use crate::{
    cli::{Cli, Command},
    command::Usage,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told that it cannot be said.
            let _ = error.print();
            return ExitCode::from(match (error.use_stderr(), runs_a_command()) {
                (false, _) => 0,
                (true, false) => 2,
                (true, true) => command::exec::FAILED,
            });
        }
    };
    // What an agent goes through is news, and what a policy logs in a test; what other commands do on
    // the way to their output is not.
    let usual =
        if matches!(cli.command, Command::Run(_) | Command::Test(_)) { "info" } else { "warn" };
    // Children of ours give up their rights thread by thread: they have only the one.
    let is_child = matches!(
        cli.command,
        Command::Compile(_) | Command::ExecKeeper(_) | Command::ExecStandIn(_)
    );
    let log = (!is_child).then(|| log::start(&cli.log, usual));
    let runs_a_command = matches!(cli.command, Command::Exec(_));
    let result = cli.command.run();
    drop(log);
    match result {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if !runs_a_command && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The newlines of a list of problems are ours; each problem has escaped its own.
            for line in format!("{error:#}").lines() {
                eprintln!("tipstaff: {}", escape::control(line));
            }
            ExitCode::from(match (runs_a_command, error.is::<Usage>()) {
                (true, _) => command::exec::FAILED,
                (false, true) => 2,
                (false, false) => 1,
            })
        }
    }
}

/// Whether these are the arguments of `tipstaff exec`, as far as one can tell when they are wrong: `exec`
/// is also a kind of event.
fn runs_a_command() -> bool {
    let cli = Cli::command();
    let command = env::args_os().skip(1).find(|word| cli.find_subcommand(word).is_some());
    command.is_some_and(|command| command == "exec")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is))
}
