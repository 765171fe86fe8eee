//! The commands, one file each: its arguments, and `run`.

pub mod arguments;
pub mod canary;
pub mod check;
pub mod compile;
pub mod events;
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
