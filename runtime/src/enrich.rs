//! The tables that enriched fields are read from. A look-up never leaves memory: what is not there
//! is absent in this row, counted by reason, and asked of the resolver for the next one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_channel::Sender;

use crate::{
    container::container,
    kind::Enriched,
    process::{Process, Processes},
    record::Subject,
    resolver::{Answer, CgroupId, Request},
    source::{Given, GivenValue},
};

/// Most cgroups, users and open questions that are remembered, each.
const MOST: usize = 8_192;
/// How long the resolver is not asked again about what it did not find.
const ASK_AGAIN_NS: u64 = 1_000_000_000;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Why an enriched field has no value in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// The resolver is asked: a later row will have it, if it is there at all.
    NotYet,
    /// The resolver looked and found nothing: the process or cgroup has gone, the user has no name.
    Gone,
    /// The process, cgroup or user has no such value (a cgroup outside of any container).
    None,
    /// Too many questions were open.
    Busy,
}

impl Miss {
    /// All reasons, with the names that metrics use.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::NotYet, "not_yet"),
        (Self::Gone, "gone"),
        (Self::None, "none"),
        (Self::Busy, "busy"),
    ];
}

/// How often each enriched field had no value, by reason.
#[derive(Debug, Default)]
pub struct Misses([[AtomicU64; Miss::ALL.len()]; Enriched::ALL.len()]);

impl Misses {
    fn count(&self, field: Enriched, miss: Miss) {
        self.0[field as usize][miss as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every count: name of the field, name of the reason, how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Enriched::ALL.iter().flat_map(move |entry| {
            Miss::ALL.iter().map(move |&(miss, reason)| {
                (entry.1, reason, self.0[entry.0 as usize][miss as usize].load(Ordering::Relaxed))
            })
        })
    }
}

/// What the resolver said about something, or when it was asked.
#[derive(Debug)]
enum Entry<T> {
    Known(T),
    Asked(u64),
    Gone(u64),
}

#[derive(Debug)]
struct Cgroup {
    path: Box<[u8]>,
    container: Option<Box<[u8]>>,
    runtime: Option<&'static str>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Tables {
    /// The process table.
    pub processes: Processes,
    asked: Map<u32, Entry<()>>,
    cgroups: Map<CgroupId, Entry<Cgroup>>,
    users: Map<u32, Entry<Box<[u8]>>>,
    /// Wall-clock time minus monotonic time.
    wall_offset: i64,
    resolver: Option<Sender<Request>>,
    misses: Arc<Misses>,
    scratch: Vec<u8>,
}

impl Tables {
    /// Tables that are filled by the resolver behind `resolver`. `None`: nothing but events and
    /// given values tells them anything, and there is no wall clock.
    #[must_use]
    pub fn new(resolver: Option<Sender<Request>>) -> Self {
        Self { resolver, ..Self::default() }
    }

    /// How often fields had no value.
    #[must_use]
    pub fn misses(&self) -> &Arc<Misses> {
        &self.misses
    }

    /// Sets the difference between wall-clock and monotonic time.
    pub fn set_wall_offset(&mut self, offset: i64) {
        self.wall_offset = offset;
    }

    /// Takes in what the resolver found.
    pub fn learn(&mut self, answer: Answer, now: u64) {
        match answer {
            Answer::Process(seen) => {
                // A kernel thread runs no file: asking again would not help.
                if seen.exe.is_some() {
                    self.asked.remove(&seen.pid);
                } else {
                    self.asked.insert(seen.pid, Entry::Gone(now));
                }
                self.processes.seen(&seen);
            }
            Answer::NoProcess(pid) => {
                self.asked.insert(pid, Entry::Gone(now));
            }
            Answer::Seeded { pids, began } => {
                if let Some(pids) = pids {
                    self.processes.seen_all(&pids, began, now);
                }
            }
            Answer::Cgroup(id, path) => {
                let entry = match path {
                    Some(path) => {
                        let text = String::from_utf8_lossy(&path);
                        let found = container(&text);
                        Entry::Known(Cgroup {
                            container: found.map(|container| container.id.as_bytes().into()),
                            runtime: found.and_then(|container| container.runtime),
                            path,
                        })
                    }
                    None => Entry::Gone(now),
                };
                bounded(&mut self.cgroups).insert(id, entry);
            }
            Answer::User(id, name) => {
                let entry = name.map_or(Entry::Gone(now), Entry::Known);
                bounded(&mut self.users).insert(id, entry);
            }
        }
    }

    /// Forgets what is too old to be asked for.
    pub fn expire(&mut self, now: u64) {
        self.processes.expire(now);
        self.asked.retain(|_, entry| match entry {
            Entry::Known(()) => false,
            Entry::Asked(time) | Entry::Gone(time) => *time + ASK_AGAIN_NS > now,
        });
    }

    /// The value of an enriched field that is a number.
    fn number(&mut self, field: Enriched, subject: &Subject) -> Option<u64> {
        let found = match field {
            Enriched::WallTime if self.resolver.is_some() => {
                Ok(subject.time.wrapping_add_signed(self.wall_offset))
            }
            Enriched::WallTime => Err(Miss::None),
            Enriched::Weight => Ok(u64::from(subject.sample.every())),
            _ => self.process(subject).and_then(|process| match field {
                Enriched::ProcStart if process.start != 0 => Ok(process.start),
                Enriched::ProcParentPid if process.parent != 0 => Ok(u64::from(process.parent)),
                _ => Err(Miss::None),
            }),
        };
        self.counted(field, found)
    }

    /// The value of an enriched field that is a text or a list.
    fn text(&mut self, field: Enriched, subject: &Subject) -> Option<&[u8]> {
        match self.find_text(field, subject) {
            Ok(()) => Some(&self.scratch),
            Err(miss) => {
                self.misses.count(field, miss);
                None
            }
        }
    }

    /// Puts the value in `scratch`: a copy of some tens of bytes costs less than what would keep
    /// it borrowed.
    fn find_text(&mut self, field: Enriched, subject: &Subject) -> Result<(), Miss> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let found = self.write_text(field, subject, &mut scratch);
        self.scratch = scratch;
        found
    }

    fn write_text(
        &mut self,
        field: Enriched,
        subject: &Subject,
        out: &mut Vec<u8>,
    ) -> Result<(), Miss> {
        let time = subject.time;
        let value: &[u8] = match field {
            Enriched::WallTime
            | Enriched::Weight
            | Enriched::ProcStart
            | Enriched::ProcParentPid => {
                return Err(Miss::None);
            }
            Enriched::ProcExe => {
                if self.process(subject)?.image_at(time).exe.is_none() {
                    return Err(self.ask_process(subject));
                }
                self.process(subject)?.image_at(time).exe.as_deref().ok_or(Miss::None)?
            }
            Enriched::ProcArgs => {
                if self.process(subject)?.image_at(time).args.is_none() {
                    return Err(self.ask_process(subject));
                }
                self.process(subject)?.image_at(time).args.as_deref().ok_or(Miss::None)?
            }
            Enriched::ProcParentExe => {
                let parent = self.process(subject)?.parent;
                if self.processes.at(parent, time).is_none() {
                    // Asked for, but what the process remembers will do.
                    let _ = self.ask_process(&Subject { pid: parent, start: 0, ..*subject });
                }
                let process = self.known(subject).ok_or(Miss::Gone)?;
                self.processes.parent_exe(process, time).ok_or(Miss::NotYet)?
            }
            Enriched::ProcAncestors => {
                self.process(subject)?;
                let process = self.known(subject).ok_or(Miss::Gone)?;
                self.processes.ancestors(process, time, out);
                return if out.is_empty() { Err(Miss::None) } else { Ok(()) };
            }
            Enriched::CgroupPath => &self.cgroup(CgroupId::V2(subject.cgroup), time)?.path,
            Enriched::ContainerId => {
                self.container(subject)?.container.as_deref().ok_or(Miss::None)?
            }
            Enriched::ContainerRuntime => {
                self.container(subject)?.runtime.ok_or(Miss::None)?.as_bytes()
            }
            Enriched::UserName => self.user(subject)?,
        };
        out.extend_from_slice(value);
        Ok(())
    }

    fn counted<T>(&self, field: Enriched, found: Result<T, Miss>) -> Option<T> {
        found.inspect_err(|&miss| self.misses.count(field, miss)).ok()
    }

    fn process(&mut self, subject: &Subject) -> Result<&Process, Miss> {
        if self.known(subject).is_none() {
            return Err(self.ask_process(subject));
        }
        self.known(subject).ok_or(Miss::Gone)
    }

    fn known(&self, subject: &Subject) -> Option<&Process> {
        self.processes.started(subject.pid, subject.start, subject.time)
    }

    fn ask_process(&mut self, subject: &Subject) -> Miss {
        ask(
            &mut self.asked,
            subject.pid,
            self.resolver.as_ref(),
            Request::Process(subject.pid),
            subject.time,
        )
    }

    /// The cgroup whose path names a container: on hybrid hosts that may be the one of v1.
    fn container(&mut self, subject: &Subject) -> Result<&Cgroup, Miss> {
        let v2 = CgroupId::V2(subject.cgroup);
        let in_v2 =
            matches!(self.cgroup(v2, subject.time), Ok(cgroup) if cgroup.container.is_some());
        let id = if in_v2 || subject.cgroup_v1 == 0 { v2 } else { CgroupId::V1(subject.cgroup_v1) };
        self.cgroup(id, subject.time)
    }

    fn cgroup(&mut self, id: CgroupId, now: u64) -> Result<&Cgroup, Miss> {
        if id == CgroupId::V2(0) {
            return Err(Miss::None);
        }
        if !matches!(self.cgroups.get(&id), Some(Entry::Known(_))) {
            return Err(ask(
                &mut self.cgroups,
                id,
                self.resolver.as_ref(),
                Request::Cgroup(id, now),
                now,
            ));
        }
        match self.cgroups.get(&id) {
            Some(Entry::Known(cgroup)) => Ok(cgroup),
            _ => Err(Miss::Gone),
        }
    }

    fn user(&mut self, subject: &Subject) -> Result<&[u8], Miss> {
        let id = subject.uid;
        if !matches!(self.users.get(&id), Some(Entry::Known(_))) {
            return Err(ask(
                &mut self.users,
                id,
                self.resolver.as_ref(),
                Request::User(id),
                subject.time,
            ));
        }
        match self.users.get(&id) {
            Some(Entry::Known(name)) => Ok(name),
            _ => Err(Miss::Gone),
        }
    }
}

/// Asks the resolver, unless it was asked a moment ago.
fn ask<K: Eq + std::hash::Hash, T>(
    table: &mut Map<K, Entry<T>>,
    key: K,
    resolver: Option<&Sender<Request>>,
    request: Request,
    now: u64,
) -> Miss {
    let Some(resolver) = resolver else { return Miss::None };
    match table.get(&key) {
        Some(Entry::Asked(time)) if *time + ASK_AGAIN_NS > now => return Miss::NotYet,
        Some(Entry::Gone(time)) if *time + ASK_AGAIN_NS > now => return Miss::Gone,
        _ => {}
    }
    if table.len() >= MOST && !table.contains_key(&key) || resolver.try_send(request).is_err() {
        return Miss::Busy;
    }
    table.insert(key, Entry::Asked(now));
    Miss::NotYet
}

/// Makes room in a table that answers fill. Forgetting all of it is rare and heals itself.
fn bounded<K, T>(table: &mut Map<K, Entry<T>>) -> &mut Map<K, Entry<T>> {
    if table.len() >= MOST {
        table.clear();
    }
    table
}

/// Looks up the enriched fields of one event: what came with it goes before the tables.
pub struct Lookup<'a> {
    tables: &'a mut Tables,
    given: Option<&'a Given>,
    /// How many events this one stands for, of those that the kernel let through.
    thinned: u32,
}

impl<'a> Lookup<'a> {
    /// Looks in `given`, then in `tables`.
    pub fn new(tables: &'a mut Tables, given: Option<&'a Given>) -> Self {
        Self { tables, given, thinned: 1 }
    }

    /// Says how many events this one stands for, of those that the kernel let through.
    #[inline]
    pub fn set_thinned(&mut self, thinned: u32) {
        self.thinned = thinned;
    }

    /// The value of a field that is a number.
    pub fn number(&mut self, field: Enriched, subject: &Subject) -> Option<u64> {
        let value = match self.given.and_then(|given| given.get(field)) {
            Some(GivenValue::Number(value)) => Some(*value),
            _ => self.tables.number(field, subject),
        };
        if field == Enriched::Weight {
            return value.map(|weight| weight.saturating_mul(self.thinned.into()));
        }
        value
    }

    /// The value of a field that is a text or a list.
    pub fn text(&mut self, field: Enriched, subject: &Subject) -> Option<&[u8]> {
        match self.given.and_then(|given| given.get(field)) {
            Some(GivenValue::Bytes(value)) => Some(value),
            _ => self.tables.text(field, subject),
        }
    }
}

#[cfg(test)]
mod tests;
