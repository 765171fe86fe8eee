//! How long things took, with the shortest and the longest of each tick.

use std::{io, mem::offset_of};

use aya::Ebpf;
use tipstaff_events::aggregate::{BUCKETS, LATENCIES, Latency, TICK};

use super::{
    cpus,
    sums::{Fast, open, shrink},
};
use crate::sys::bpf::Table;

/// The maps of what is measured, by key.
#[derive(Default)]
pub(super) struct Latencies<const KEY: usize> {
    table: Option<Table>,
    tick: Option<Table>,
    ticks: u64,
    /// The sums of the reading before.
    before: Fast<[u8; KEY], Box<Durations>>,
}

/// The sums of all CPUs.
#[derive(Clone)]
pub(super) struct Durations {
    pub(super) count: u64,
    pub(super) sum: u64,
    pub(super) buckets: [u64; BUCKETS],
    /// Of the tick that has ended.
    pub(super) least: u64,
    pub(super) greatest: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { count: 0, sum: 0, buckets: [0; BUCKETS], least: u64::MAX, greatest: 0 }
    }
}

impl<const KEY: usize> Latencies<KEY> {
    /// Takes the maps, if the object has them.
    pub(super) fn open(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        open(ebpf, LATENCIES, KEY, size_of::<Latency>(), cpus()?, &mut self.table)?;
        open(ebpf, TICK, size_of::<u32>(), size_of::<u64>(), 1, &mut self.tick)
    }

    /// Forgets the maps, if they are this object's.
    pub(super) fn close(&mut self, ebpf: &Ebpf) {
        if ebpf.map(LATENCIES).is_some() {
            (self.table, self.tick) = (None, None);
            self.before.clear();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.table.is_none()
    }

    /// The sums of all CPUs, and the extremes of the tick that ends now.
    pub(super) fn read(&mut self) -> io::Result<Fast<[u8; KEY], Box<Durations>>> {
        let mut durations = Fast::default();
        let (Some(table), Some(tick)) = (&mut self.table, &self.tick) else {
            return Ok(durations);
        };
        let ended = self.ticks;
        self.ticks += 1;
        tick.put(&[0; 4], &self.ticks.to_ne_bytes())?;
        table.read(|key, values| {
            let mut all = Box::<Durations>::default();
            for value in values.chunks_exact(size_of::<Latency>()) {
                all.add(value, ended);
            }
            if let Ok(key) = key.try_into() {
                durations.insert(key, all);
            }
        })?;
        Ok(durations)
    }

    /// What was measured since the reading before; `None` where nothing measures.
    pub(super) fn since(&mut self, key: [u8; KEY], now: Option<&Durations>) -> Option<Durations> {
        self.table.as_ref()?;
        let Some(now) = now else { return Some(Durations::default()) };
        let before = self.before.insert(key, Box::new(now.clone())).unwrap_or_default();
        let mut difference = now.clone();
        difference.count = now.count.wrapping_sub(before.count);
        difference.sum = now.sum.wrapping_sub(before.sum);
        for (bucket, before) in difference.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.wrapping_sub(before);
        }
        Some(difference)
    }

    /// Takes out the key of a process that has ended.
    pub(super) fn remove(&mut self, key: [u8; KEY]) {
        self.before.remove(&key);
        if let Some(table) = &self.table {
            let _ = table.take(&key);
        }
    }

    /// Lets go of memory that a busier time needed.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.before);
    }
}

impl Durations {
    /// Adds what one CPU has.
    fn add(&mut self, value: &[u8], tick: u64) {
        let number = |at: usize| {
            let bytes = value.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        self.count = self.count.wrapping_add(number(offset_of!(Latency, count)));
        self.sum = self.sum.wrapping_add(number(offset_of!(Latency, sum)));
        for (index, bucket) in self.buckets.iter_mut().enumerate() {
            *bucket = bucket.wrapping_add(number(offset_of!(Latency, buckets) + index * 8));
        }
        let place = if tick & 1 == 0 { 0 } else { 8 };
        if number(offset_of!(Latency, stamps) + place) == tick {
            let greatest = number(offset_of!(Latency, greatest) + place);
            let least = number(offset_of!(Latency, least) + place);
            // A value that was never used has stamps of tick 0.
            if greatest > 0 {
                self.least = self.least.min(least);
                self.greatest = self.greatest.max(greatest);
            }
        }
    }
}
