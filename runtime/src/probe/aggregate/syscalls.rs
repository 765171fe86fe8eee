//! The maps of `syscall_stats`.

use std::{
    collections::{HashMap, HashSet},
    io,
    mem::offset_of,
    os::fd::AsFd as _,
};

use aya::{Ebpf, maps::Map};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use syscalls::{x86, x86_64};
use tipstaff_events::{
    aggregate::{BUCKETS, CALLS, CallKey, LATENCIES, Latency, PROCESSES, TICK},
    catalogue::{SyscallStats, syscall_stats},
};

use super::cpus;
use crate::{
    source::records::{HEADER, Records},
    sys::bpf::Table,
};

type Fast<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Syscalls {
    calls: Option<Table>,
    processes: Option<Table>,
    latencies: Option<Table>,
    tick: Option<Table>,
    ticks: u64,
    /// The sums of the reading before.
    counts: Fast<CallKey, u64>,
    durations: Fast<CallKey, Box<Durations>>,
    headers: Fast<u32, [u8; HEADER]>,
    /// Processes that made no call between the last two readings: they may have ended.
    idle: HashSet<u32, foldhash::fast::RandomState>,
}

/// The sums of all CPUs.
#[derive(Clone)]
struct Durations {
    count: u64,
    sum: u64,
    buckets: [u64; BUCKETS],
    /// Of the tick that has ended.
    least: u64,
    greatest: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { count: 0, sum: 0, buckets: [0; BUCKETS], least: u64::MAX, greatest: 0 }
    }
}

impl Syscalls {
    /// Takes the maps that this object has.
    pub(super) fn open(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        let key = size_of::<CallKey>();
        open(ebpf, CALLS, key, size_of::<u64>(), cpus()?, &mut self.calls)?;
        open(ebpf, LATENCIES, key, size_of::<Latency>(), cpus()?, &mut self.latencies)?;
        open(ebpf, PROCESSES, 4, HEADER, 1, &mut self.processes)?;
        open(ebpf, TICK, 4, 8, 1, &mut self.tick)
    }

    /// Forgets the maps that this object has.
    pub(super) fn close(&mut self, ebpf: &Ebpf) {
        if ebpf.map(CALLS).is_some() {
            (self.calls, self.processes) = (None, None);
            self.counts.clear();
            self.headers.clear();
            self.idle.clear();
        }
        if ebpf.map(LATENCIES).is_some() {
            (self.latencies, self.tick) = (None, None);
            self.durations.clear();
        }
    }

    /// Whether there are no maps any more.
    pub(super) fn is_closed(&self) -> bool {
        self.calls.is_none() && self.latencies.is_none()
    }

    /// Writes what was counted since the reading before.
    pub(super) fn read(&mut self, records: &mut Records) -> io::Result<()> {
        // Before anything is read: what has ended now will not be counted any more.
        let ended = self.ended();
        // A call counts before its duration does, so durations are read first: none is without a call.
        let durations = self.read_durations()?;
        let counts = self.read_counts()?;
        self.read_headers()?;
        let mut active = HashSet::<u32, foldhash::fast::RandomState>::default();
        for (key, count) in counts {
            let before = self.counts.insert(key, count).unwrap_or(0);
            let count = count.wrapping_sub(before);
            let duration = self.durations_of(key, durations.get(&key).map(AsRef::as_ref));
            if count > 0 || duration.as_ref().is_some_and(|duration| duration.count > 0) {
                active.insert(key.pid);
                self.write(key, count, duration.as_ref(), records);
            }
        }
        self.remove(&ended, records);
        // Those for which there was no room among the processes have keys all the same.
        let known = self.headers.keys().copied().chain(self.counts.keys().map(|key| key.pid));
        self.idle = known.filter(|pid| !active.contains(pid)).collect();
        Ok(())
    }

    fn ended(&self) -> HashSet<u32, foldhash::fast::RandomState> {
        let has_ended = |pid: &u32| {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
        };
        self.idle.iter().filter(|pid| has_ended(pid)).copied().collect()
    }

    fn read_counts(&mut self) -> io::Result<Fast<CallKey, u64>> {
        let mut counts = Fast::default();
        if let Some(calls) = &mut self.calls {
            calls.read(|key, values| {
                counts.insert(call_key(key), sum(values));
            })?;
        }
        Ok(counts)
    }

    fn read_headers(&mut self) -> io::Result<()> {
        let Self { processes, headers, .. } = self;
        let Some(processes) = processes else { return Ok(()) };
        processes.read(|pid, header| {
            if let (Some(pid), Some(header)) = (pid.first_chunk(), header.first_chunk()) {
                headers.insert(u32::from_ne_bytes(*pid), *header);
            }
        })
    }

    /// The sums of all CPUs, and the extremes of the tick that ends now.
    fn read_durations(&mut self) -> io::Result<Fast<CallKey, Box<Durations>>> {
        let mut durations = Fast::default();
        let (Some(latencies), Some(tick)) = (&mut self.latencies, &self.tick) else {
            return Ok(durations);
        };
        let ended = self.ticks;
        self.ticks += 1;
        tick.put(&[0; 4], &self.ticks.to_ne_bytes())?;
        latencies.read(|key, values| {
            let mut all = Box::<Durations>::default();
            for value in values.chunks_exact(size_of::<Latency>()) {
                all.add(value, ended);
            }
            durations.insert(call_key(key), all);
        })?;
        Ok(durations)
    }

    /// The durations since the reading before.
    fn durations_of(&mut self, key: CallKey, now: Option<&Durations>) -> Option<Durations> {
        self.latencies.as_ref()?;
        let Some(now) = now else { return Some(Durations::default()) };
        let before = self.durations.insert(key, Box::new(now.clone())).unwrap_or_default();
        let mut difference = now.clone();
        difference.count = now.count.wrapping_sub(before.count);
        difference.sum = now.sum.wrapping_sub(before.sum);
        for (bucket, before) in difference.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.wrapping_sub(before);
        }
        Some(difference)
    }

    /// Removes the keys of processes that have ended: all that they counted has been read.
    fn remove(&mut self, ended: &HashSet<u32, foldhash::fast::RandomState>, records: &mut Records) {
        if ended.is_empty() {
            return;
        }
        let keys: Vec<CallKey> =
            self.counts.keys().filter(|key| ended.contains(&key.pid)).copied().collect();
        for key in keys {
            let bytes = key_bytes(key);
            let before = self.counts.remove(&key).unwrap_or(0);
            let taken = self.calls.as_ref().map(|calls| calls.take(&bytes));
            // Another process may have got the number in this very moment.
            if let Some(Ok(Some(values))) = taken {
                let count = sum(&values).wrapping_sub(before);
                if count > 0 {
                    self.write(key, count, None, records);
                }
            }
            self.durations.remove(&key);
            if let Some(latencies) = &self.latencies {
                let _ = latencies.take(&bytes);
            }
        }
        for pid in ended {
            self.headers.remove(pid);
            if let Some(processes) = &self.processes {
                let _ = processes.take(&pid.to_ne_bytes());
            }
        }
    }

    fn write(
        &self,
        key: CallKey,
        count: u64,
        durations: Option<&Durations>,
        records: &mut Records,
    ) {
        use SyscallStats as Row;
        let header = self.headers.get(&key.pid).copied().unwrap_or_else(|| nobody(key.pid));
        let mut row = records.begin(&header, size_of::<Row>());
        row.set(offset_of!(Row, count), &count.to_ne_bytes());
        let number = key.call & !CallKey::COMPAT;
        let is_compat = key.call & CallKey::COMPAT != 0;
        row.set(offset_of!(Row, number), &number.to_ne_bytes());
        row.set(offset_of!(Row, errno), &key.errno.to_ne_bytes());
        row.set(offset_of!(Row, abi), &[u8::from(is_compat)]);
        match name(number, is_compat) {
            Some(name) => row.push(offset_of!(Row, call), name.bytes()),
            None => row.push(offset_of!(Row, call), format!("syscall_{number}").into_bytes()),
        }
        let extremes = syscall_stats::latency_least | syscall_stats::latency_greatest;
        let Some(durations) = durations else {
            row.set_absent(
                extremes
                    | syscall_stats::timed
                    | syscall_stats::latency
                    | syscall_stats::latency_histogram,
            );
            return;
        };
        row.set(offset_of!(Row, timed), &durations.count.to_ne_bytes());
        row.set(offset_of!(Row, latency), &durations.sum.to_ne_bytes());
        if durations.least <= durations.greatest {
            row.set(offset_of!(Row, latency_least), &durations.least.to_ne_bytes());
            row.set(offset_of!(Row, latency_greatest), &durations.greatest.to_ne_bytes());
        } else {
            row.set_absent(extremes);
        }
        let buckets = durations.buckets.iter().flat_map(|bucket| bucket.to_le_bytes());
        row.push(offset_of!(Row, latency_histogram), buckets);
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

/// A map of the object, if it has one of that name.
fn open(
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

/// Of a process for which there was no room.
fn nobody(pid: u32) -> [u8; HEADER] {
    use tipstaff_events::wire::Header;
    let mut header = [0; HEADER];
    for at in [offset_of!(Header, pid), offset_of!(Header, tid)] {
        header[at..at + 4].copy_from_slice(&pid.to_ne_bytes());
    }
    header
}

fn call_key(bytes: &[u8]) -> CallKey {
    let half = |at: usize| {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
    };
    CallKey {
        pid: bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)),
        call: half(offset_of!(CallKey, call)),
        errno: half(offset_of!(CallKey, errno)),
    }
}

fn key_bytes(key: CallKey) -> [u8; size_of::<CallKey>()] {
    let mut bytes = [0; size_of::<CallKey>()];
    bytes[..4].copy_from_slice(&key.pid.to_ne_bytes());
    bytes[offset_of!(CallKey, call)..][..2].copy_from_slice(&key.call.to_ne_bytes());
    bytes[offset_of!(CallKey, errno)..][..2].copy_from_slice(&key.errno.to_ne_bytes());
    bytes
}

fn sum(values: &[u8]) -> u64 {
    let (values, _) = values.as_chunks();
    values.iter().fold(0, |sum, value| sum.wrapping_add(u64::from_ne_bytes(*value)))
}

/// Name of a call.
fn name(number: u16, is_compat: bool) -> Option<&'static str> {
    let number = usize::from(number);
    if is_compat {
        x86::Sysno::new(number).map(|call| call.name())
    } else {
        x86_64::Sysno::new(number).map(|call| call.name())
    }
}
