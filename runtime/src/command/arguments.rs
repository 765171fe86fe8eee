//! What several commands take, and values on the command line that the configuration has, too.

use std::{path::PathBuf, time::Duration};

use tipstaff_runtime::config::{self, Listen, Name};

/// Which configuration and which policies.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Configuration file [default: /etc/tipstaff/tipstaff.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of policies, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// A policy file; may be given several times. Without --policies, these are all
    #[arg(long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
}

/// Which agent.
#[derive(Debug, clap::Args)]
pub struct AgentName {
    /// Name of the agent [default: tipstaff]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<Name>,
}

impl AgentName {
    /// The name, `tipstaff` where none is given.
    pub fn get(&self) -> &str {
        self.or("tipstaff")
    }

    /// The name, or this one.
    pub fn or<'a>(&'a self, other: &'a str) -> &'a str {
        self.name.as_ref().map_or(other, |name| &name.0)
    }
}

/// A duration such as `10s`.
pub fn time(text: &str) -> Result<Duration, String> {
    config::parse_time(text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "expected a time above zero such as 500ms, 10s, 5m or 1h".to_owned())
}

/// The name of an agent.
pub fn name(text: &str) -> Result<Name, String> {
    if config::is_name(text, b'-') {
        Ok(Name(text.to_owned()))
    } else {
        Err("expected a-z, 0-9 and -, beginning with a letter, at most 64 bytes".to_owned())
    }
}

/// An address for metrics.
pub fn listen(text: &str) -> Result<Listen, String> {
    text.parse().map_err(|()| "expected ADDRESS:PORT such as 127.0.0.1:9470, or off".to_owned())
}
