//! What one cgroup may put into the rings: a token bucket for each, so that one that makes very many
//! events does not take the room that the others need.
//!
//! A bucket is one number: the time at which it would be full again. Taking a token moves it on by
//! what one token takes to come back; there is none left when it is a whole bucket ahead of now. So a
//! bucket that is full needs no entry at all, and the host takes out those that are.
//!
//! CPUs that find the same bucket full at the same moment may each take a token for one: that many
//! more events pass than were meant. What is left out is counted for each event, and exact.
#![expect(clippy::inline_always, reason = "eBPF: one function with few registers")]

/// Map, hash of cgroup id (v2) to [`Bucket`]. It never forgets an entry by itself, as a map that
/// replaces its oldest entries would: who is forgotten has a full bucket again.
pub const BUCKETS: &str = "BUCKETS";
/// Cgroups that have a bucket which is not full at the same time. Events of further ones pass.
pub const MOST_BUCKETS: u32 = 4_096;

/// Map, array of u64: what a bucket is, and what was let through without one.
pub const BUDGET: &str = "BUDGET";
/// Entry of [`BUDGET`]: after so many nanoseconds a token is back; 0: there are no buckets.
pub const TOKEN_NS: u32 = 0;
/// Entry of [`BUDGET`]: after so many nanoseconds an empty bucket is full.
pub const FULL_NS: u32 = 1;
/// Entry of [`BUDGET`]: events that passed because there was no room for another bucket.
pub const UNBOUNDED: u32 = 2;
/// Entries of [`BUDGET`].
pub const BUDGET_ENTRIES: u32 = 3;

/// A value in [`BUCKETS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// `CLOCK_MONOTONIC` at which it would be full, in nanoseconds.
    pub full_at: u64,
    /// Events that were left out because it was empty.
    pub left_out: u64,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It passes, and the bucket, which was full, is full again at this time.
    First(u64),
    /// It passes, and the bucket is full a token later than before.
    Next,
    /// It is left out.
    Empty,
}

/// Takes a token out of a bucket that would be full at `full_at`.
#[inline(always)]
#[must_use]
pub const fn take(full_at: u64, now: u64, token_ns: u64, full_ns: u64) -> Take {
    if full_at <= now {
        Take::First(now.wrapping_add(token_ns))
    } else if (full_at - now).saturating_add(token_ns) > full_ns {
        Take::Empty
    } else {
        Take::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the events at these times pass.
    fn passed(times: impl Iterator<Item = u64>, token_ns: u64, full_ns: u64) -> u64 {
        let (mut full_at, mut passed) = (0, 0);
        for now in times {
            match take(full_at, now, token_ns, full_ns) {
                Take::First(at) => full_at = at,
                Take::Next => full_at += token_ns,
                Take::Empty => continue,
            }
            passed += 1;
        }
        passed
    }

    #[test]
    fn a_full_bucket_and_what_comes_back_meanwhile_passes() {
        let second = 1_000_000_000;
        // All at once: a bucket full.
        assert_eq!(passed((0..5000).map(|_| second), second / 1000, second), 1000);
        // Twice as many as come back, for ten seconds.
        let twice = (0..20_000).map(|event| second + event * second / 2000);
        let found = passed(twice, second / 1000, second);
        assert!((10_999..=11_001).contains(&found), "{found}");
        // As many as come back.
        let as_many = (0..20_000).map(|event| second + event * second / 1000);
        assert_eq!(passed(as_many, second / 1000, second), 20_000);
    }

    #[test]
    fn what_was_not_used_is_saved_up_to_a_bucket_full() {
        let second = 1_000_000_000;
        let bursts = (1..=5).flat_map(|burst| (0..300).map(move |_| burst * 10 * second));
        assert_eq!(passed(bursts, second / 100, second), 500);
        assert_eq!(passed((0..10).map(|_| second), second, second), 1);
    }
}
