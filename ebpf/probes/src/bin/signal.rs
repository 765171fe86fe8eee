//! signal, oom.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext},
    events::{
        catalogue::{Oom, SIGNAL_ORIGIN, SIGNAL_RESULT, Signal, oom, signal},
        index,
        wire::{Header, LOST_MISSED},
    },
    kernel::{
        self, Pointer, kernel_siginfo, mm_rss_stat, mm_struct, percpu_counter, signal_struct,
        task_struct,
    },
    map::{self, lost},
    record::emit,
    task,
};

/// Values of `struct kernel_siginfo *` that are no pointers.
const SEND_SIG_NOINFO: usize = 0;
const SEND_SIG_PRIV: usize = 1;

const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 0x80;
const SI_TIMER: i32 = -2;
const SI_SIGIO: i32 = -5;

const USER: u8 = index(SIGNAL_ORIGIN, "user");
const KERNEL: u8 = index(SIGNAL_ORIGIN, "kernel");
// The kernel numbers the results as the catalogue does.
const _: () =
    assert!(index(SIGNAL_RESULT, "delivered") == 0 && index(SIGNAL_RESULT, "lose_info") == 4);

/// What is read from the victim's memory.
const MEMORY: u32 = oom::total_vm | oom::anon_rss | oom::file_rss | oom::shmem_rss | oom::pgtables;

#[raw_tracepoint(tracepoint = "signal_generate")]
fn signal_raw(ctx: RawTracePointContext) -> i32 {
    on_signal(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(4));
    0
}

#[inline(always)]
fn on_signal(number: u32, info: Pointer, target: Pointer, result: u32) {
    let word = map::wanted(signal::KIND);
    if word != 0 && sent(word, number, info, target, result).is_none() {
        lost(signal::KIND, LOST_MISSED);
    }
}

/// `None` if the signal or its target cannot be read.
#[inline(always)]
fn sent(word: u64, number: u32, info: Pointer, target: Pointer, result: u32) -> Option<()> {
    let code = match info as usize {
        SEND_SIG_NOINFO => SI_USER,
        SEND_SIG_PRIV => SI_KERNEL,
        _ => kernel_siginfo::si_code.read(info)?,
    };
    // The kernel lets a process choose any code up to 0. It uses four of them itself.
    let is_users = code <= SI_USER && !(SI_SIGIO..=SI_TIMER).contains(&code);
    let origin = if is_users { USER } else { KERNEL };
    let target_pid: u32 = task_struct::tgid.read(target)?;
    // Who runs when the kernel sends one by itself is chance.
    let is_hidden = if origin == USER {
        task::is_hidden()
    } else {
        task::is_outside(target) || map::hidden(target_pid) != 0 && task::is_hidden()
    };
    if is_hidden {
        return Some(());
    }
    let record = Signal {
        header: task::header(signal::KIND, word),
        target_pid,
        target_tid: task_struct::pid.read(target)?,
        number,
        code,
        origin,
        result: result as u8,
        ..Signal::default()
    };
    emit(word, &record);
    Some(())
}

/// Where the kernel passes the victim (Linux 6.8).
#[raw_tracepoint(tracepoint = "mark_victim")]
fn oom_task(ctx: RawTracePointContext) -> i32 {
    on_oom(ctx.arg(0));
    0
}

#[inline(always)]
fn on_oom(victim: Pointer) {
    let word = map::wanted(oom::KIND);
    if word == 0 || task::is_outside(victim) {
        return;
    }
    let mut record = Oom { header: task::header_of(victim, oom::KIND, word), ..Oom::default() };
    record.trigger_pid = task::current_pid();
    let signal: Option<Pointer> = task_struct::signal.read(victim);
    match signal.and_then(|signal| signal_struct::oom_score_adj.read::<i16>(signal)) {
        Some(adjustment) => record.oom_score_adj = adjustment.into(),
        None => record.header.absent |= oom::oom_score_adj,
    }
    if word & u64::from(MEMORY) != 0 && memory(&mut record, victim).is_none() {
        record.header.absent |= MEMORY;
    }
    emit(word, &record);
}

/// Bytes of a page on this architecture.
const PAGE: u64 = 4096;
/// Indices of an enum without a name.
const MM_FILEPAGES: usize = 0;
const MM_ANONPAGES: usize = 1;
const MM_SHMEMPAGES: usize = 3;

#[inline(always)]
fn memory(record: &mut Oom, victim: Pointer) -> Option<()> {
    let mm: Pointer = task_struct::mm.read(victim)?;
    record.total_vm = mm_struct::total_vm.read::<u64>(mm)? * PAGE;
    record.pgtables = mm_struct::pgtables_bytes.read(mm)?;
    record.file_rss = pages(mm, MM_FILEPAGES)? * PAGE;
    record.anon_rss = pages(mm, MM_ANONPAGES)? * PAGE;
    record.shmem_rss = pages(mm, MM_SHMEMPAGES)? * PAGE;
    Some(())
}

/// One of the counters of resident pages, as exact as the kernel's own messages have it: what other
/// CPUs hold back is left out.
#[inline(always)]
fn pages(mm: Pointer, index: usize) -> Option<u64> {
    let counters = mm_struct::rss_stat.of(mm)?;
    let pages: i64 = if mm_rss_stat::count.exists() {
        kernel::read(mm_rss_stat::count.of(counters)?.wrapping_byte_add(index * size_of::<u64>()))? // before Linux 6.2
    } else {
        percpu_counter::count
            .read(counters.wrapping_byte_add(index * kernel::size::percpu_counter.get()?))?
    };
    Some(pages.max(0) as u64)
}

/// Where it passes the victim's number only, which does not tell its cgroup.
#[raw_tracepoint(tracepoint = "mark_victim")]
fn oom_number(ctx: RawTracePointContext) -> i32 {
    let word = map::wanted(oom::KIND);
    if word != 0 {
        let victim: u32 = ctx.arg(0);
        let time = task::header(oom::KIND, 0).time;
        let header = Header {
            time,
            pid: victim,
            tid: victim,
            kind: oom::KIND,
            absent: MEMORY | oom::oom_score_adj,
            ..Header::default()
        };
        emit(word, &Oom { header, trigger_pid: task::current_pid(), ..Oom::default() });
    }
    0
}
