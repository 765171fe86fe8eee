//! Whose keys they are: what is known of the processes, and which of them have ended.

use std::{fs, io, mem::offset_of};

use aya::Ebpf;
use rustix::{
    fs::{Access, access},
    io::Errno,
    process::{Pid, test_kill_process},
};
use tipstaff_events::{aggregate::PROCESSES, wire::Header};

use super::sums::{Fast, Pids, open, shrink};
use crate::source::records::HEADER;
use crate::sys::bpf::Table;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Processes {
    table: Option<Table>,
    headers: Fast<u32, [u8; HEADER]>,
    /// Those that had keys at the last reading, perhaps without room among the headers.
    seen: Pids,
    /// Whether the numbers are those by which we can send signals.
    is_initial: bool,
}

impl Processes {
    /// Takes the map, if the object has it.
    pub(super) fn open(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        // Probes only open where /proc has the kernel's own numbers.
        let own = fs::read_link("/proc/self")?;
        self.is_initial = own.to_str() == Some(&std::process::id().to_string());
        open(ebpf, PROCESSES, size_of::<u32>(), HEADER, 1, &mut self.table)
    }

    /// Forgets the map, if it is this object's.
    pub(super) fn close(&mut self, ebpf: &Ebpf) {
        if ebpf.map(PROCESSES).is_some() {
            *self = Self::default();
        }
    }

    /// Which of the processes known so far have ended. All that they did is in the maps that are read
    /// from now on.
    pub(super) fn ended(&mut self) -> io::Result<Pids> {
        self.read_headers()?;
        // What was seen stays until the next reading has succeeded: who has no header is found nowhere else.
        let all: Pids = self.seen.iter().chain(self.headers.keys()).copied().collect();
        Ok(all.into_iter().filter(|pid| self.has_ended(*pid)).collect())
    }

    /// Learns what there is to know of these, which have keys.
    pub(super) fn read(&mut self, pids: impl Iterator<Item = u32>) -> io::Result<()> {
        self.seen = pids.collect();
        self.read_headers()
    }

    fn read_headers(&mut self) -> io::Result<()> {
        let Self { table, headers, .. } = self;
        let Some(table) = table else { return Ok(()) };
        table.read(|pid, header| {
            if let (Some(pid), Some(header)) = (pid.first_chunk(), header.first_chunk()) {
                headers.insert(u32::from_ne_bytes(*pid), *header);
            }
        })
    }

    /// A process that its parent has not waited for is still there.
    fn has_ended(&self, pid: u32) -> bool {
        if !self.is_initial {
            return access(format!("/proc/{pid}"), Access::EXISTS) == Err(Errno::NOENT);
        }
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    }

    /// The common fields of a row of this process.
    pub(super) fn header(&self, pid: u32) -> [u8; HEADER] {
        self.headers.get(&pid).copied().unwrap_or_else(|| nobody(pid))
    }

    /// Takes these out of the map, before their keys are: who gets such a number meanwhile is put in with
    /// its first new key.
    pub(super) fn remove(&mut self, ended: &Pids) {
        for pid in ended {
            if let Some(table) = &self.table {
                let _ = table.take(&pid.to_ne_bytes());
            }
        }
    }

    /// Forgets those that were taken out.
    pub(super) fn forget(&mut self, ended: &Pids) {
        for pid in ended {
            self.headers.remove(pid);
        }
        shrink(&mut self.headers);
    }
}

/// Of a process for which there was no room.
fn nobody(pid: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for at in [offset_of!(Header, pid), offset_of!(Header, tid)] {
        header[at..at + 4].copy_from_slice(&pid.to_ne_bytes());
    }
    header
}
