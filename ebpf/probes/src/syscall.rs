//! What a system call is counted by: the same for those that count and those that measure.
//!
//! Calls are counted where they return, by one program, whether their errors are asked for or not: so
//! nothing changes for those that are under way when another subscription comes or goes.

use aya_ebpf::programs::BtfTracePointContext;

use crate::{
    call::{self, Name, Table},
    events::{aggregate::CallKey, catalogue::syscall_stats},
    task,
};

/// The call makes a process or thread, which returns from it, too.
const CREATES: Name = 1;
/// The call runs a new program.
const RUNS: Name = 2;
/// The call ends the thread.
const ENDS: Name = 3;

static SPECIAL: Table = Table::new(&[
    (CREATES, 56, 120),
    (CREATES, 57, 2),
    (CREATES, 58, 190),
    (CREATES, 435, 435),
    (RUNS, 59, 11),
    (RUNS, 322, 358),
    (ENDS, 60, 1),
    (ENDS, 231, 252),
]);

/// Where a signal handler returns the kernel finds no number in the registers that it restored.
const NO_NUMBER: u64 = u32::MAX as u64 & !call::X32_BIT;
/// `rt_sigreturn`, in the 64-bit and in the 32-bit table.
const SIGNAL_RETURN: (u16, u16) = (15, 173);
const ENOSYS: i64 = 38;
const MOST_ERRNO: i64 = 4095;

/// A call that returned.
pub struct Returned {
    /// What it is counted by.
    pub key: CallKey,
    /// Whether the process runs a new program now.
    pub runs: bool,
}

/// The call that is about to return, with the parts of its key that the word asks for; `None` where
/// nobody made a call: a new process or thread that begins.
#[inline(always)]
pub fn returned(ctx: &BtfTracePointContext, word: u64) -> Option<Returned> {
    let result: i64 = ctx.arg(1);
    // SAFETY: the first argument of sys_exit is a `struct pt_regs`, which the verifier knows.
    let number = unsafe { call::number(ctx.arg(0)) };
    let mut runs = false;
    if result == 0 {
        let names = SPECIAL.names(number);
        if names != 0 {
            match name(names)? {
                CREATES => return None,
                RUNS => runs = true,
                _ => {}
            }
        }
    }
    let mut key = CallKey { pid: task::current_pid(), call: 0, errno: 0 };
    if word & CALL != 0 {
        let compat = call::is_compat()?;
        key.call = if number == NO_NUMBER && result != -ENOSYS {
            if compat { SIGNAL_RETURN.1 | CallKey::COMPAT } else { SIGNAL_RETURN.0 }
        } else {
            in_key(number, compat)
        };
    }
    if word & u64::from(syscall_stats::errno) != 0 {
        let told = call::told(result);
        if (-MOST_ERRNO..0).contains(&told) {
            key.errno = -told as u16;
        }
    }
    Some(Returned { key, runs })
}

/// The call with these registers, if it is one from which the current thread, which ends, does not
/// return.
#[inline(always)]
pub fn ended(registers: *const u64, word: u64) -> Option<CallKey> {
    let number = call::number_at(registers)?;
    let names = SPECIAL.names(number);
    if names == 0 || name(names)? != ENDS {
        return None;
    }
    let call = if word & CALL != 0 { in_key(number, call::is_compat()?) } else { 0 };
    Some(CallKey { pid: task::current_pid(), call, errno: 0 })
}

/// Bits of the fields for which calls are told apart.
const CALL: u64 = (syscall_stats::call | syscall_stats::number | syscall_stats::abi) as u64;

#[inline(always)]
fn name(names: u8) -> Option<Name> {
    Some(if call::is_compat()? { names >> 4 } else { names & 15 })
}

#[inline(always)]
fn in_key(number: u64, compat: bool) -> u16 {
    let highest = u64::from(CallKey::HIGHEST);
    let number = if number > highest { highest } else { number } as u16;
    if compat { number | CallKey::COMPAT } else { number }
}
