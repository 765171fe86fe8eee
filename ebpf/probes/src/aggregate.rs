//! Adding up in maps: what programs of aggregated kinds share.

use crate::{
    events::aggregate::{BUCKETS, Latency},
    record::at_most,
};

/// `BPF_NOEXIST`: fails if the key is there.
pub const ONLY_NEW: u64 = 1;

/// Adds a duration to a value of this CPU, in the tick of that number.
///
/// # Safety
/// `sums` is a map value of this CPU.
#[inline(always)]
pub unsafe fn add_latency(sums: *mut Latency, latency: u64, tick: u64) {
    // SAFETY: the caller promises; nobody else writes while this program runs.
    let sums = unsafe { &mut *sums };
    sums.count += 1;
    sums.sum += latency;
    let place = (tick & 1) as usize;
    if sums.stamps[place] == tick {
        if latency < sums.least[place] {
            sums.least[place] = latency;
        }
        if latency > sums.greatest[place] {
            sums.greatest[place] = latency;
        }
    } else {
        sums.stamps[place] = tick;
        sums.least[place] = latency;
        sums.greatest[place] = latency;
    }
    let bucket = at_most!(bucket(latency) as usize, BUCKETS - 1);
    // SAFETY: checked in the line before, by an instruction that the compiler cannot move.
    unsafe { *sums.buckets.as_mut_ptr().add(bucket) += 1 };
}

/// The range that a number is in: its highest bit.
#[inline(always)]
fn bucket(number: u64) -> u32 {
    let (mut rest, mut bucket) = (number, 0);
    let mut bits = 32;
    while bits > 0 {
        if rest >> bits != 0 {
            rest >>= bits;
            bucket += bits;
        }
        bits /= 2;
    }
    bucket
}
