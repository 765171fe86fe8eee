//! A system call, seen where it returns.
//!
//! At `sys_exit` the result is known, the registers still hold the arguments, and the memory that
//! they point at is resident, because the kernel has just read it. So nothing is kept between entry
//! and exit. Calls by the 32-bit table (`int 0x80`, 32-bit programs) pass here too.
//! docs/decisions/0002 has the reasons and the figures.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user, maps::ProgramArray, programs::BtfTracePointContext,
};
use core::mem::MaybeUninit;

use crate::{
    events::{catalogue::VIA, index, wire::LOST_MISSED},
    kernel::{self, task_struct, thread_info},
    map::lost,
    task,
};

/// The call came by the 64-bit table.
pub const SYSCALL: u8 = index(VIA, "syscall");
/// The call came by the 32-bit table.
pub const COMPAT: u8 = index(VIA, "compat");

/// Numbers that a [`Table`] can hold.
const NUMBERS: usize = 512;
/// Bit of a number that says that the caller has 32-bit pointers (x32).
pub(crate) const X32_BIT: u64 = 1 << 30;
/// Bit of `thread_info.status`: the current call came by the 32-bit table.
const TS_COMPAT: u32 = 2;
/// Results from here to -512 are for the kernel's own use: the call was interrupted, and may be
/// started again.
const ERESTART_RESTARTBLOCK: i64 = -516;
const ERESTARTSYS: i64 = -512;
/// Interrupted by a signal.
pub const EINTR: i32 = 4;

/// A call that a family watches, as it names it: 1 to 15.
pub type Name = u8;

/// The calls of a family by number: one byte each, the 64-bit table's call in the lower half, the
/// 32-bit table's in the upper.
pub struct Table([u8; NUMBERS]);

impl Table {
    /// From (name, number in the 64-bit table, number in the 32-bit table); -1 where it has none.
    #[must_use]
    pub const fn new(calls: &[(Name, i32, i32)]) -> Self {
        let mut table = [0; NUMBERS];
        let mut at = 0;
        while at < calls.len() {
            let (name, native, compat) = calls[at];
            assert!(name > 0 && name < 16);
            if native >= 0 {
                table[native as usize] |= name;
            }
            if compat >= 0 {
                table[compat as usize] |= name << 4;
            }
            at += 1;
        }
        Self(table)
    }

    /// The calls of that number: the 64-bit table's in the lower half, the 32-bit table's in the upper.
    #[inline(always)]
    #[must_use]
    pub fn names(&'static self, number: u64) -> u8 {
        if number >= NUMBERS as u64 {
            return 0;
        }
        // SAFETY: checked above. Volatile, lest the table become a tree of comparisons.
        unsafe { self.0.as_ptr().add(number as usize).read_volatile() }
    }
}

/// Number of the call that these registers are of.
///
/// # Safety
/// They are a `struct pt_regs`, as the verifier can see.
#[inline(always)]
pub(crate) unsafe fn number(registers: *const u64) -> u64 {
    // SAFETY: the caller promises.
    in_table(unsafe { registers.add(register::ORIG_AX).read_volatile() })
}

/// The same for registers that are read through a helper.
#[inline(always)]
pub(crate) fn number_at(registers: *const u64) -> Option<u64> {
    kernel::read(registers.wrapping_add(register::ORIG_AX).cast()).map(in_table)
}

/// The kernel looks at 32 bits.
#[inline(always)]
fn in_table(number: u64) -> u64 {
    number & 0xffff_ffff & !X32_BIT
}

/// Whether the current thread's call came by the 32-bit table.
#[inline(always)]
#[must_use]
pub fn is_compat() -> Option<bool> {
    let info = task_struct::thread_info.of(task::current())?;
    Some(thread_info::status.read::<u32>(info)? & TS_COMPAT != 0)
}

/// `struct pt_regs` of x86-64, in words of 8 bytes.
mod register {
    pub const BX: usize = 5;
    pub const R10: usize = 7;
    pub const R8: usize = 9;
    pub const CX: usize = 11;
    pub const DX: usize = 12;
    pub const SI: usize = 13;
    pub const DI: usize = 14;
    pub const ORIG_AX: usize = 15;

    /// Where the arguments are, in the 64-bit and in the 32-bit convention.
    pub const ARGUMENTS: [(usize, usize); 5] = [(DI, BX), (SI, CX), (DX, DX), (R10, SI), (R8, DI)];
}

/// A call of the current thread that is about to return.
pub struct Call {
    registers: *const u64,
    /// Which call it is.
    pub name: Name,
    /// How it reached the kernel: [`SYSCALL`] or [`COMPAT`].
    pub via: u8,
    result: i64,
}

impl Call {
    /// The call, if it is in the table.
    #[inline(always)]
    #[must_use]
    pub fn of(ctx: &BtfTracePointContext, table: &'static Table) -> Option<Self> {
        let registers: *const u64 = ctx.arg(0);
        // SAFETY: the first argument of sys_exit is a `struct pt_regs`, which the verifier knows.
        let number = unsafe { number(registers) };
        let names = table.names(number);
        if names == 0 {
            return None;
        }
        let (name, via) = if is_compat()? { (names >> 4, COMPAT) } else { (names & 15, SYSCALL) };
        (name != 0).then(|| Self { registers, name, via, result: ctx.arg(1) })
    }

    /// The `N`-th argument, from 0 to 4.
    #[inline(always)]
    #[must_use]
    pub fn argument<const N: usize>(&self) -> u64 {
        let (native, compat) = const { register::ARGUMENTS[N] };
        // SAFETY: inside of `struct pt_regs`. Volatile, so that both are read at a constant offset.
        let (native, compat) = unsafe {
            (self.registers.add(native).read_volatile(), self.registers.add(compat).read_volatile())
        };
        if self.via == COMPAT { compat & 0xffff_ffff } else { native }
    }

    /// What the call returns; a call that may be started again is reported as `EINTR`.
    #[inline(always)]
    #[must_use]
    pub fn result(&self) -> i32 {
        self.long_result() as i32
    }

    /// The same for a call that may return more than 32 bits.
    #[inline(always)]
    #[must_use]
    pub fn long_result(&self) -> i64 {
        told(self.result)
    }
}

/// What is told of a result: a call that may be started again has `EINTR`.
#[inline(always)]
pub(crate) fn told(result: i64) -> i64 {
    if (ERESTART_RESTARTBLOCK..=ERESTARTSYS).contains(&result) { -i64::from(EINTR) } else { result }
}

/// Goes on as the program in that slot, which reports events of the kind; where there is none the
/// event is missed.
#[inline(always)]
pub fn hand_over(ctx: &BtfTracePointContext, programs: &ProgramArray, slot: u32, kind: u16) {
    // SAFETY: the programs in the slots take the same context.
    unsafe { programs.tail_call(ctx, slot) };
    lost(kind, LOST_MISSED);
}

/// Reads a `T` of the calling process's memory.
#[inline(always)]
#[must_use]
pub fn user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address and fills in all of `value`, or zeroes it.
    let result = unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _)
    };
    // SAFETY: as above, for types of numbers only.
    (result == 0).then(|| unsafe { value.assume_init() })
}
