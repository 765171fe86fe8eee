//! The maps of `io_stats`.

use std::{io, mem::offset_of};

use aya::Ebpf;
use tipstaff_events::{
    aggregate::{IO, IoKey, IoSums},
    catalogue::{FILE_TYPE, IO_OPERATION, IoStats, io_stats},
    index,
};

use super::{
    Found, Maps,
    mounts::{Id, MINOR_BITS, Mounts},
    processes::Processes,
    sums::{Sums, pid},
};
use crate::source::records::{HEADER, Records};

const KEY: usize = size_of::<IoKey>();
const NUMBERS: usize = size_of::<IoSums>() / size_of::<u64>();
const CALLS_AT: usize = offset_of!(IoSums, calls) / size_of::<u64>();
const BYTES_AT: usize = offset_of!(IoSums, bytes) / size_of::<u64>();
const BUCKETS_AT: usize = offset_of!(IoSums, buckets) / size_of::<u64>();

/// Operations of which is not known how many bytes they move.
const UNKNOWN: [u8; 2] = [index(IO_OPERATION, "submit"), index(IO_OPERATION, "map")];

/// What lies on mounts of the kernel's own, which nobody has.
const NEVER_MOUNTED: [u8; 3] =
    [index(FILE_TYPE, "pipe"), index(FILE_TYPE, "socket"), index(FILE_TYPE, "unknown")];

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Io {
    sums: Sums<KEY, NUMBERS>,
    processes: Processes,
    mounts: Mounts,
}

impl Maps for Io {
    fn open(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        self.sums.open(ebpf, IO)?;
        self.processes.open(ebpf)
    }

    fn close(&mut self, ebpf: &Ebpf) {
        self.sums.close(ebpf, IO);
        self.processes.close(ebpf);
    }

    fn is_closed(&self) -> bool {
        self.sums.is_closed()
    }

    fn read(&mut self, records: &mut Records) -> io::Result<Found> {
        let Self { sums, processes, mounts } = self;
        let (mut found, mut used) = (Vec::new(), Vec::new());
        let all = sums.read_all(processes, |processes, key, numbers| {
            let (mount, device) = mounted(key);
            if mount != 0 && !NEVER_MOUNTED.contains(&key[offset_of!(IoKey, file)]) {
                used.push((pid(key), (mount, device)));
            }
            found.push((processes.header(pid(key)), *key, *numbers));
        })?;
        mounts.look_for(&used);
        for (header, key, numbers) in &found {
            write(records, header, mounts, key, numbers);
        }
        Ok(all)
    }
}

/// The mount of a key, by number and device; 0 where it is not known.
fn mounted(key: &[u8; KEY]) -> Id {
    let number = |at: usize| {
        key.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u32::from_ne_bytes(*n))
    };
    (number(offset_of!(IoKey, mount)), number(offset_of!(IoKey, device)))
}

fn write(
    records: &mut Records,
    header: &[u8; HEADER],
    mounts: &Mounts,
    key: &[u8; KEY],
    numbers: &[u64; NUMBERS],
) {
    use IoStats as Row;
    let (mount, device) = mounted(key);
    let mut absent = 0;
    let mut row = records.begin(header, size_of::<Row>());
    row.set(offset_of!(Row, calls), &numbers[CALLS_AT].to_ne_bytes());
    row.set(offset_of!(Row, bytes), &numbers[BYTES_AT].to_ne_bytes());
    if UNKNOWN.contains(&key[offset_of!(IoKey, operation)]) {
        absent |= io_stats::bytes | io_stats::size_histogram;
    } else {
        row.push_histogram(offset_of!(Row, size_histogram), &numbers[BUCKETS_AT..]);
    }
    row.set(offset_of!(Row, mount), &mount.to_ne_bytes());
    row.set(offset_of!(Row, device_major), &(device >> MINOR_BITS).to_ne_bytes());
    row.set(offset_of!(Row, device_minor), &(device & ((1 << MINOR_BITS) - 1)).to_ne_bytes());
    if mount == 0 {
        absent |= io_stats::mount | io_stats::device_major | io_stats::device_minor;
    }
    match mounts.find((mount, device)) {
        Some(found) => {
            row.push(offset_of!(Row, mountpoint), found.point.iter().copied());
            row.push(offset_of!(Row, fstype), found.file_system.iter().copied());
        }
        None => absent |= io_stats::mountpoint | io_stats::fstype,
    }
    row.set(offset_of!(Row, errno), &key[offset_of!(IoKey, errno)..][..2]);
    row.set(offset_of!(Row, operation), &key[offset_of!(IoKey, operation)..][..1]);
    row.set(offset_of!(Row, path_class), &key[offset_of!(IoKey, class)..][..1]);
    row.set(offset_of!(Row, file), &key[offset_of!(IoKey, file)..][..1]);
    row.set_absent(absent);
}
