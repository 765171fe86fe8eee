//! `syscall_stats`: how long calls take.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aggregate::{ONLY_NEW, SET_BY_RUNTIME, add_latency},
    aya_ebpf::{
        helpers::bpf_ktime_get_ns,
        macros::{btf_tracepoint, map, raw_tracepoint},
        maps::{Array, HashMap, PerCpuHashMap},
        programs::{BtfTracePointContext, RawTracePointContext},
    },
    events::{
        aggregate::{CallKey, Latency},
        catalogue::syscall_stats::KIND,
    },
    map::wanted,
    syscall, task,
};

/// By `task_struct`: a thread that runs a new program may change its number. A thread that finds no room
/// is not measured.
#[map]
static ENTERED: HashMap<u64, u64> = HashMap::with_max_entries(SET_BY_RUNTIME, 0);
#[map]
static LATENCIES: PerCpuHashMap<CallKey, Latency> =
    PerCpuHashMap::with_max_entries(SET_BY_RUNTIME, 0);
#[map]
static TICK: Array<u64> = Array::with_max_entries(1, 0);

/// No value on the stack, which has no room for two.
static ZERO: Latency = Latency {
    count: 0,
    sum: 0,
    stamps: [0; 2],
    least: [0; 2],
    greatest: [0; 2],
    buckets: [0; tipstaff_probes::events::aggregate::BUCKETS],
};

#[raw_tracepoint(tracepoint = "sys_enter")]
fn enter(_ctx: RawTracePointContext) -> i32 {
    if wanted(KIND) == 0 {
        return 0;
    }
    let task = task::current() as u64;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(entered) = ENTERED.get_ptr_mut(task) {
        // SAFETY: only this thread reads and writes it.
        unsafe { *entered = now };
    } else {
        let _ = ENTERED.insert(task, now, ONLY_NEW);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
fn measure(ctx: BtfTracePointContext) -> i32 {
    let word = wanted(KIND);
    if word == 0 {
        return 0;
    }
    let Some(entered) = ENTERED.get_ptr_mut(task::current() as u64) else { return 0 };
    // SAFETY: only this thread reads and writes it.
    let began = unsafe { entered.replace(0) };
    if began == 0 {
        return 0;
    }
    // SAFETY: no arguments.
    let latency = unsafe { bpf_ktime_get_ns() }.saturating_sub(began);
    if let Some(returned) = syscall::returned(&ctx, word) {
        add(&returned.key, latency);
    }
    0
}

#[inline(always)]
fn add(key: &CallKey, latency: u64) {
    let tick = TICK.get(0).copied().unwrap_or(0);
    if LATENCIES.get_ptr(key).is_none() {
        if task::is_hidden() {
            return;
        }
        // It fails where another CPU was faster, or where there is no room.
        let _ = LATENCIES.insert(key, &ZERO, ONLY_NEW);
    }
    if let Some(sums) = LATENCIES.get_ptr_mut(key) {
        // SAFETY: the value of this CPU.
        unsafe { add_latency(sums, latency, tick) };
    }
}

/// A thread ends, perhaps within a call.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn forget(_ctx: RawTracePointContext) -> i32 {
    let _ = ENTERED.remove(task::current() as u64);
    0
}
