//! The `tipstaff` command.
#![deny(unsafe_code)]

mod cli;
mod command;
mod log;

use std::{io, process::ExitCode};

use clap::Parser as _;
use tipstaff_runtime::escape;

use crate::{
    cli::{Cli, Command},
    command::Usage,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What an agent goes through is news, and what a policy logs in a test; what other commands do on
    // the way to their output is not.
    let usual =
        if matches!(cli.command, Command::Run(_) | Command::Test(_)) { "info" } else { "warn" };
    // The compiler child gives up its rights thread by thread: it has only the one.
    let log = (!matches!(cli.command, Command::Compile(_))).then(|| log::start(&cli.log, usual));
    let result = cli.command.run();
    drop(log);
    match result {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The newlines of a list of problems are ours; each problem has escaped its own.
            for line in format!("{error:#}").lines() {
                eprintln!("tipstaff: {}", escape::control(line));
            }
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is))
}
