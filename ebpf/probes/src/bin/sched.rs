//! `sched_stats`: switches, migrations, and how long threads wait before they run.
//!
//! All of these tracepoints are passed with interrupts off, so that nothing else on this CPU changes what
//! is being added to.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aggregate::{
        ONLY_NEW, Processes, SET_BY_RUNTIME, add_to_histogram, remember_process_of, renew,
    },
    aya_ebpf::{
        helpers::bpf_ktime_get_ns,
        macros::{btf_tracepoint, map, raw_tracepoint},
        maps::{HashMap, PerCpuHashMap},
        programs::{BtfTracePointContext, RawTracePointContext},
    },
    events::{
        aggregate::{BUCKETS, Switches},
        catalogue::sched_stats::{self, KIND},
        wire::LOST_MAP,
    },
    kernel::{self, Pointer, load, task_struct, thread_info},
    map::{lost, wanted},
    task,
};

/// The fields for which waits are followed.
const WAITS: u64 = (sched_stats::runs
    | sched_stats::queued
    | sched_stats::blocked
    | sched_stats::uninterruptible
    | sched_stats::queued_histogram) as u64;

/// State of a thread: no signal wakes it.
const TASK_UNINTERRUPTIBLE: u32 = 2;
/// State of a thread that never runs again.
const TASK_DEAD: u32 = 0x80;

/// A thread, seen from where it left the processor last.
#[repr(C)]
#[derive(Clone, Copy)]
struct Thread {
    /// When it began to be what it is.
    since: u64,
    /// How long it was blocked before.
    blocked: u64,
    /// How often it gave up its processor.
    voluntary: u64,
    is: u32,
    /// Whether no signal could wake it when it was blocked.
    uninterruptible: u32,
}

/// What a thread is: runs, or nobody knows since when it waits.
const RUNS: u32 = 0;
/// Ready to run.
const QUEUED: u32 = 1;
/// Waits for something else than a processor.
const BLOCKED: u32 = 2;

#[map]
static PROCESSES: Processes = Processes::with_max_entries(SET_BY_RUNTIME, 0);
#[map]
static SWITCHES: PerCpuHashMap<u32, Switches> = PerCpuHashMap::with_max_entries(SET_BY_RUNTIME, 0);
/// Threads by number, from when they are seen first until they run for the last time.
#[map]
static WAITING: HashMap<u32, Thread> = HashMap::with_max_entries(SET_BY_RUNTIME, 0);

/// No value on the stack, which has no room for it.
static ZERO: Switches = Switches {
    voluntary: 0,
    involuntary: 0,
    migrations: 0,
    runs: 0,
    queued: 0,
    blocked: 0,
    uninterruptible: 0,
    buckets: [0; BUCKETS],
};

/// Since Linux 5.18 the tracepoint says what the thread was when it left.
#[btf_tracepoint(function = "sched_switch")]
fn switch_told(ctx: BtfTracePointContext) -> i32 {
    let state: u32 = ctx.arg(3);
    switch(&ctx, Some(state))
}

/// Before, it is as the thread says.
#[btf_tracepoint(function = "sched_switch")]
fn switch_read(ctx: BtfTracePointContext) -> i32 {
    let previous: Pointer = ctx.arg(1);
    let state = task_struct::__state.read(previous).or_else(|| task_struct::state.read(previous));
    switch(&ctx, state)
}

#[inline(always)]
fn switch(ctx: &BtfTracePointContext, state: Option<u32>) -> i32 {
    let word = wanted(KIND);
    if word == 0 {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let (preempted, previous, next): (u64, Pointer, Pointer) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    leave(previous, state.unwrap_or(0), preempted & 0xff != 0, now);
    if word & WAITS != 0 {
        enter(next, now);
    }
    0
}

/// A thread leaves the processor.
#[inline(always)]
fn leave(task: Pointer, state: u32, preempted: bool, now: u64) {
    // SAFETY: the verifier knows the arguments of the tracepoint by type.
    let Some((tid, pid, count)) = (unsafe { known(task) }) else { return };
    let is_blocked = !preempted && state != 0;
    let mut voluntary = is_blocked;
    if let Some(thread) = WAITING.get_ptr_mut(tid) {
        // SAFETY: who runs this holds the lock of the run queue, and so does who wakes a thread.
        let thread = unsafe { &mut *thread };
        // As the kernel counts it: who is about to sleep and has a signal to look at stays ready to run,
        // and gives up its processor all the same.
        voluntary = thread.voluntary != count;
        if state & TASK_DEAD != 0 {
            let _ = WAITING.remove(tid);
        } else {
            thread.since = now;
            thread.voluntary = count;
            thread.blocked = 0;
            thread.is = if is_blocked { BLOCKED } else { QUEUED };
            thread.uninterruptible = u32::from(state & TASK_UNINTERRUPTIBLE != 0);
        }
    } else if state & TASK_DEAD == 0 {
        let thread = Thread {
            since: now,
            blocked: 0,
            voluntary: count,
            is: if is_blocked { BLOCKED } else { QUEUED },
            uninterruptible: u32::from(state & TASK_UNINTERRUPTIBLE != 0),
        };
        let _ = WAITING.insert(tid, thread, ONLY_NEW);
    }
    if let Some(sums) = sums(pid, task) {
        if voluntary {
            sums.voluntary += 1;
        } else {
            sums.involuntary += 1;
        }
    }
}

/// A thread gets the processor.
#[inline(always)]
fn enter(task: Pointer, now: u64) {
    // SAFETY: the verifier knows the arguments of the tracepoint by type.
    let Some((tid, pid, _)) = (unsafe { known(task) }) else { return };
    let Some(thread) = WAITING.get_ptr_mut(tid) else { return };
    // SAFETY: as in `leave`.
    let thread = unsafe { &mut *thread };
    if thread.is != QUEUED {
        return;
    }
    thread.is = RUNS;
    let (queued, blocked) = (now.saturating_sub(thread.since), thread.blocked);
    let is_uninterruptible = thread.uninterruptible != 0;
    if let Some(sums) = sums(pid, task) {
        sums.runs += 1;
        sums.queued += queued;
        sums.blocked += blocked;
        if is_uninterruptible {
            sums.uninterruptible += blocked;
        }
        add_to_histogram(&mut sums.buckets, queued);
    }
}

/// A thread that was blocked is ready to run.
#[btf_tracepoint(function = "sched_wakeup")]
fn wake(ctx: BtfTracePointContext) -> i32 {
    ready(ctx.arg(0), false)
}

/// A new thread is.
#[btf_tracepoint(function = "sched_wakeup_new")]
fn wake_new(ctx: BtfTracePointContext) -> i32 {
    ready(ctx.arg(0), true)
}

#[inline(always)]
fn ready(task: Pointer, is_new: bool) -> i32 {
    if wanted(KIND) & WAITS == 0 {
        return 0;
    }
    // SAFETY: the verifier knows the argument of the tracepoint by type.
    let Some((tid, _, voluntary)) = (unsafe { known(task) }) else { return 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !is_new && let Some(thread) = WAITING.get_ptr_mut(tid) {
        // SAFETY: as in `leave`.
        let thread = unsafe { &mut *thread };
        // Who is woken before it sleeps has not waited.
        if thread.is == BLOCKED {
            thread.blocked = now.saturating_sub(thread.since);
            thread.since = now;
            thread.is = QUEUED;
        }
        return 0;
    }
    // A new thread may have the number of one of which something was left.
    let thread = Thread { since: now, blocked: 0, voluntary, is: QUEUED, uninterruptible: 0 };
    let _ = WAITING.insert(tid, thread, 0);
    0
}

/// A thread is moved to another processor, or was to be and is there already.
#[btf_tracepoint(function = "sched_migrate_task")]
fn migrate(ctx: BtfTracePointContext) -> i32 {
    if wanted(KIND) & u64::from(sched_stats::migrations) == 0 {
        return 0;
    }
    let (task, to): (Pointer, u32) = (ctx.arg(0), ctx.arg(1));
    if processor(task) == Some(to) {
        return 0;
    }
    // SAFETY: the verifier knows the argument of the tracepoint by type.
    if let Some((_, pid, _)) = unsafe { known(task) }
        && let Some(sums) = sums(pid, task)
    {
        sums.migrations += 1;
    }
    0
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

/// A process runs a new program. A thread that is not its first one gets the first one's number.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn exec(ctx: RawTracePointContext) -> i32 {
    let (task, before): (Pointer, u32) = (ctx.arg(0), ctx.arg(1));
    if before != task::current_tid() {
        let _ = WAITING.remove(before);
    }
    renew(&PROCESSES, task, KIND);
    0
}

/// Thread, process, and how often the thread gave up its processor; `None` for who runs when nobody else
/// does.
///
/// # Safety
/// The verifier knows `task` by type.
#[inline(always)]
unsafe fn known(task: Pointer) -> Option<(u32, u32, u64)> {
    // SAFETY: the caller promises.
    unsafe {
        let tid: u32 = load(&task_struct::pid, task)?;
        if tid == 0 {
            return None;
        }
        Some((tid, load(&task_struct::tgid, task)?, load(&task_struct::nvcsw, task)?))
    }
}

/// The processor that a thread is on, or was last (Linux 5.16, and before).
#[inline(always)]
fn processor(task: Pointer) -> Option<u32> {
    if thread_info::cpu.exists() {
        return kernel::read(
            thread_info::cpu.of(task_struct::thread_info.of(task)?)?.cast::<u32>().cast(),
        );
    }
    task_struct::cpu.read(task)
}

/// The sums of a process on this CPU. Who is hidden has none.
#[inline(always)]
fn sums(pid: u32, task: Pointer) -> Option<&'static mut Switches> {
    if let Some(sums) = SWITCHES.get_ptr_mut(pid) {
        // SAFETY: the value of this CPU, on which nothing else runs now.
        return Some(unsafe { &mut *sums });
    }
    // As a number: a function that the verifier checks by itself takes no pointer that it knows.
    let task: Pointer = kernel::read((&raw const task).cast())?;
    if task::is_hidden_process(pid, task) {
        return None;
    }
    remember_process_of(&PROCESSES, task, KIND);
    let _ = SWITCHES.insert(pid, &ZERO, ONLY_NEW);
    let sums = SWITCHES.get_ptr_mut(pid);
    if sums.is_none() {
        lost(KIND, LOST_MAP);
    }
    // SAFETY: as above.
    sums.map(|sums| unsafe { &mut *sums })
}
