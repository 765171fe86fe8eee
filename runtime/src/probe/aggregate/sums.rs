//! Cumulative numbers of a per-CPU map, and what they were at the reading before.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::AsFd as _,
};

use aya::{Ebpf, maps::Map};

use super::{Found, cpus, processes::Processes};
use crate::sys::bpf::Table;

pub(super) type Fast<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
pub(super) type Pids = HashSet<u32, foldhash::fast::RandomState>;

/// Numbers by key. Every key begins with a process.
pub(super) struct Sums<const KEY: usize, const N: usize> {
    table: Option<Table>,
    before: Fast<[u8; KEY], [u64; N]>,
}

impl<const KEY: usize, const N: usize> Default for Sums<KEY, N> {
    fn default() -> Self {
        Self { table: None, before: Fast::default() }
    }
}

impl<const KEY: usize, const N: usize> Sums<KEY, N> {
    /// Takes the map of this name, if the object has one.
    pub(super) fn open(&mut self, ebpf: &Ebpf, name: &str) -> io::Result<()> {
        open(ebpf, name, KEY, N * size_of::<u64>(), cpus()?, &mut self.table)
    }

    /// Forgets the map, if it is this object's.
    pub(super) fn close(&mut self, ebpf: &Ebpf, name: &str) {
        if ebpf.map(name).is_some() {
            *self = Self::default();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.table.is_none()
    }

    /// The sums of all CPUs.
    pub(super) fn read(&mut self) -> io::Result<Fast<[u8; KEY], [u64; N]>> {
        let mut sums = Fast::default();
        if let Some(table) = &mut self.table {
            table.read(|key, values| {
                if let Ok(key) = key.try_into() {
                    sums.insert(key, add_up(values));
                }
            })?;
        }
        Ok(sums)
    }

    /// Reads, and hands out what was added to each key since the reading before. The keys of processes that
    /// have ended are taken out.
    pub(super) fn read_all(
        &mut self,
        processes: &mut Processes,
        mut each: impl FnMut(&Processes, &[u8; KEY], &[u64; N]),
    ) -> io::Result<Found> {
        let ended = processes.ended()?;
        let found = self.read()?;
        processes.read(found.keys().map(|key| pid(key)))?;
        processes.remove(&ended);
        let mut all = Found { keys: found.len(), gone: 0, room: self.room() };
        for (key, now) in found {
            let added = if ended.contains(&pid(&key)) {
                all.gone += 1;
                self.take(key, now)
            } else {
                self.since(key, now)
            };
            if let Some(added) = added {
                each(processes, &key, &added);
            }
        }
        processes.forget(&ended);
        self.shrink();
        Ok(all)
    }

    /// What was added since the reading before; `None`: nothing.
    pub(super) fn since(&mut self, key: [u8; KEY], now: [u64; N]) -> Option<[u64; N]> {
        let before = self.before.insert(key, now).unwrap_or([0; N]);
        difference(now, before)
    }

    /// Takes out the key of a process that has ended: what was added to the very end, given what was read
    /// last.
    pub(super) fn take(&mut self, key: [u8; KEY], read: [u64; N]) -> Option<[u64; N]> {
        let Ok(taken) = self.table.as_ref().map_or(Ok(None), |table| table.take(&key)) else {
            // It is still there: the next reading begins where this one ended.
            return self.since(key, read);
        };
        let before = self.before.remove(&key).unwrap_or([0; N]);
        difference(taken.map_or(read, |values| add_up(&values)), before)
    }

    /// Keys that there is room for.
    pub(super) fn room(&self) -> u32 {
        self.table.as_ref().map_or(0, Table::entries)
    }

    /// Lets go of memory that a busier time needed.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.before);
    }
}

/// Lets go of what is four times as large as need be.
pub(super) fn shrink<K: Eq + std::hash::Hash, V>(map: &mut Fast<K, V>) {
    if map.capacity() / 4 > map.len() {
        map.shrink_to(map.len() * 2);
    }
}

/// The process of a key.
pub(super) fn pid(key: &[u8]) -> u32 {
    key.first_chunk().map_or(0, |pid| u32::from_ne_bytes(*pid))
}

fn difference<const N: usize>(now: [u64; N], before: [u64; N]) -> Option<[u64; N]> {
    let mut all = now;
    all.iter_mut().zip(before).for_each(|(now, before)| *now = now.wrapping_sub(before));
    all.iter().any(|&number| number != 0).then_some(all)
}

/// Adds up what each CPU has.
fn add_up<const N: usize>(values: &[u8]) -> [u64; N] {
    let mut sums = [0_u64; N];
    let (numbers, _) = values.as_chunks();
    for value in numbers.chunks_exact(N) {
        for (sum, number) in sums.iter_mut().zip(value) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*number));
        }
    }
    sums
}

/// A map of the object, if it has one of that name.
pub(super) fn open(
    ebpf: &Ebpf,
    name: &str,
    key: usize,
    value: usize,
    cpus: usize,
    table: &mut Option<Table>,
) -> io::Result<()> {
    let Some(Map::PerCpuHashMap(data) | Map::HashMap(data) | Map::Array(data)) = ebpf.map(name)
    else {
        return Ok(());
    };
    let descriptor = data.fd().as_fd().try_clone_to_owned()?;
    *table = Some(Table::new(descriptor, key, value, cpus)?);
    Ok(())
}
