//! A decision about an action, as it is kept, logged and explained.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is about to be done. A decision whose record ends with this was cut off by a crash.
    Decided,
    /// It was done.
    Done,
    /// It was done so that it changes nothing for the processes concerned, or not at all, and says what
    /// would be.
    Audited,
    /// It was not done, as someone or something does not allow it.
    Refused,
    /// It could not be done.
    Failed,
    /// It was done, and undone when that turned out to be wrong.
    Undone,
}

impl Outcome {
    /// All outcomes, with their names.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Decided, "decided"),
        (Self::Done, "done"),
        (Self::Audited, "audited"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
        (Self::Undone, "undone"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, name)| name)
    }
}

/// A process that an action is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its number.
    pub pid: u32,
    /// Its start in nanoseconds since boot, as it was asked for or else as `/proc` has it.
    pub start_ns: u64,
    /// The file that it runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Its arguments; none where they could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its cgroup, by the path on the v2 hierarchy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
}

/// A record of a decision. One that is about to be done has a second record with the same id when it
/// is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id: when the agent started, and a number.
    pub id: String,
    /// When the record was made, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Name of the policy; of none, where the operator or the agent itself acts on all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Digest of the policy's file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// The policy's generation.
    #[serde(default, skip_serializing_if = "is_none")]
    pub generation: u32,
    /// Name of the action.
    pub action: String,
    /// Who asked for it: `policy`, `operator` or `agent`.
    pub by: String,
    /// Where it applies; empty where it was no scope.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Directory of the cgroup that this is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// How far it goes.
    pub mode: String,
    /// What it promises on this kernel; empty where nothing is done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub strength: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was asked for, in words: a rule, or what a table has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Tables of other policies with which it is at odds: what one of them denies is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// The process that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Those that descend from it and were reached with it, as far as there is room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tree: Vec<Target>,
    /// Time from the event upon which it was asked for to when it was done, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u64>,
    /// How long it took from when the governor took it up, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ns: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(generation: &u32) -> bool {
    *generation == 0
}

/// One line, for the log.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.outcome.name())?;
        for part in [&self.what, &self.reason] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        for conflict in &self.conflicts {
            write!(f, "; {conflict}")?;
        }
        Ok(())
    }
}
