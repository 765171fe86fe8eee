//! The maps of `sched_stats`.

use std::{io, mem::offset_of};

use aya::Ebpf;
use tipstaff_events::{
    aggregate::{SWITCHES, Switches},
    catalogue::SchedStats,
};

use super::{
    Found, Maps,
    processes::Processes,
    sums::{Sums, pid},
};
use crate::source::records::Records;

const KEY: usize = size_of::<u32>();
const NUMBERS: usize = size_of::<Switches>() / size_of::<u64>();
const BUCKETS_AT: usize = offset_of!(Switches, buckets) / size_of::<u64>();

/// The fields of a row, by their place among the numbers.
const FIELDS: [(usize, usize); 7] = [
    (offset_of!(Switches, voluntary), offset_of!(SchedStats, voluntary)),
    (offset_of!(Switches, involuntary), offset_of!(SchedStats, involuntary)),
    (offset_of!(Switches, migrations), offset_of!(SchedStats, migrations)),
    (offset_of!(Switches, runs), offset_of!(SchedStats, runs)),
    (offset_of!(Switches, queued), offset_of!(SchedStats, queued)),
    (offset_of!(Switches, blocked), offset_of!(SchedStats, blocked)),
    (offset_of!(Switches, uninterruptible), offset_of!(SchedStats, uninterruptible)),
];

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Sched {
    switches: Sums<KEY, NUMBERS>,
    processes: Processes,
}

impl Maps for Sched {
    fn open(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        self.switches.open(ebpf, SWITCHES)?;
        self.processes.open(ebpf)
    }

    fn close(&mut self, ebpf: &Ebpf) {
        self.switches.close(ebpf, SWITCHES);
        self.processes.close(ebpf);
    }

    fn is_closed(&self) -> bool {
        self.switches.is_closed()
    }

    fn read(&mut self, records: &mut Records) -> io::Result<Found> {
        let Self { switches, processes, .. } = self;
        switches.read_all(processes, |processes, key, numbers| {
            let mut row = records.begin(&processes.header(pid(key)), size_of::<SchedStats>());
            for (from, to) in FIELDS {
                row.set(to, &numbers[from / size_of::<u64>()].to_ne_bytes());
            }
            row.push_histogram(offset_of!(SchedStats, queued_histogram), &numbers[BUCKETS_AT..]);
        })
    }
}
