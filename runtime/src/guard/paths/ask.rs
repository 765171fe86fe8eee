//! What policies ask for about files and programs.

use std::sync::Arc;

use super::{Access, PathTable, Resolved};
use crate::guard::{Grant, GuardMode};

/// A table that a policy asks for, in place of the one before. Its scope is the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathAsk {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// The capability by which it asks.
    pub grant: Grant,
    /// The table.
    pub table: PathTable,
}

/// A table that a policy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPaths {
    /// As it was asked for.
    pub table: PathTable,
    /// Where its paths lead.
    pub resolved: Resolved,
    /// Whether it denies.
    pub mode: GuardMode,
}

/// What a table says of an access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedPath {
    /// The policy whose table it is.
    pub policy: String,
    /// The access.
    pub access: Access,
    /// The rule, without the reason.
    pub rule: String,
    /// Why; may be empty.
    pub reason: String,
    /// Whether it denies, or only would.
    pub mode: GuardMode,
}

impl HeldPaths {
    /// What it says of an access to a path without symbolic links, if it denies that.
    pub(in crate::guard) fn denied(
        &self,
        policy: &str,
        access: Access,
        path: &std::path::Path,
    ) -> Option<DeniedPath> {
        let (verdict, by) = self.resolved.decide(access, path);
        if verdict == crate::guard::Verdict::Allow {
            return None;
        }
        let (rule, reason) = match by.and_then(|index| self.table.rules.get(index)) {
            Some(rule) => {
                let text = super::PathRule { reason: String::new(), ..rule.clone() }.to_string();
                (text, rule.reason.clone())
            }
            None => (format!("default {}", self.table.default), self.table.default_reason.clone()),
        };
        Some(DeniedPath { policy: policy.to_owned(), access, rule, reason, mode: self.mode })
    }
}

/// The name of this capability's action in records and metrics.
#[must_use]
pub const fn action(grant: Grant) -> &'static str {
    match grant {
        Grant::Exec => "set-programs",
        _ => "set-files",
    }
}
