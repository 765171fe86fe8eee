//! The kernel does not run a program in an interrupt that has come while the same program ran on the
//! same CPU. For changes of a socket's state that happens (a few in 100,000 under load), and a change
//! that is missed is an event that is lost or has no owner. So two programs sit on the tracepoint,
//! one behind the other: the second does what the first was kept from doing. Both are kept from it
//! only by an interrupt within an interrupt, which network processing does not do.

use tipstaff_probes::aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};

/// Users of this module: each has marks of its own.
#[derive(Clone, Copy)]
pub enum For {
    /// `connect`.
    Connect,
    /// `tcp_close`.
    Close,
}

/// The first program has done this, and the second has not been there yet.
#[repr(C)]
struct Mark {
    /// What was done; 0 for nothing.
    what: u64,
    /// When, as in `Header::time`.
    time: u64,
}

/// Of one user on one CPU.
#[repr(C)]
struct State {
    /// One for a change, and one for another in an interrupt between its two programs.
    marks: [Mark; 2],
    /// 1 while the second program runs: who interrupts it has no second program.
    second_runs: u64,
}

/// A mark that is older was left behind: its second program was kept from running by one that had
/// not yet, or no longer, said that it runs. Long, as a virtual CPU may be stopped between the two.
const LEFT_BEHIND_NS: u64 = 1_000_000_000;

#[map]
static STATES: PerCpuArray<State> = PerCpuArray::with_max_entries(2, 0);

/// The first program has done it.
#[inline(always)]
pub fn done(by: For, what: u64) {
    let Some(state) = STATES.get_ptr_mut(by as u32) else { return };
    // SAFETY: a map value of this CPU. Who interrupts leaves it as it was.
    let State { marks: [first, second], second_runs } = unsafe { &mut *state };
    if *second_runs != 0 {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mark = if first.what == 0 || now - first.time > LEFT_BEHIND_NS { first } else { second };
    *mark = Mark { what, time: now };
}

/// The second program: does what the first has not done.
#[inline(always)]
pub fn again(by: For, what: u64, act: impl FnOnce()) {
    let Some(state) = STATES.get_ptr_mut(by as u32) else { return };
    // SAFETY: a map value of this CPU, written while nobody else looks: who interrupts reads it.
    let second_runs = unsafe { &raw mut (*state).second_runs };
    // SAFETY: as above.
    unsafe { second_runs.write_volatile(1) };
    if !was_done(state, what) {
        act();
    }
    // SAFETY: as above.
    unsafe { second_runs.write_volatile(0) };
}

/// Whether the first program has done it. Asked once.
#[inline(always)]
fn was_done(state: *mut State, what: u64) -> bool {
    // SAFETY: as in `done`.
    let [first, second] = unsafe { &mut (*state).marks };
    let mark = if first.what == what { first } else { second };
    // SAFETY: no arguments.
    let done = mark.what == what && unsafe { bpf_ktime_get_ns() } - mark.time <= LEFT_BEHIND_NS;
    if done {
        mark.what = 0;
    }
    done
}
