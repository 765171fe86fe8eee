//! `tipstaff exec-stand-in`: becomes the command of `tipstaff exec`. Not for people, hence hidden.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tipstaff_runtime::exec::{self, Signals};

/// Wait, enter a cgroup, become a user, and become a command
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Descriptor of the socket to whoever says when
    #[arg(long, value_name = "NUMBER")]
    channel: i32,
    /// Signals that the command blocks
    #[arg(long, value_name = "BITS", value_parser = bits)]
    blocked: u64,
    /// Signals that the command ignores
    #[arg(long, value_name = "BITS", value_parser = bits)]
    ignored: u64,
    /// The cgroup
    #[arg(long, value_name = "DIR")]
    cgroup: PathBuf,
    /// The user
    #[arg(long, value_name = "NUMBER", requires = "gid")]
    uid: Option<u32>,
    /// Its first group
    #[arg(long, value_name = "NUMBER")]
    gid: Option<u32>,
    /// One of its groups
    #[arg(long, value_name = "NUMBER")]
    group: Vec<u32>,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Returns only if it does not become the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { channel, blocked, ignored, cgroup, uid, gid, group, command } = args;
    let user = uid.zip(gid).map(|(uid, gid)| (uid, gid, group.as_slice()));
    exec::become_command(channel, Signals { blocked, ignored }, &cgroup, user, &command)
        .map(ExitCode::from)
        .context("whoever was to say when is gone")
}

fn bits(text: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(text, 16)
}
