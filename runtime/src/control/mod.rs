//! The control socket: how the operator's commands reach an agent that runs.
//!
//! `NAME.sock` in the directory of locks, for its owner alone; whoever connects must be root or the user
//! who runs the agent. JSON Lines: one [`Request`] on a line, one [`Answered`] on a line for each, both
//! with a version. What is not understood is answered with an error, and the connection goes on.

mod client;
mod server;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{ControlError, ask};
pub use server::{Control, ListenError};

/// Version of what is said. A server answers requests of this version only.
pub const VERSION: u32 = 1;

/// Longest line, in bytes.
const MAX_LINE: usize = 64 << 10;

/// The socket of the agent of that name, in the directory of locks.
#[must_use]
pub fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// To tell how far the agent and the policies go, or to change it.
    Mode {
        /// The new mode.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set: Option<String>,
        /// Of this policy; else of the agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
    },
    /// To take all rules out of force.
    Release {
        /// Of this policy; else of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
    },
}

/// A request as it is on the line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    version: u32,
    #[serde(flatten)]
    request: Request,
}

/// How all stands after a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// [`VERSION`].
    pub version: u32,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far the agent goes.
    pub mode: String,
    /// The policies that run.
    pub policies: Vec<Standing>,
    /// Tables that were taken out of force.
    pub released: usize,
}

/// How a policy stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its name.
    pub policy: String,
    /// How far it goes.
    pub mode: String,
    /// Why it goes no further.
    pub why: String,
    /// Its tables in force.
    pub tables: Vec<Tabled>,
}

/// A table in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tabled {
    /// Where.
    pub scope: String,
    /// `enforce` if it denies, `audit` if it only tells.
    pub mode: String,
}

impl Answered {
    /// An answer of somebody who does not know how all stands.
    fn failed(error: String) -> Self {
        Self {
            version: VERSION,
            error: Some(error),
            mode: String::new(),
            policies: Vec::new(),
            released: 0,
        }
    }
}

#[cfg(test)]
mod tests;
