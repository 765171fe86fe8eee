//! Guardrails: what policies may have done to the machine. The policy decides, the kernel enforces, the
//! governor limits. Nothing here knows `aya` or `wasmtime`.
//!
//! A policy has one [`Table`] per scope (a cgroup): [`Rule`]s and a default. The table is installed
//! whole in the kernel, whose programs then decide as [`Table::decide`] does, without asking anyone.
//! Across tables, one that denies is enough.
//!
//! | module | what is there |
//! |---|---|
//! | `rule`, `name`, `table`, `words` | what is denied, as data |
//! | `nodes` | the same as the kernel holds it |
//! | `paths` | rules about files and programs, for the command of `tipstaff exec` |
//! | `mode` | how far an action may go |
//! | `grant` | the capabilities that need the operator's permission |
//! | `scope` | where rules apply |
//! | `ask`, `signal` | what policies ask for |
//! | `desk` | where policies ask for actions, and get the answer that can be known at once |
//! | `governor` | what is done about it, in which mode, and which tables are in force |
//! | `protect` | what no action may reach |
//! | `conflict` | where policies are at odds |
//! | `decision`, `decisions` | what is said of it, and kept |

mod ask;
mod conflict;
mod decision;
pub mod decisions;
mod desk;
pub mod governor;
mod grant;
mod mode;
mod name;
mod nodes;
pub mod paths;
mod protect;
mod rule;
mod scope;
mod signal;
mod table;
#[cfg(test)]
mod tests;
mod window;
mod words;

pub use ask::{Action, Ask, Refusal, Told, Wish};
pub use conflict::denied_elsewhere;
pub use decision::{Decision, Outcome, Target};
pub use decisions::Decisions;
pub use desk::{Desk, Held, PolicyDesk, RuleText};
pub use governor::Governor;
pub use grant::{Grant, OnQuarantine, Strength};
pub use mode::{Mode, NoMode};
pub use name::{NameIndex, NameRule, Names};
pub(crate) use nodes::nanoseconds;
pub use protect::{Protected, Protection, Reach};
pub use rule::{MAX_REASON, Ports, Prefix, Rule, RuleError};
pub use scope::{Scope, ScopeError, cgroup_path};
pub use signal::{Signal, SignalAsk, SignalWish};
pub use table::{By, Table, TableError};
pub use words::{GuardMode, Operation, Operations, Protocol, Verdict};
