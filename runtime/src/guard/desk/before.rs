//! What there is before an action, as far as the desk knows.

use std::collections::{BTreeMap, BTreeSet};

use super::{Held, Pending};
use crate::guard::{Action, Ask, Scope};

/// What there is before an action: what waits, over what is handed in, over what the policy has.
pub(super) struct Before<'a> {
    pub waiting: &'a [Ask],
    pub pending: &'a BTreeMap<Scope, Pending>,
    pub held: &'a BTreeMap<Scope, Held>,
}

impl Before<'_> {
    fn of<'a>(&'a self, scope: &'a Scope) -> impl DoubleEndedIterator<Item = &'a Action> {
        self.waiting.iter().filter(move |ask| ask.scope == *scope).map(|ask| &ask.action)
    }

    /// Whether it asks for what is there.
    pub fn makes_no_difference(&self, scope: &Scope, action: &Action) -> bool {
        match (self.of(scope).next_back(), action) {
            (Some(last), _) => last == action,
            // What it has is not what it will have.
            (None, _) if self.pending.contains_key(scope) => false,
            (None, Action::Clear) => !self.held.contains_key(scope),
            (None, Action::Add(_)) => false,
            (None, Action::Set { table, log_only }) => self
                .held
                .get(scope)
                .is_some_and(|held| held.table == *table && held.log_only == *log_only),
        }
    }

    /// Number of tables if there is one in this scope.
    pub fn tables_with(&self, scope: &Scope) -> usize {
        let mut scopes: BTreeSet<&Scope> = self.held.keys().collect();
        let pending = self.pending.iter().map(|(scope, Pending { clears, .. })| (scope, *clears));
        let waiting = self.waiting.iter();
        let waiting = waiting.map(|ask| (&ask.scope, matches!(ask.action, Action::Clear)));
        for (scope, clears) in pending.chain(waiting) {
            if clears {
                scopes.remove(scope)
            } else {
                scopes.insert(scope)
            };
        }
        scopes.insert(scope);
        scopes.len()
    }

    /// Most rules that the table of a scope can have.
    pub fn rules(&self, scope: &Scope) -> usize {
        let held = self.held.get(scope).map_or(0, |held| held.table.len());
        self.of(scope).fold(held, |rules, action| match action {
            Action::Set { table, .. } => table.len(),
            Action::Add(_) => rules + 1,
            Action::Clear => 0,
        })
    }
}
