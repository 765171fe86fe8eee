//! Guardrails: what policies may have done to the machine. The policy decides, the kernel enforces, the
//! governor limits. Nothing here knows `aya` or `wasmtime`.
//!
//! A policy has one [`Table`] per scope (a cgroup): [`Rule`]s and a default. The table is installed
//! whole in the kernel, whose programs then decide as [`Table::decide`] does, without asking anyone.
//! Across tables, one that denies is enough.
//!
//! | module | what is there |
//! |---|---|
//! | `rule`, `table`, `words` | what is denied, as data |
//! | `mode` | how far an action may go |
//! | `grant` | the capabilities that need the operator's permission |
//! | `scope` | where rules apply |

mod grant;
mod mode;
mod rule;
mod scope;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use grant::{Grant, OnQuarantine, Strength};
pub use mode::{Mode, NoMode};
pub use rule::{MAX_REASON, Ports, Prefix, Rule, RuleError};
pub use scope::{Scope, ScopeError, cgroup_path};
pub use table::{By, Table, TableError};
pub use words::{GuardMode, Operation, Operations, Protocol, Verdict};
