//! What policies ask for, and what they and the governor are told of it.

use std::{sync::Arc, time::Duration};

use super::{Rule, Scope, SignalAsk, Table, paths::PathAsk};

/// What a policy wants to be done in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// This table in place of the one that is there.
    Set {
        /// The table.
        table: Table,
        /// Whether it never denies, whatever the mode.
        log_only: bool,
    },
    /// One more rule.
    Add(Rule),
    /// No table.
    Clear,
}

impl Action {
    /// Its name in records and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Set { log_only: false, .. } => "set-table",
            Self::Set { log_only: true, .. } => "set-log-only",
            Self::Add(_) => "add",
            Self::Clear => "clear",
        }
    }
}

/// An action that a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// Where.
    pub scope: Scope,
    /// Number that the events of its guard bear; 0 where it has none.
    pub guard: u32,
    /// Number of this ask.
    pub number: u64,
    /// What.
    pub action: Action,
}

/// What the governor is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A policy asks for an action, in a call that ended well.
    Ask(Ask),
    /// A policy asks for a signal, in a call that ended well.
    Signal(SignalAsk),
    /// The same for a table about files or programs.
    Paths(PathAsk),
    /// A policy was refused an action at once. Only so many per minute are told.
    Refused {
        /// Name of the policy.
        policy: Arc<str>,
        /// What it gave for a scope, cut.
        scope: String,
        /// Name of the action.
        action: &'static str,
        /// Why.
        reason: String,
    },
    /// A policy asks for too much: from now on its mode is audit.
    Tripped(Arc<str>),
}

/// Why an action is refused at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the policy's author and the operator.
    pub reason: String,
    /// Key of the limit that was reached.
    pub limit: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(reason: &dyn std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), limit: None }
    }

    pub(super) fn limit(key: &'static str, reason: String) -> Self {
        Self { reason, limit: Some(key) }
    }
}

/// What a policy asks for, as it wrote it.
#[derive(Debug, Clone, Copy)]
pub enum Wish<'a> {
    /// A table.
    Set {
        /// Its text.
        table: &'a str,
        /// Whether it never denies.
        log_only: bool,
    },
    /// A rule.
    Add {
        /// Its text.
        rule: &'a str,
        /// How long it counts; `None`: for ever.
        ttl: Option<Duration>,
    },
    /// No table.
    Clear,
}
