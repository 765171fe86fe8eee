//! What all of Tipstaff's eBPF programs share. Each file in `bin/` is one object (a probe family)
//! that the runtime loads only when a plan needs it.
//!
//! A program does four things: ask [`map::wanted`] what is wanted of its kind right now, return at
//! once if that is nothing or [`map::hidden`] says so, fill in a record ([`task`], [`record`]), and
//! emit it. Fields that nobody asked for stay 0 and cost nothing.
//!
//! What the kernel fixes (struct offsets, sizes, what exists) comes in as frozen constants
//! ([`kernel`]), so that the verifier removes the code that this kernel does not need.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "core has no atomic add without compare-and-swap")
)]

pub mod aggregate;
mod budget;
pub mod call;
pub mod kernel;
pub mod map;
pub mod path;
pub mod record;
pub mod socket;
pub mod syscall;
pub mod task;
pub mod uring;

pub use aya_ebpf;
pub use tipstaff_events as events;

/// The kernel asks each program for its licence; helpers that read kernel memory are for GPL ones.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a loop without an end: a program that can panic does not load.
    loop {}
}
