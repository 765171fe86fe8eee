//! fork, exec, exit, `thread_exit`.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        macros::{map, raw_tracepoint},
        maps::LruHashMap,
        programs::RawTracePointContext,
    },
    events::catalogue::{Exec, Exit, Fork, ThreadExit, exec, exit, fork, thread_exit},
    kernel::{Pointer, linux_binprm, mm_struct, signal_struct, task_struct},
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
fn on_fork(child: Pointer) -> Option<()> {
    let word = task::wanted(fork::KIND)?;
    let thread: u32 = task_struct::pid.read(child)?;
    let child_pid: u32 = task_struct::tgid.read(child)?;
    if child_pid != thread {
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

#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn exec_raw(ctx: RawTracePointContext) -> i32 {
    on_exec(ctx.arg(0), ctx.arg(2));
    0
}

#[inline(always)]
fn on_exec(task: Pointer, bprm: Pointer) -> Option<()> {
    let word = task::wanted(exec::KIND)?;
    let asked = |field: u32| word & u64::from(field) != 0;
    let mut draft = Draft::new(Exec { header: task::header(exec::KIND, word), ..Exec::default() })?;
    let mut absent = 0;
    if asked(exec::start) {
        let leader: Pointer = task_struct::group_leader.read(task)?;
        draft.record().start = task_struct::start_boottime.read(leader).unwrap_or(0);
    }
    if asked(exec::ppid) {
        draft.record().ppid = task::parent(task).unwrap_or(0);
    }
    if asked(exec::gid) {
        draft.record().gid = task::gid(task).unwrap_or(0);
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
    if asked(exec::args | exec::args_size) {
        match arguments(&mut draft, task) {
            Some(()) => {}
            None => absent |= exec::args | exec::args_size,
        }
    }
    draft.record().header.absent = absent;
    draft.emit(word);
    Some(())
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
    let leader: Pointer = task_struct::group_leader.read(task)?;
    let key = [
        u64::from(task_struct::tgid.read::<u32>(task)?),
        task_struct::start_boottime.read(leader)?,
    ];
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
