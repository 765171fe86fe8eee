//! Where policies ask for actions: what can be known at once is checked and answered here, on the
//! thread that calls the policy. What passes is handed to the governor when the call has ended well.

mod before;
mod paths;
mod signal;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{
    Action, Ask, Grant, Mode, NameRule, Refusal, Rule, Scope, Table, Told, Wish, paths::HeldPaths,
    window::Window,
};
use crate::policy::Limits;
use before::Before;

/// Refusals per minute and policy that the governor is told of.
const REFUSALS_TOLD: u32 = 10;
/// Longest scope in such a refusal, in bytes.
const SCOPE_TOLD: usize = 256;
/// Longest reason of such a refusal, in bytes: it may repeat what the policy wrote.
const REASON_TOLD: usize = 1024;

/// A rule, for whoever reads of what it denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleText {
    /// The policy that has it.
    pub policy: String,
    /// Where.
    pub scope: String,
    /// The rule, without the reason.
    pub rule: String,
    /// Why; may be empty.
    pub reason: String,
}

/// The desk, for all policies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    governor: Sender<Told>,
    has_command: bool,
    /// Whether the command has begun.
    runs: AtomicBool,
    /// Number of the last guard.
    guards: AtomicU32,
    /// Number of the last ask.
    asks: AtomicU64,
    all: Mutex<All>,
    standings: Mutex<HashMap<String, Arc<Mutex<Standing>>>>,
}

/// What counts for all policies together.
#[derive(Debug)]
struct All {
    actions: Window,
    actions_per_minute: u32,
    breaker: u32,
}

/// How a policy stands with the governor, over all its instances and generations.
#[derive(Debug, Default)]
struct Standing {
    mode: Mode,
    /// Why it is not `enforce`.
    why: String,
    /// What it asked for.
    asked: Window,
    /// What was accepted.
    actions: Window,
    refusals: Window,
    tripped: bool,
    tables: BTreeMap<Scope, Held>,
    /// What was handed in last for each scope, until the governor has acted on it.
    pending: BTreeMap<Scope, Pending>,
    /// Numbers of its guards, also of those that are still to be.
    guards: BTreeMap<Scope, u32>,
    /// Its tables about files and programs.
    paths: BTreeMap<Grant, HeldPaths>,
}

impl Standing {
    /// Whether anything may be asked for.
    fn check_mode(&self) -> Result<(), Refusal> {
        if self.mode > Mode::Observe {
            return Ok(());
        }
        let why = &self.why;
        Err(Refusal::new(&format_args!("the mode is `observe`, nothing is done: {why}")))
    }

    /// Forgets the number of a guard that there is not, nor will be when what is asked for is done: until
    /// then a table that comes after another has its number.
    fn forget_number(&mut self, scope: &Scope) {
        if !self.tables.contains_key(scope) && !self.pending.contains_key(scope) {
            self.guards.remove(scope);
        }
    }
}

/// What the governor has yet to act on.
#[derive(Debug, Clone, Copy)]
struct Pending {
    number: u64,
    /// Whether there is no table if it is done.
    clears: bool,
}

/// A table that a policy has in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it asked for, and was added to it.
    pub table: Table,
    /// Whether it never denies, whatever the mode.
    pub log_only: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A desk, and where the governor hears of what is asked for. `has_command`: whether there is the
    /// scope `command`.
    #[must_use]
    pub fn new(has_command: bool) -> (Self, Receiver<Told>) {
        let (governor, told) = unbounded();
        let all = All { actions: Window::default(), actions_per_minute: 600, breaker: 120 };
        let shared = Shared {
            governor,
            has_command,
            runs: AtomicBool::new(false),
            guards: AtomicU32::new(0),
            asks: AtomicU64::new(0),
            all: Mutex::new(all),
            standings: Mutex::default(),
        };
        (Self { shared: Arc::new(shared) }, told)
    }

    /// Limits for all policies together, and of what each may ask for, per minute.
    pub fn limit(&self, actions_per_minute: u32, breaker: u32) {
        let mut all = lock(&self.shared.all);
        (all.actions_per_minute, all.breaker) = (actions_per_minute, breaker);
    }

    fn standing(&self, policy: &str) -> Arc<Mutex<Standing>> {
        let mut standings = lock(&self.shared.standings);
        if let Some(standing) = standings.get(policy) {
            return Arc::clone(standing);
        }
        let standing = Arc::<Mutex<Standing>>::default();
        "the mode of the agent is `observe`".clone_into(&mut lock(&standing).why);
        standings.insert(policy.to_owned(), Arc::clone(&standing));
        standing
    }

    /// Says how far a policy may go from now on, and why not further.
    pub fn set_mode(&self, policy: &str, mode: Mode, why: &str) {
        let standing = self.standing(policy);
        let mut standing = lock(&standing);
        standing.mode = mode;
        why.clone_into(&mut standing.why);
    }

    /// Forgets that a policy asked for too much.
    pub fn reset(&self, policy: &str) {
        let standing = self.standing(policy);
        let mut standing = lock(&standing);
        (standing.tripped, standing.asked) = (false, Window::default());
    }

    /// Says which table a policy has in a scope now.
    pub fn set_table(&self, policy: &str, scope: &Scope, held: Option<Held>) {
        let standing = self.standing(policy);
        let mut standing = lock(&standing);
        if let Some(held) = held {
            standing.tables.insert(scope.clone(), held);
        } else {
            standing.tables.remove(scope);
            standing.forget_number(scope);
        }
    }

    /// The rule of this index in the table of a guard; none: its default. `None` where there is no such
    /// table any more.
    #[must_use]
    pub fn rule(&self, guard: u32, index: Option<usize>, is_name: bool) -> Option<RuleText> {
        let standings = lock(&self.shared.standings);
        standings.iter().find_map(|(policy, standing)| {
            let standing = lock(standing);
            let (scope, _) = standing.guards.iter().find(|(_, number)| **number == guard)?;
            let table = &standing.tables.get(scope)?.table;
            let (rule, reason) = match index {
                None => (format!("default {}", table.default), table.default_reason.clone()),
                Some(index) if is_name => {
                    let rule = table.names.get(index)?.clone();
                    (NameRule { reason: String::new(), ..rule.clone() }.to_string(), rule.reason)
                }
                Some(index) => {
                    let rule = table.rules.get(index)?.clone();
                    (Rule { reason: String::new(), ..rule.clone() }.to_string(), rule.reason)
                }
            };
            Some(RuleText { policy: policy.clone(), scope: scope.to_string(), rule, reason })
        })
    }

    /// Says that the governor has acted on this, whatever came of it.
    pub fn acted(&self, ask: &Ask) {
        let standing = self.standing(&ask.policy);
        let mut standing = lock(&standing);
        if standing.pending.get(&ask.scope).is_some_and(|last| last.number == ask.number) {
            standing.pending.remove(&ask.scope);
            standing.forget_number(&ask.scope);
        }
    }

    /// Forgets a policy that is gone.
    pub fn forget(&self, policy: &str) {
        lock(&self.shared.standings).remove(policy);
    }

    /// The desk for one generation of a policy.
    #[must_use]
    pub fn policy(&self, policy: &str, limits: &Limits) -> PolicyDesk {
        let Limits { actions_per_minute, tables, rules, table_text, .. } = *limits;
        PolicyDesk {
            desk: self.clone(),
            policy: policy.into(),
            standing: self.standing(policy),
            actions_per_minute,
            tables,
            rules,
            table_text,
        }
    }
}

/// The desk for one generation of a policy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyDesk {
    desk: Desk,
    policy: Arc<str>,
    standing: Arc<Mutex<Standing>>,
    actions_per_minute: u32,
    tables: usize,
    rules: usize,
    table_text: usize,
}

impl PolicyDesk {
    /// Puts what the policy asks for to what waits for the end of the call. The number of the guard.
    pub fn ask(&self, waiting: &mut Vec<Ask>, scope: &str, wish: Wish<'_>) -> Result<u32, Refusal> {
        let now = Instant::now();
        let mut standing = lock(&self.standing);
        let result = self.check(&mut standing, waiting, scope, wish, now);
        if let Err(refusal) = &result {
            let action = match wish {
                Wish::Set { log_only: false, .. } => "set-table",
                Wish::Set { log_only: true, .. } => "set-log-only",
                Wish::Add { .. } => "add",
                Wish::Clear => "clear",
            };
            self.tell_refusal(&mut standing, scope, action, refusal, now);
        }
        result
    }

    /// Tells the governor of a refusal, if it is to know of so many.
    fn tell_refusal(
        &self,
        standing: &mut Standing,
        scope: &str,
        action: &'static str,
        refusal: &Refusal,
        now: Instant,
    ) {
        if standing.mode > Mode::Observe && standing.refusals.take(REFUSALS_TOLD, now) {
            self.tell(Told::Refused {
                policy: Arc::clone(&self.policy),
                scope: crate::escape::prefix(scope, SCOPE_TOLD).to_owned(),
                action,
                reason: crate::escape::prefix(&refusal.reason, REASON_TOLD).to_owned(),
            });
        }
    }

    /// Hands over what was asked for in a call that ended well.
    pub fn hand_in(&self, waiting: &mut Vec<Ask>) {
        if waiting.is_empty() {
            return;
        }
        // Held, so that two instances hand in one after the other.
        let mut standing = lock(&self.standing);
        for ask in mem::take(waiting) {
            let pending =
                Pending { number: ask.number, clears: matches!(ask.action, Action::Clear) };
            standing.pending.insert(ask.scope.clone(), pending);
            self.tell(Told::Ask(ask));
        }
    }

    fn tell(&self, told: Told) {
        // Without a governor nothing is done.
        let _ = self.desk.shared.governor.send(told);
    }

    fn check(
        &self,
        standing: &mut Standing,
        waiting: &mut Vec<Ask>,
        scope: &str,
        wish: Wish<'_>,
        now: Instant,
    ) -> Result<u32, Refusal> {
        standing.check_mode()?;
        let scope: Scope = scope.parse().map_err(|error| Refusal::new(&error))?;
        if scope == Scope::Command && !self.desk.shared.has_command {
            let reason = "there is no scope `command` here: it is that of `tipstaff exec`; expected `cgroup:/PATH`";
            return Err(Refusal::new(&reason));
        }
        let before = Before { waiting, pending: &standing.pending, held: &standing.tables };
        let action = self.parse(&before, &scope, wish)?;
        if before.makes_no_difference(&scope, &action) {
            return Ok(self.guard(&mut standing.guards, &scope, &action));
        }
        if !matches!(action, Action::Clear) && before.tables_with(&scope) > self.tables {
            let reason = format!(
                "it has tables in {} scopes, its limit is {} (`tables`)",
                before.tables_with(&scope) - 1,
                self.tables
            );
            return Err(Refusal::limit("tables", reason));
        }
        self.spend(standing, now)?;
        let guard = self.guard(&mut standing.guards, &scope, &action);
        let number = self.desk.shared.asks.fetch_add(1, Ordering::Relaxed) + 1;
        waiting.push(Ask { policy: Arc::clone(&self.policy), scope, guard, number, action });
        Ok(guard)
    }

    /// The number of the policy's guard in a scope, which it has from the first action that may make one:
    /// the scopes are as many as its budget allows.
    fn guard(&self, guards: &mut BTreeMap<Scope, u32>, scope: &Scope, action: &Action) -> u32 {
        if matches!(action, Action::Clear) {
            return guards.get(scope).copied().unwrap_or_default();
        }
        *guards
            .entry(scope.clone())
            .or_insert_with(|| self.desk.shared.guards.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn parse(&self, before: &Before<'_>, scope: &Scope, wish: Wish<'_>) -> Result<Action, Refusal> {
        let too_many = |rules: usize| {
            let reason =
                format!("the table has {rules} rules, its limit is {} (`rules`)", self.rules);
            Refusal::limit("rules", reason)
        };
        match wish {
            Wish::Clear => Ok(Action::Clear),
            Wish::Set { table, log_only } => {
                if table.len() > self.table_text {
                    let reason = format!(
                        "the table has {} bytes, its limit is {} (`table_text`)",
                        table.len(),
                        self.table_text
                    );
                    return Err(Refusal::limit("table_text", reason));
                }
                let table: Table = table.parse().map_err(|error| Refusal::new(&error))?;
                if table.len() > self.rules {
                    return Err(too_many(table.len()));
                }
                // Whether the kernel's maps can hold it.
                table.nodes(Duration::ZERO).map_err(|error| Refusal::new(&error))?;
                Ok(Action::Set { table, log_only })
            }
            Wish::Add { rule, .. } if NameRule::is_meant(rule) => Err(Refusal::new(
                &"rules about names are part of a table: put the table in with them (`set-table`)",
            )),
            Wish::Add { rule, ttl } => {
                let rule: Rule = rule.parse().map_err(|error| Refusal::new(&error))?;
                match before.rules(scope) + 1 {
                    rules if rules > self.rules => Err(too_many(rules)),
                    _ => Ok(Action::Add(Rule { ttl, ..rule })),
                }
            }
        }
    }

    /// Takes an action out of the budgets.
    fn spend(&self, standing: &mut Standing, now: Instant) -> Result<(), Refusal> {
        let mut all = lock(&self.desk.shared.all);
        if !standing.tripped && !standing.asked.take(all.breaker, now) {
            standing.tripped = true;
            self.tell(Told::Tripped(Arc::clone(&self.policy)));
        }
        let (own, most) = (self.actions_per_minute, all.actions_per_minute);
        if !standing.actions.has_room(own, now) {
            let reason = format!(
                "its budget is {own} actions per minute (`actions_per_minute` in its limits)"
            );
            return Err(Refusal::limit("actions_per_minute", reason));
        }
        if !all.actions.take(most, now) {
            return Err(Refusal::new(&format_args!(
                "the budget of all policies is {most} actions per minute (`actions_per_minute` in [guard])"
            )));
        }
        standing.actions.note(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
