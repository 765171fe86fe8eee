//! The commands, one file each: its arguments, and `run`.

pub mod arguments;
pub mod canary;
pub mod check;
pub mod compile;
pub mod events;
pub mod exec;
pub mod exec_keeper;
pub mod exec_stand_in;
pub mod explain;
pub mod inspect;
pub mod mode;
pub mod new;
pub mod plan;
pub mod release;
pub mod run;
pub mod test;

use clap::ValueEnum;

/// How results are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For eyes.
    #[default]
    Text,
    /// JSON Lines: one object a line.
    Json,
}

/// An agent of which one thread is gone looks healthy and sees nothing: better none at all, which a
/// service manager starts again.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// What was asked for makes no sense or the configuration is wrong: exit code 2. Any other error of
/// a command is a finding or failure: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Usage(pub anyhow::Error);

impl Usage {
    /// Makes an error one of usage.
    pub fn of(error: impl Into<anyhow::Error>) -> anyhow::Error {
        anyhow::Error::new(Self(error.into()))
    }
}
