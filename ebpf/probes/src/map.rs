//! The maps that all objects share. The runtime creates them once; see [`crate::events::wire`].

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

use crate::events::{
    filter::Filter,
    wire::{CAUSES, FILTER_SLOT_BIT, FILTER_SLOTS, MAX_HIDDEN, MAX_KINDS, ON_BIT},
};

/// The runtime sets the real size of the rings.
const RING_BYTES: u32 = 4096;

#[map]
static WANTED: Array<u64> = Array::with_max_entries(MAX_KINDS as u32, 0);
#[map]
static LOST: Array<u64> = Array::with_max_entries(MAX_KINDS as u32 * CAUSES as u32, 0);
#[map]
static FILTER: Array<Filter> = Array::with_max_entries(MAX_KINDS as u32 * FILTER_SLOTS as u32, 0);
#[map]
static SAMPLED: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_KINDS as u32, 0);
#[map]
static HIDDEN: HashMap<u32, u8> = HashMap::with_max_entries(MAX_HIDDEN, 0);
#[map]
pub(crate) static BULK: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
pub(crate) static LIFE: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
pub(crate) static URGENT: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// What is wanted of the kind right now; 0: nothing, return at once.
#[inline(always)]
pub fn wanted(kind: u16) -> u64 {
    let word = WANTED.get(u32::from(kind)).copied().unwrap_or(0);
    if word & ON_BIT == 0 { 0 } else { word }
}

/// Where the kind's filter is that is in force.
#[inline(always)]
pub(crate) fn filter_place(kind: u16, word: u64) -> u32 {
    u32::from(kind) * u32::from(FILTER_SLOTS) + u32::from(word & FILTER_SLOT_BIT != 0)
}

/// The filter at that place.
#[inline(always)]
pub(crate) fn filter(place: u32) -> Option<&'static Filter> {
    FILTER.get(place)
}

/// How many records came before this one on this CPU to the filter at that place.
#[inline(always)]
pub(crate) fn turn(place: u32) -> u64 {
    let Some(turns) = SAMPLED.get_ptr_mut(place / u32::from(FILTER_SLOTS)) else { return 0 };
    // SAFETY: a map value of this CPU. A program that comes in between may take the same turn.
    unsafe {
        let turn = *turns;
        *turns = turn + 1;
        turn
    }
}

/// What of this process (thread group) is not reported: 0 (all is reported), `HIDE` or
/// `HIDE_CHILDREN`.
#[inline(always)]
pub fn hidden(tgid: u32) -> u8 {
    // SAFETY: the runtime writes it as a whole, and one byte is never torn.
    unsafe { HIDDEN.get(tgid) }.copied().unwrap_or(0)
}

/// Counts one lost event of the kind.
#[inline(always)]
pub fn lost(kind: u16, cause: u16) {
    if let Some(counter) = LOST.get_ptr_mut(u32::from(kind) * u32::from(CAUSES) + u32::from(cause))
    {
        add(counter, 1);
    }
}

/// Adds to a number that other CPUs add to at the same time.
#[inline(always)]
pub fn add(number: *mut u64, summand: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's pointer is a map value, aligned to 8 bytes.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            number, summand,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (number, summand);
}
