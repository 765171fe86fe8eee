//! fork, exec, exit, thread_exit.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext},
    events::catalogue::{Fork, fork},
    kernel::{Pointer, task_struct},
    record::emit,
    task,
};

#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn fork_raw(ctx: RawTracePointContext) -> i32 {
    on_fork(ctx.arg(1));
    0
}

#[inline(always)]
fn on_fork(child: Pointer) {
    let Some(word) = task::wanted(fork::KIND) else { return };
    let child_tid: u32 = task_struct::pid.read(child).unwrap_or(0);
    let child_pid: u32 = task_struct::tgid.read(child).unwrap_or(0);
    if child_pid != child_tid {
        return; // a new thread
    }
    let mut record = Fork { header: task::header(fork::KIND, word), child_pid, ..Fork::default() };
    record.child_start = task_struct::start_boottime.read(child).unwrap_or(0);
    if word & u64::from(fork::child_ns_pid) != 0 {
        record.child_ns_pid = task::ns_pid(child).unwrap_or(0);
    }
    emit(word, &record);
}
