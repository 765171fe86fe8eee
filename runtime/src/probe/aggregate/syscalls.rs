//! The maps of `syscall_stats`.

use std::{io, mem::offset_of};

use aya::Ebpf;
use syscalls::{x86, x86_64};
use tipstaff_events::{
    aggregate::{CALLS, CallKey},
    catalogue::{SyscallStats, syscall_stats},
};

use super::{
    Found, Maps,
    durations::{Durations, Latencies},
    processes::Processes,
    sums::{Sums, pid},
};
use crate::source::records::Records;

const KEY: usize = size_of::<CallKey>();

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Syscalls {
    calls: Sums<KEY, 1>,
    processes: Processes,
    latencies: Latencies<KEY>,
}

impl Maps for Syscalls {
    fn open(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        self.calls.open(ebpf, CALLS)?;
        self.latencies.open(ebpf)?;
        self.processes.open(ebpf)
    }

    fn close(&mut self, ebpf: &Ebpf) {
        self.calls.close(ebpf, CALLS);
        self.latencies.close(ebpf);
        self.processes.close(ebpf);
    }

    fn is_closed(&self) -> bool {
        self.calls.is_closed() && self.latencies.is_closed()
    }

    fn read(&mut self, records: &mut Records) -> io::Result<Found> {
        let ended = self.processes.ended()?;
        // A call counts before its duration does, so durations are read first: none is without a call.
        let durations = self.latencies.read()?;
        let counts = self.calls.read()?;
        let keys = counts.keys().chain(durations.keys());
        self.processes.read(keys.map(|key| pid(key)))?;
        self.processes.remove(&ended);
        let mut all = Found { keys: counts.len(), gone: 0, room: self.calls.room() };
        for (key, count) in counts {
            let duration = self.latencies.since(key, durations.get(&key).map(AsRef::as_ref));
            let count = if ended.contains(&pid(&key)) {
                all.gone += 1;
                self.calls.take(key, count)
            } else {
                self.calls.since(key, count)
            };
            let [count] = count.unwrap_or_default();
            if count > 0 || duration.as_ref().is_some_and(|duration| duration.count > 0) {
                self.write(key, count, duration.as_ref(), records);
            }
        }
        // Also those whose calls found no room: they are counted as lost.
        for key in durations.keys().filter(|key| ended.contains(&pid(*key))) {
            self.latencies.remove(*key);
        }
        self.processes.forget(&ended);
        self.calls.shrink();
        self.latencies.shrink();
        Ok(all)
    }
}

impl Syscalls {
    fn write(
        &self,
        key: [u8; KEY],
        count: u64,
        durations: Option<&Durations>,
        records: &mut Records,
    ) {
        use SyscallStats as Row;
        let header = self.processes.header(pid(&key));
        let key = call_key(&key);
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
        row.push_histogram(offset_of!(Row, latency_histogram), &durations.buckets);
    }
}

fn call_key(bytes: &[u8]) -> CallKey {
    let half = |at: usize| {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
    };
    CallKey {
        pid: pid(bytes),
        call: half(offset_of!(CallKey, call)),
        errno: half(offset_of!(CallKey, errno)),
    }
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
