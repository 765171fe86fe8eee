//! One command in a cgroup of its own, for `tipstaff exec`.
//!
//! Three processes beside the command's: the *wrapper* (which runs the agent), the *keeper*, and the
//! *stand-in*, which becomes the command. In this order:
//!
//! 1. The wrapper makes the [`Scope`], a cgroup, and starts the stand-in before it changes anything of
//!    its own: so the command inherits what the wrapper was given, and nothing else. The stand-in
//!    waits.
//! 2. The wrapper starts the [`Keeper`], loads the policies, and attaches the probes.
//! 3. The stand-in enters the cgroup, gives up its rights, enters the [`domain`]s that policies asked for, and
//!    becomes the command; the wrapper passes on signals and waits, see [`supervise`].
//!
//! Signals: the command stays in the process group and in the session that it would be in without
//! us, and the *wrapper* leaves that group (for the keeper's). So a key on the terminal and a signal to
//! the whole group reach the command once and directly, other members of a pipeline keep the terminal,
//! and a signal to the wrapper alone is passed on once.

mod anchor;
pub mod domain;
mod identity;
pub mod keeper;
mod links;
mod scope;
mod standin;
mod supervise;

use std::{io, path::PathBuf};

use crate::sys;

pub use domain::{Domain, DomainError};
pub use identity::{Identity, IdentityError};
pub use keeper::{Keeper, OnDeath};
pub use links::Links;
pub use scope::{Process, Scope, ScopeError, named};
pub use standin::{NotStarted, Signals, StandIn, become_command};
pub use supervise::{Ended, Supervisor};

/// What this program runs to run itself again.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The hidden command that becomes the command.
pub const STANDIN_COMMAND: &str = "exec-stand-in";
/// The hidden command of the keeper.
pub const KEEPER_COMMAND: &str = "exec-keeper";

/// Closes what this process was given for the command, which has it by now: who waits for the other
/// end of a pipe waits for the command alone. To be called after [`StandIn::spawn`], before anything
/// else is opened.
pub fn leave_descriptors_to_the_command() -> io::Result<()> {
    sys::descriptors::close_inherited()?;
    sys::descriptors::let_go_of_input_and_output()
}

/// Why there is no command. Nothing of it was run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Its cgroup.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The process that becomes it.
    #[error("cannot start the process that becomes the command: {0}")]
    StandIn(#[source] io::Error),
    /// The keeper.
    #[error("cannot start the keeper, which ends the command if this process dies: {0}")]
    Keeper(#[source] io::Error),
    /// Signals.
    #[error("cannot catch signals: {0}")]
    Signals(#[source] io::Error),
    /// A policy.
    #[error(
        "{refused} of {named} policies do not run, so the command is not run: mend them or leave them out"
    )]
    Policies {
        /// How many do not.
        refused: usize,
        /// How many were named.
        named: usize,
    },
    /// Rules that the command was to have.
    #[error(
        "{count} actions that policies asked for are not done, so the command is not run; the first one: policy `{policy}`: {what}"
    )]
    NotGuarded {
        /// How many are not done.
        count: usize,
        /// Who asked for the first one.
        policy: String,
        /// What became of it, and why.
        what: String,
    },
    /// A directory of policies without any.
    #[error(
        "no policy to run the command with: give --policy FILE, or --policies DIR with policies in it"
    )]
    NoPolicy,
    /// The end of the agent.
    #[error("the agent ended before the command was started")]
    NoAgent,
    /// The file for the report.
    #[error("cannot write the report to {}: {source}", path.display())]
    Report {
        /// Its path.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}
