//! Aggregated kinds: the kernel keeps cumulative numbers in maps, and at each tick the differences to
//! the reading before become records.
//!
//! A thread of its own reads, so that neither the reader nor anyone who waits for events is held up by
//! it. It hands over one reading as a whole; the reader takes it as it takes a ring's records. A reading
//! can also be had at once, by whoever is about to let a subscriber in or out, so that what happened so
//! far goes to those who were there. Nothing is lost between two readings, however far they are apart.

mod durations;
mod files;
mod mounts;
mod processes;
mod sched;
mod sums;
mod syscalls;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aya::Ebpf;

use tipstaff_events::catalogue::{io_stats, sched_stats, syscall_stats};

use super::family::Sized;
use crate::{
    plan::Pace,
    source::{Handover, records::Records},
};

use files::Io;
use sched::Sched;
use syscalls::Syscalls;

/// How many times as often as asked for a map is read that would become full, at most.
const MOST_HASTE: u32 = 32;
/// Keys that a kind has room for unless the configuration says otherwise: calls of some hundreds of
/// processes.
pub const KEYS: u32 = 32_768;
/// Memory of a map that grows with the number of CPUs, for each of these keys. On large machines there
/// are fewer.
const BYTES_PER_KEY: usize = 2_048;

/// Entries that a map gets where there is to be room for so many keys.
pub(super) fn entries(map: &Sized, keys: u32) -> u32 {
    let most = (u64::from(keys) * u64::from(map.of_keys.0) / u64::from(map.of_keys.1)).max(1);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let values = if map.per_cpu { cpus().unwrap_or(1) } else { 1 };
    let bytes = map.value.next_multiple_of(8) * values;
    let all = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_KEY);
    most.min(u32::try_from(all / bytes).unwrap_or(u32::MAX).max(1))
}

/// Values that a per-CPU map has for each key.
fn cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| {
        io::Error::new(error.kind(), format!("the number of possible processors ({path}): {error}"))
    })
}

/// The maps that are read, and where the readings go. Cheap to clone.
#[derive(Clone)]
pub struct Aggregates(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    handover: Handover,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<u16, Table>,
    pace: Pace,
    has_thread: bool,
    is_over: bool,
}

/// The maps of a kind.
struct Table {
    maps: Box<dyn Maps>,
    due: Instant,
    /// By how much it is read more often than asked for, because it would become full: processes that
    /// have ended leave it at a reading.
    haste: u32,
}

/// The maps of one kind, as this kind needs them read.
trait Maps: Send {
    /// Takes the maps that this object has.
    fn open(&mut self, ebpf: &Ebpf) -> io::Result<()>;
    /// Forgets the maps that this object has.
    fn close(&mut self, ebpf: &Ebpf);
    /// Whether there are no maps any more.
    fn is_closed(&self) -> bool;
    /// Writes what was counted since the reading before, and takes out the keys of processes that have
    /// ended.
    fn read(&mut self, records: &mut Records) -> io::Result<Found>;
}

/// What a reading found.
struct Found {
    /// Keys that were there.
    keys: usize,
    /// Those of them that were taken out.
    gone: usize,
    /// Keys that there is room for.
    room: u32,
}

/// The maps of this kind.
fn maps(kind: u16) -> Box<dyn Maps> {
    match kind {
        syscall_stats::KIND => Box::<Syscalls>::default(),
        sched_stats::KIND => Box::<Sched>::default(),
        io_stats::KIND => Box::<Io>::default(),
        other => unreachable!("kind {other} is not an aggregated one"),
    }
}

impl Table {
    /// Where more than half of the room is taken, and much of it by those who have ended, the next reading
    /// comes in half the time. Those who live on are not fewer for that.
    fn hurry(&mut self, found: &Found) {
        let Found { keys, gone, room } = *found;
        let is_filling = u64::try_from(keys * 2).is_ok_and(|keys| keys > room.into());
        if is_filling && gone * 4 > keys {
            self.haste = (self.haste * 2).min(MOST_HASTE);
        } else {
            self.haste = (self.haste / 2).max(1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Aggregates {
    pub(super) fn new(handover: Handover) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), changed: Condvar::new(), handover }))
    }

    /// From now on the maps of this object are read, too.
    pub(super) fn watch(&self, kind: u16, ebpf: &Ebpf) -> io::Result<()> {
        let mut state = lock(&self.0.state);
        let due = Instant::now() + state.every(kind);
        let table =
            state.tables.entry(kind).or_insert_with(|| Table { maps: maps(kind), due, haste: 1 });
        table.maps.open(ebpf)?;
        if !state.has_thread {
            let aggregates = self.clone();
            thread::Builder::new().name("ticks".into()).spawn(move || aggregates.run())?;
            state.has_thread = true;
        }
        self.0.changed.notify_all();
        Ok(())
    }

    /// The last reading of this object's maps, whose programs are detached.
    pub(super) fn forget(&self, kind: u16, ebpf: &Ebpf) {
        self.read(Some(kind));
        let mut state = lock(&self.0.state);
        if let Some(table) = state.tables.get_mut(&kind) {
            table.maps.close(ebpf);
            if table.maps.is_closed() {
                state.tables.remove(&kind);
            }
        }
    }

    /// Sets how often each kind is read.
    pub(super) fn set_pace(&self, pace: Pace) {
        let mut state = lock(&self.0.state);
        state.pace = pace;
        let State { tables, pace, .. } = &mut *state;
        for (kind, table) in tables {
            let every = every(pace, *kind);
            table.due = table.due.min(Instant::now() + every);
        }
        self.0.changed.notify_all();
    }

    /// Reads at once: what was counted so far goes to those who are there.
    pub fn read_now(&self) {
        self.read(None);
    }

    fn read(&self, only: Option<u16>) {
        let mut state = lock(&self.0.state);
        for (&kind, table) in &mut state.tables {
            if only.is_none_or(|only| only == kind) {
                self.read_table(kind, table);
            }
        }
    }

    fn read_table(&self, kind: u16, table: &mut Table) {
        let mut records = Records::new(kind);
        match table.maps.read(&mut records) {
            Ok(found) => table.hurry(&found),
            Err(error) => {
                tracing::error!(%error, "the maps of an aggregated kind cannot be read");
            }
        }
        self.0.handover.put_reading(kind, records);
    }

    /// The thread.
    fn run(&self) {
        let mut state = lock(&self.0.state);
        while !state.is_over {
            let now = Instant::now();
            let State { tables, pace, .. } = &mut *state;
            for (&kind, table) in tables.iter_mut().filter(|(_, table)| table.due <= now) {
                let interval = every(pace, kind) / table.haste;
                table.due = (table.due + interval).max(now + interval / 2);
                if self.0.handover.has_room_for_reading() {
                    self.read_table(kind, table);
                    table.due = table.due.min(now + every(pace, kind) / table.haste);
                }
            }
            let next = tables.values().map(|table| table.due).min();
            let timeout = next.map_or(Duration::MAX, |due| due - Instant::now().min(due));
            state = match next {
                Some(_) => {
                    let waited = self.0.changed.wait_timeout(state, timeout);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        lock(&self.0.state).is_over = true;
        self.0.changed.notify_all();
    }
}

impl State {
    fn every(&self, kind: u16) -> Duration {
        every(&self.pace, kind)
    }
}

fn every(pace: &Pace, kind: u16) -> Duration {
    Duration::from_nanos(pace.get(&kind).copied().unwrap_or(crate::plan::EVERY_NS))
}
