//! Says in which thread group it is run. Sits on no hook: the runtime runs it once by hand.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        macros::{map, raw_tracepoint},
        maps::Array,
        programs::RawTracePointContext,
    },
    task,
};

#[map]
static SEEN: Array<u32> = Array::with_max_entries(1, 0);

#[raw_tracepoint]
fn shake(_: RawTracePointContext) -> i32 {
    if let Some(seen) = SEEN.get_ptr_mut(0) {
        // SAFETY: the only entry of the map, written once.
        unsafe { *seen = task::current_pid() };
    }
    0
}
