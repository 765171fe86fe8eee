//! Guardrails: what policies ask to be denied, as data. The policy decides, the kernel enforces, the
//! governor limits.
//!
//! A policy has one [`Table`] per scope (a cgroup): [`Rule`]s and a default. The table is installed
//! whole in the kernel, whose programs then decide as [`Table::decide`] does, without asking anyone.
//! Across tables, one that denies is enough.

mod rule;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use rule::{MAX_REASON, Ports, Prefix, Rule, RuleError};
pub use table::{By, Table, TableError};
pub use words::{GuardMode, Operation, Operations, Protocol, Verdict};
