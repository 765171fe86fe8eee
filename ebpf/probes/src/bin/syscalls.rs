//! `syscall_stats`: how many calls. How long they take is measured by another object, as it costs
//! several times as much.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aggregate::{ONLY_NEW, Processes, SET_BY_RUNTIME, remember, renew},
    aya_ebpf::{
        helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
        macros::{btf_tracepoint, map, raw_tracepoint},
        maps::PerCpuHashMap,
        programs::{BtfTracePointContext, RawTracePointContext},
    },
    events::{aggregate::CallKey, catalogue::syscall_stats::KIND, wire::LOST_MAP},
    map::{lost, wanted},
    syscall, task,
};

#[map]
static PROCESSES: Processes = Processes::with_max_entries(SET_BY_RUNTIME, 0);
#[map]
static CALLS: PerCpuHashMap<CallKey, u64> = PerCpuHashMap::with_max_entries(SET_BY_RUNTIME, 0);

/// Most processes make the same calls again and again, so nearly always the key is there.
#[btf_tracepoint(function = "sys_exit")]
fn count(ctx: BtfTracePointContext) -> i32 {
    let word = wanted(KIND);
    if word == 0 {
        return 0;
    }
    if let Some(returned) = syscall::returned(&ctx, word) {
        add(&returned.key);
        if returned.runs {
            remember(&PROCESSES, KIND);
        }
    }
    0
}

/// A thread ends: within `exit` or `exit_group`, or because of a signal.
#[btf_tracepoint(function = "sched_process_exit")]
fn count_ends(_ctx: BtfTracePointContext) -> i32 {
    let word = wanted(KIND);
    if word == 0 {
        return 0;
    }
    // SAFETY: the helpers take and give what they say, and the task is the one that runs.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
    if let Some(key) = syscall::ended(registers as *const u64, word) {
        add(&key);
    }
    if task::current_tid() == task::current_pid() {
        remember(&PROCESSES, KIND);
    }
    0
}

#[inline(always)]
fn add(key: &CallKey) {
    if let Some(count) = CALLS.get_ptr_mut(key) {
        // SAFETY: the value of this CPU, on which nothing else runs that counts calls.
        unsafe { *count += 1 };
    } else {
        add_first(key);
    }
}

/// Who is hidden never has a key, so only here it must be asked for.
#[inline(always)]
fn add_first(key: &CallKey) {
    if task::is_hidden() {
        return;
    }
    // First, so that who reads the key knows whose it is.
    remember(&PROCESSES, KIND);
    if CALLS.insert(key, 1, ONLY_NEW).is_ok() {
        return;
    }
    // Another CPU was faster, or there is no room.
    match CALLS.get_ptr_mut(key) {
        // SAFETY: as above.
        Some(count) => unsafe { *count += 1 },
        None => lost(KIND, LOST_MAP),
    }
}

/// A process begins, or a thread, whose process is known and stays what it is.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn begin(ctx: RawTracePointContext) -> i32 {
    renew(&PROCESSES, ctx.arg(1), KIND);
    0
}

/// A process came into another cgroup.
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
fn moved(ctx: RawTracePointContext) -> i32 {
    renew(&PROCESSES, ctx.arg(2), KIND);
    0
}
