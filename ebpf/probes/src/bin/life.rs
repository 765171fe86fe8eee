//! fork, exec, exit, `thread_exit`.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        macros::{map, raw_tracepoint},
        maps::LruHashMap,
        programs::RawTracePointContext,
    },
    events::catalogue::{Exit, Fork, ThreadExit, exit, fork, thread_exit},
    kernel::{Pointer, signal_struct, task_struct},
    record::emit,
    task,
};

/// `SIGNAL_GROUP_EXIT`: one code holds for the whole process.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// Processes whose end was just reported. Two threads that end at the same moment may both find that
/// none is left; that they do so within a thousand other ends is what this relies on.
#[map]
static ENDED: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(1024, 0);

#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn fork_raw(ctx: RawTracePointContext) -> i32 {
    on_fork(ctx.arg(1));
    0
}

#[inline(always)]
fn on_fork(child: Pointer) -> Option<()> {
    let word = task::wanted(fork::KIND)?;
    let child_tid: u32 = task_struct::pid.read(child)?;
    let child_pid: u32 = task_struct::tgid.read(child)?;
    if child_pid != child_tid {
        return None; // a new thread
    }
    let mut record = Fork { header: task::header(fork::KIND, word), child_pid, ..Fork::default() };
    record.child_start = task_struct::start_boottime.read(child).unwrap_or(0);
    if word & u64::from(fork::child_ns_pid) != 0 {
        record.child_ns_pid = task::ns_pid(child).unwrap_or(0);
    }
    emit(word, &record);
    Some(())
}

/// Where the kernel says which thread is the last one of its process.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn exit_told(ctx: RawTracePointContext) -> i32 {
    let last: u8 = ctx.arg(1);
    on_exit(ctx.arg(0), last != 0);
    0
}

/// Where it does not: the last one leaves a count of zero.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn exit_counted(ctx: RawTracePointContext) -> i32 {
    let task: Pointer = ctx.arg(0);
    on_exit(task, is_last(task).unwrap_or(false));
    0
}

#[inline(always)]
fn is_last(task: Pointer) -> Option<bool> {
    let signal: Pointer = task_struct::signal.read(task)?;
    if signal_struct::live.read::<u32>(signal)? != 0 {
        return Some(false);
    }
    let leader: Pointer = task_struct::group_leader.read(task)?;
    let key = [
        u64::from(task_struct::tgid.read::<u32>(task)?),
        task_struct::start_boottime.read(leader)?,
    ];
    const ONLY_NEW: u64 = 1; // BPF_NOEXIST
    Some(ENDED.insert(&key, &1, ONLY_NEW).is_ok())
}

#[inline(always)]
fn on_exit(task: Pointer, last: bool) {
    if last {
        process_ended(task);
    }
    thread_ended(task);
}

#[inline(always)]
fn process_ended(task: Pointer) -> Option<()> {
    let word = task::wanted(exit::KIND)?;
    let mut record = Exit { header: task::header(exit::KIND, word), ..Exit::default() };
    let leader: Pointer = task_struct::group_leader.read(task)?;
    record.start = task_struct::start_boottime.read(leader).unwrap_or(0);
    if word & u64::from(exit::run_time) != 0 {
        let started: u64 = task_struct::start_time.read(leader)?;
        record.run_time = record.header.time.saturating_sub(started);
    }
    if word & u64::from(exit::code | exit::signal) != 0 {
        // What wait(2) will tell the parent.
        let signal: Pointer = task_struct::signal.read(task)?;
        let flags: u32 = signal_struct::flags.read(signal)?;
        let status: u32 = if flags & SIGNAL_GROUP_EXIT != 0 {
            signal_struct::group_exit_code.read(signal)?
        } else {
            task_struct::exit_code.read(leader)?
        };
        (record.code, record.signal) = decoded(status);
    }
    if word & u64::from(exit::ppid) != 0 {
        record.ppid = task::parent(task).unwrap_or(0);
    }
    emit(word, &record);
    Some(())
}

#[inline(always)]
fn thread_ended(task: Pointer) -> Option<()> {
    let word = task::wanted(thread_exit::KIND)?;
    let mut record =
        ThreadExit { header: task::header(thread_exit::KIND, word), ..ThreadExit::default() };
    if word & u64::from(thread_exit::run_time) != 0 {
        let started: u64 = task_struct::start_time.read(task)?;
        record.run_time = record.header.time.saturating_sub(started);
    }
    (record.code, record.signal) = decoded(task_struct::exit_code.read(task)?);
    emit(word, &record);
    Some(())
}

/// Code and signal of a wait status.
#[inline(always)]
fn decoded(status: u32) -> (u32, u32) {
    ((status >> 8) & 0xff, status & 0x7f)
}
