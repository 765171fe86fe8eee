//! Adding up in maps: what programs of aggregated kinds share.

use aya_ebpf::maps::HashMap;

use crate::{
    events::{
        aggregate::{BUCKETS, Latency},
        wire::Header,
    },
    kernel::{Pointer, task_struct},
    record::at_most,
    task,
};

/// `BPF_NOEXIST`: fails if the key is there.
pub const ONLY_NEW: u64 = 1;
/// `BPF_EXIST`: fails if the key is not there.
const ONLY_KNOWN: u64 = 2;
/// The runtime sets how many entries there are.
pub const SET_BY_RUNTIME: u32 = 1;

/// What is known of processes. Each object that adds up has such a map, named `PROCESSES`: defined here it
/// would be in every object.
pub type Processes = HashMap<u32, Header>;

/// Notes what is known of the current process: its first thread has the name that people know it by.
/// Where there is no room it stays without a name.
#[inline(always)]
pub fn remember(processes: &Processes, kind: u16) {
    if !task::is_hidden() {
        remember_process_of(processes, task::current(), kind);
    }
}

/// The same for the process of any thread.
#[inline(always)]
pub fn remember_process_of(processes: &Processes, task: Pointer, kind: u16) {
    let leader: Option<Pointer> = task_struct::group_leader.read(task);
    if let Some(leader) = leader {
        let header = task::header_of(leader, kind, u64::MAX);
        let _ = processes.insert(header.pid, header, 0);
    }
}

/// Corrects what is known of the process of this thread, if anything is: it runs a new program, is in
/// another cgroup, or is a new process, and what is known is of another that had its number.
#[inline(always)]
pub fn renew(processes: &Processes, task: Pointer, kind: u16) {
    let pid: u32 = task_struct::tgid.read(task).unwrap_or(0);
    if processes.get_ptr(pid).is_none() {
        return;
    }
    let leader: Option<Pointer> = task_struct::group_leader.read(task);
    if let Some(leader) = leader {
        let _ = processes.insert(pid, task::header_of(leader, kind, u64::MAX), ONLY_KNOWN);
    }
}

/// Adds a duration to a value of this CPU, in the tick of that number.
///
/// # Safety
/// `sums` is a map value of this CPU.
#[inline(always)]
pub unsafe fn add_latency(sums: *mut Latency, latency: u64, tick: u64) {
    // SAFETY: the caller promises; nobody else writes while this program runs.
    let sums = unsafe { &mut *sums };
    sums.count += 1;
    sums.sum += latency;
    let place = (tick & 1) as usize;
    if sums.stamps[place] == tick {
        if latency < sums.least[place] {
            sums.least[place] = latency;
        }
        if latency > sums.greatest[place] {
            sums.greatest[place] = latency;
        }
    } else {
        sums.stamps[place] = tick;
        sums.least[place] = latency;
        sums.greatest[place] = latency;
    }
    add_to_histogram(&mut sums.buckets, latency);
}

/// Adds one to the range of a histogram that a number is in.
#[inline(always)]
pub fn add_to_histogram(buckets: &mut [u64; BUCKETS], number: u64) {
    let bucket = at_most!(bucket(number) as usize, BUCKETS - 1);
    // SAFETY: checked in the line before, by an instruction that the compiler cannot move.
    unsafe { *buckets.as_mut_ptr().add(bucket) += 1 };
}

/// The range that a number is in: its highest bit.
#[inline(always)]
fn bucket(number: u64) -> u32 {
    let (mut rest, mut bucket) = (number, 0);
    let mut bits = 32;
    while bits > 0 {
        if rest >> bits != 0 {
            rest >>= bits;
            bucket += bits;
        }
        bits /= 2;
    }
    bucket
}
