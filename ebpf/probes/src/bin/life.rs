//! fork, exec, exit, `thread_exit`.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        macros::{map, raw_tracepoint},
        maps::LruHashMap,
        programs::RawTracePointContext,
    },
    events::{
        catalogue::{Exec, Exit, Fork, ThreadExit, exec, exit, fork, thread_exit},
        wire::LOST_MISSED,
    },
    kernel::{Pointer, linux_binprm, mm_struct, signal_struct, task_struct},
    map::lost,
    path::{self, AT_FDCWD},
    record::{Draft, emit},
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
fn on_fork(child: Pointer) {
    if let Some(word) = task::wanted(fork::KIND)
        && created(word, child).is_none()
    {
        lost(fork::KIND, LOST_MISSED);
    }
}

/// `None` if the child cannot be read.
#[inline(always)]
fn created(word: u64, child: Pointer) -> Option<()> {
    let thread: u32 = task_struct::pid.read(child)?;
    let child_pid: u32 = task_struct::tgid.read(child)?;
    if child_pid != thread {
        return Some(()); // a new thread
    }
    let mut record = Fork { header: task::header(fork::KIND, word), child_pid, ..Fork::default() };
    record.child_start = task_struct::start_boottime.read(child)?;
    if word & u64::from(fork::child_ns_pid) != 0 {
        record.child_ns_pid = task::ns_pid(child)?;
    }
    emit(word, &record);
    Some(())
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn exec_raw(ctx: RawTracePointContext) -> i32 {
    on_exec(ctx.arg(0), ctx.arg(2));
    0
}

#[inline(always)]
fn on_exec(task: Pointer, bprm: Pointer) {
    let Some(word) = task::wanted(exec::KIND) else { return };
    let asked = |field: u32| word & u64::from(field) != 0;
    let header = task::header(exec::KIND, word);
    let Some(mut draft) = Draft::new(Exec { header, ..Exec::default() }) else { return };
    let mut absent = 0;
    if asked(exec::start) {
        match task::start(task) {
            Some(start) => draft.record().start = start,
            None => absent |= exec::start,
        }
    }
    if asked(exec::ppid) {
        match task::parent(task) {
            Some(parent) => draft.record().ppid = parent,
            None => absent |= exec::ppid,
        }
    }
    if asked(exec::gid) {
        match task::gid(task) {
            Some(group) => draft.record().gid = group,
            None => absent |= exec::gid,
        }
    }
    if asked(exec::path | exec::file_state) {
        let file = linux_binprm::file.read(bprm);
        match file.and_then(|file| path::of_file(&mut draft, file)) {
            Some(found) => {
                draft.record().path = found.text;
                draft.record().file_state = found.state;
            }
            None => absent |= exec::path | exec::file_state,
        }
    }
    if asked(exec::path_given | exec::script) {
        absent |= names_given(&mut draft, bprm);
    }
    if asked(exec::args | exec::args_size) && arguments(&mut draft, task).is_none() {
        absent |= exec::args | exec::args_size;
    }
    draft.record().header.absent = absent;
    draft.emit(word);
}

/// What the call passed, and the script if that is not what runs. Returns what is absent.
#[inline(always)]
fn names_given(draft: &mut Draft<Exec>, bprm: Pointer) -> u32 {
    let filename: Option<Pointer> = linux_binprm::filename.read(bprm);
    let Some(given) = filename.and_then(|filename| draft.kernel_text(filename)) else {
        return exec::path_given | exec::script;
    };
    draft.record().path_given = given;
    // The two are one string until a script's first line names an interpreter.
    if linux_binprm::interp.read(bprm) == filename {
        return exec::script;
    }
    match path::joined(draft, AT_FDCWD, given) {
        Some(script) => {
            draft.record().script = script;
            0
        }
        None => exec::script,
    }
}

/// The arguments as they lie in the new program's memory.
#[inline(always)]
fn arguments(draft: &mut Draft<Exec>, task: Pointer) -> Option<()> {
    let mm: Pointer = task_struct::mm.read(task)?;
    let start: u64 = mm_struct::arg_start.read(mm)?;
    let end: u64 = mm_struct::arg_end.read(mm)?;
    let size = end.checked_sub(start)?;
    draft.record().args_size = size as u32;
    draft.record().args = draft.user_bytes(start as *const u8, size as usize)?;
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

/// `BPF_NOEXIST`: fails if the key is there.
const ONLY_NEW: u64 = 1;

#[inline(always)]
fn is_last(task: Pointer) -> Option<bool> {
    let signal: Pointer = task_struct::signal.read(task)?;
    if signal_struct::live.read::<u32>(signal)? != 0 {
        return Some(false);
    }
    let key = [u64::from(task_struct::tgid.read::<u32>(task)?), task::start(task)?];
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
fn process_ended(task: Pointer) {
    let Some(word) = task::wanted(exit::KIND) else { return };
    let asked = |field: u32| word & u64::from(field) != 0;
    let mut record = Exit { header: task::header(exit::KIND, word), ..Exit::default() };
    let mut absent = 0;
    let leader: Option<Pointer> = task_struct::group_leader.read(task);
    match task::start(task) {
        Some(start) => record.start = start,
        None => absent |= exit::start,
    }
    if asked(exit::run_time) {
        match leader.and_then(|leader| task_struct::start_time.read::<u64>(leader)) {
            Some(started) => record.run_time = record.header.time.saturating_sub(started),
            None => absent |= exit::run_time,
        }
    }
    if asked(exit::code | exit::signal) {
        match leader.and_then(|leader| wait_status(task, leader)) {
            Some(status) => (record.code, record.signal) = decoded(status),
            None => absent |= exit::code | exit::signal,
        }
    }
    if asked(exit::ppid) {
        match task::parent(task) {
            Some(parent) => record.ppid = parent,
            None => absent |= exit::ppid,
        }
    }
    record.header.absent = absent;
    emit(word, &record);
}

/// What wait(2) will tell the parent.
#[inline(always)]
fn wait_status(task: Pointer, leader: Pointer) -> Option<u32> {
    let signal: Pointer = task_struct::signal.read(task)?;
    let flags: u32 = signal_struct::flags.read(signal)?;
    if flags & SIGNAL_GROUP_EXIT != 0 {
        signal_struct::group_exit_code.read(signal)
    } else {
        task_struct::exit_code.read(leader)
    }
}

#[inline(always)]
fn thread_ended(task: Pointer) {
    let Some(word) = task::wanted(thread_exit::KIND) else { return };
    let header = task::header(thread_exit::KIND, word);
    let mut record = ThreadExit { header, ..ThreadExit::default() };
    match task_struct::start_time.read::<u64>(task) {
        Some(started) => record.run_time = record.header.time.saturating_sub(started),
        None => record.header.absent |= thread_exit::run_time,
    }
    match task_struct::exit_code.read(task) {
        Some(status) => (record.code, record.signal) = decoded(status),
        None => record.header.absent |= thread_exit::code | thread_exit::signal,
    }
    emit(word, &record);
}

/// Code and signal of a wait status.
#[inline(always)]
fn decoded(status: u32) -> (u32, u32) {
    ((status >> 8) & 0xff, status & 0x7f)
}
