//! The clocks: events carry `CLOCK_MONOTONIC`; wall-clock time is computed from an offset.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds on the clock that events carry, which stands still during suspend.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Monotonic))).unwrap_or(0)
}

/// Wall-clock time minus monotonic time, in nanoseconds.
#[must_use]
pub fn wall_offset_ns() -> i64 {
    let monotonic = nanoseconds(clock_gettime(ClockId::Monotonic));
    nanoseconds(clock_gettime(ClockId::Realtime)) - monotonic
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
