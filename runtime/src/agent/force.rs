//! The tables that are in force in the kernel, and what they denied.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{Keep, names::Names};
use crate::{
    guard::{GuardMode, Scope, Table, Verdict},
    outcome::{AgentMetrics, DenialLabels},
    probe::{NetworkGuard, ProbeError, Probes, RuleCount},
};

/// Reading what was denied takes no more than this part of the time.
const COUNT_SHARE: u32 = 100;

/// A policy's table in a scope.
pub(super) type Key = (String, Scope);

/// See the module's documentation.
pub(super) struct Force {
    guards: BTreeMap<Key, Installed>,
    /// Out of force, and still attached, as somebody else keeps the links: for the next tables of their
    /// cgroups, which take 64 programs of a sort.
    resting: Vec<(u64, NetworkGuard)>,
    names: Names,
    keep: Option<Keep>,
    counts: Arc<AgentMetrics>,
}

/// A guard in the kernel.
struct Installed {
    guard: NetworkGuard,
    /// Number that its events bear.
    number: u32,
    mode: GuardMode,
    table: Table,
    /// Queries that were denied for their names.
    names_denied: Arc<AtomicU64>,
    /// Inode of its cgroup: another one may have its path later.
    inode: u64,
    /// Whether somebody else keeps its links, too.
    is_kept: bool,
    denied: u64,
    would_deny: u64,
    /// When it is read again what was denied.
    count_at: Instant,
}

impl Force {
    pub fn new(keep: Option<Keep>, counts: &Arc<AgentMetrics>) -> Self {
        let names = Names::new(keep.clone());
        let (guards, resting) = (BTreeMap::new(), Vec::new());
        Self { guards, resting, names, keep, counts: Arc::clone(counts) }
    }

    /// Number of tables.
    pub fn len(&self) -> usize {
        self.guards.len()
    }

    /// Puts a table in force in place of the one before. After an error that one is still in force.
    /// `number` is what its events bear.
    pub fn put(
        &mut self,
        key: &Key,
        directory: &Path,
        number: u32,
        mode: GuardMode,
        table: &Table,
        probes: &mut Probes,
    ) -> Result<(), String> {
        let inode = fs::metadata(directory).map_err(|error| error.to_string())?.ino();
        if self.guards.get(key).is_some_and(|installed| installed.inode != inode) {
            // It is of a cgroup that is gone.
            self.let_go(key)?;
        }
        let is_new = !self.guards.contains_key(key);
        if is_new {
            let installed = self.guard(directory, inode, number, mode, probes)?;
            let known = installed.guard.known();
            self.guards.insert(key.clone(), installed);
            if let Err(error) = self.names.joins(key, directory, known) {
                return Err(self.give_up(key, error));
            }
        }
        match self.replace(key, directory, mode, table, probes, is_new) {
            Ok(()) => self.count(key),
            Err(error) if is_new => return Err(self.give_up(key, error)),
            Err(error) => {
                self.names.tidy();
                return Err(error);
            }
        }
        Ok(())
    }

    /// A guard at a cgroup: one that rests there, or a new one.
    fn guard(
        &mut self,
        directory: &Path,
        inode: u64,
        number: u32,
        mode: GuardMode,
        probes: &mut Probes,
    ) -> Result<Installed, String> {
        let resting = self.resting.iter().position(|(of, _)| *of == inode);
        let is_kept = resting.is_some();
        let (guard, (denied, would_deny)) = match resting {
            None => (probes.guard_network(directory, number, mode).map_err(told)?, (0, 0)),
            Some(at) => {
                let guard = &mut self.resting[at].1;
                guard.set_number(number).map_err(told)?;
                // Those of the tables before were counted.
                let before = totals(guard).map_err(told)?;
                (self.resting.swap_remove(at).1, before)
            }
        };
        Ok(Installed {
            guard,
            number,
            mode,
            table: Table::new(Verdict::Allow),
            names_denied: Arc::default(),
            inode,
            is_kept,
            denied,
            would_deny,
            count_at: Instant::now(),
        })
    }

    /// What failed, and what became of the guard that was to do it.
    fn give_up(&mut self, key: &Key, error: String) -> String {
        match self.let_go(key) {
            Ok(()) => error,
            Err(more) => format!("{error}; {more}"),
        }
    }

    fn replace(
        &mut self,
        key: &Key,
        directory: &Path,
        mode: GuardMode,
        table: &Table,
        probes: &mut Probes,
        is_new: bool,
    ) -> Result<(), String> {
        self.names.prepare(key, directory, table, mode == GuardMode::Enforce, probes)?;
        let installed = self.guards.get_mut(key).ok_or("there is no guard")?;
        let guard = &mut installed.guard;
        // What is milder comes first.
        if mode == GuardMode::Audit && !is_new {
            guard.set_mode(mode).map_err(told)?;
        }
        if let Err(error) = guard.install(table) {
            let back = guard.set_mode(installed.mode);
            return Err(match back {
                Ok(()) => error.to_string(),
                Err(back) => format!("{error}; the table before is now in {mode} mode: {back}"),
            });
        }
        if !installed.is_kept
            && let Some(Keep(keep)) = &self.keep
        {
            let links: Vec<_> = guard.links().collect();
            keep(&links).map_err(|error| format!("nobody keeps it if the agent dies: {error}"))?;
            installed.is_kept = true;
        }
        guard.set_mode(mode).map_err(told)?;
        (installed.mode, installed.table) = (mode, table.clone());
        self.enter(key);
        Ok(())
    }

    /// Names are judged by the table as it is now.
    fn enter(&mut self, key: &Key) {
        let Some(Installed { number, mode, table, names_denied, .. }) = self.guards.get(key) else {
            return;
        };
        self.names.enter(key, *number, table, *mode == GuardMode::Enforce, names_denied);
    }

    /// Puts another table in the place of one that is in force.
    pub fn install(&mut self, key: &Key, table: &Table) -> Result<(), String> {
        let installed = self.guards.get_mut(key).ok_or("there is no table")?;
        installed.guard.install(table).map_err(told)?;
        installed.table = table.clone();
        self.enter(key);
        Ok(())
    }

    /// Has a table deny, or only tell.
    pub fn set_mode(
        &mut self,
        key: &Key,
        mode: GuardMode,
        probes: &mut Probes,
    ) -> Result<(), String> {
        self.count(key);
        let installed = self.guards.get_mut(key).ok_or("there is no table")?;
        let directory = installed.guard.cgroup().to_owned();
        let denies = mode == GuardMode::Enforce;
        self.names.prepare(key, &directory, &installed.table, denies, probes)?;
        if let Err(error) = installed.guard.set_mode(mode) {
            self.names.tidy();
            return Err(error.to_string());
        }
        installed.mode = mode;
        self.enter(key);
        Ok(())
    }

    /// Takes a table out of force. Nothing is denied afterwards, also where someone else keeps the links.
    pub fn let_go(&mut self, key: &Key) -> Result<(), String> {
        self.count(key);
        let Some(Installed { mut guard, inode, is_kept, .. }) = self.guards.remove(key) else {
            return Ok(());
        };
        self.names.leaves(key);
        if !is_kept {
            return Ok(());
        }
        let rests =
            guard.rest().map_err(|error| format!("rules stay until the command ends: {error}"));
        self.resting.push((inode, guard));
        if let Err(error) = &rests {
            tracing::error!(policy = key.0, scope = %key.1, "{error}");
        }
        rests
    }

    /// Counts what was denied. The tables whose cgroups are gone.
    pub fn look(&mut self) -> Vec<Key> {
        self.names.look();
        let now = Instant::now();
        let due = self.guards.iter().filter(|(_, installed)| installed.count_at <= now);
        for key in due.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.count(&key);
        }
        let is_gone = |installed: &Installed| {
            let there = fs::metadata(installed.guard.cgroup()).map(|metadata| metadata.ino());
            there.ok() != Some(installed.inode)
        };
        let gone = self.guards.iter().filter(|(_, installed)| is_gone(installed));
        gone.map(|(key, _)| key.clone()).collect()
    }

    /// Counts what was denied until now, by all tables.
    pub fn count_all(&mut self) {
        for key in self.guards.keys().cloned().collect::<Vec<_>>() {
            self.count(&key);
        }
    }

    fn count(&mut self, key: &Key) {
        let Some(installed) = self.guards.get_mut(key) else { return };
        let begun = Instant::now();
        let (by_address, would_deny) = match totals(&installed.guard) {
            Ok(totals) => totals,
            Err(error) => {
                tracing::warn!(policy = key.0, scope = %key.1, "{error}");
                return;
            }
        };
        // A table of ten thousand rules takes some milliseconds.
        installed.count_at = Instant::now() + COUNT_SHARE * begun.elapsed();
        let denied = by_address + installed.names_denied.load(Ordering::Relaxed);
        let told = [
            ("denied", &mut installed.denied, denied),
            ("would_deny", &mut installed.would_deny, would_deny),
        ];
        for (verdict, before, now) in told {
            // Not by scope: a policy names as many of these as it likes, and counts stay.
            let labels = DenialLabels { policy: key.0.clone(), verdict: verdict.to_owned() };
            // There from the beginning, so that the first denial is an increase.
            let more = now.saturating_sub(*before);
            self.counts.denials.get_or_create(&labels).inc_by(more);
            *before = now;
        }
    }
}

/// What a guard denied so far, and would have denied.
fn totals(guard: &NetworkGuard) -> Result<(u64, u64), ProbeError> {
    let counts = guard.counts()?;
    let sum = |of: fn(&RuleCount) -> u64| counts.iter().map(of).sum();
    Ok((sum(|count| count.denied), sum(|count| count.would_deny)))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn told(error: ProbeError) -> String {
    error.to_string()
}
