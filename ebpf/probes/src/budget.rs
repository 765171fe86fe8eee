//! Whether the cgroup of an event may still put it into a ring: see [`crate::events::budget`].

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap},
};

use crate::{
    events::{
        budget::{BUDGET_ENTRIES, Bucket, FULL_NS, MOST_BUCKETS, TOKEN_NS, Take, UNBOUNDED, take},
        wire::LOST_CGROUP_BUDGET,
    },
    map::{add, lost},
};

#[map]
static BUCKETS: HashMap<u64, Bucket> = HashMap::with_max_entries(MOST_BUCKETS, 0);
#[map]
static BUDGET: Array<u64> = Array::with_max_entries(BUDGET_ENTRIES, 0);

/// `BPF_NOEXIST`.
const NEW: u64 = 1;
/// What the kernel says where another CPU was first.
const EEXIST: i32 = -17;

/// Takes a token out of the cgroup's bucket; 0: there is none left, and the event is counted. A
/// function that the verifier checks by itself, once, and not in each program at each place.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn is_within_budget(cgroup: u64, kind: u32) -> u32 {
    let token_ns = BUDGET.get(TOKEN_NS).copied().unwrap_or(0);
    // Where nobody knows whose it is there is nobody whose budget it could be.
    if token_ns == 0 || cgroup == 0 {
        return 1;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(bucket) = BUCKETS.get_ptr_mut(cgroup) else {
        let bucket = Bucket { full_at: now + token_ns, left_out: 0 };
        match BUCKETS.insert(cgroup, bucket, NEW) {
            Ok(()) | Err(EEXIST) => {}
            Err(_) => {
                if let Some(counter) = BUDGET.get_ptr_mut(UNBOUNDED) {
                    add(counter, 1);
                }
            }
        }
        return 1;
    };
    let full_ns = BUDGET.get(FULL_NS).copied().unwrap_or(0);
    // SAFETY: a map value; other CPUs only add to it or write it as a whole.
    let (full_at, left_out) = unsafe { (&raw mut (*bucket).full_at, &raw mut (*bucket).left_out) };
    match take(unsafe { full_at.read_volatile() }, now, token_ns, full_ns) {
        Take::First(at) => unsafe { full_at.write_volatile(at) },
        Take::Next => add(full_at, token_ns),
        Take::Empty => {
            add(left_out, 1);
            lost(kind as u16, LOST_CGROUP_BUDGET);
            return 0;
        }
    }
    1
}
