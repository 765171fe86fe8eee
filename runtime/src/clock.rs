//! The clocks: events carry `CLOCK_MONOTONIC`; wall-clock time is computed from an offset.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds on the clock that events carry, which stands still during suspend.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Monotonic))).unwrap_or(0)
}

/// Time since boot, suspend included: for what must last as long whatever the machine does.
#[must_use]
pub fn since_boot() -> std::time::Duration {
    let ns = u64::try_from(nanoseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0);
    std::time::Duration::from_nanos(ns)
}

/// Processor time of all threads of this process, without its children.
#[must_use]
pub fn process_cpu() -> std::time::Duration {
    let ns = u64::try_from(nanoseconds(clock_gettime(ClockId::ProcessCPUTime))).unwrap_or(0);
    std::time::Duration::from_nanos(ns)
}

/// As long as two readings of a clock take at most, unless the thread is stopped between them.
const QUICK_NS: i64 = 10_000;
/// How often the clocks are read again where it was.
const TRIES: u32 = 8;

/// Wall-clock time minus monotonic time, in nanoseconds. A thread that is stopped between its looks at
/// the two clocks would take that for a step of the wall clock: the quickest of a few tries counts.
#[must_use]
pub fn wall_offset_ns() -> i64 {
    let (mut quickest, mut offset) = (i64::MAX, 0);
    for _ in 0..TRIES {
        let before = nanoseconds(clock_gettime(ClockId::Monotonic));
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        let took = nanoseconds(clock_gettime(ClockId::Monotonic)) - before;
        if took < quickest {
            (quickest, offset) = (took, wall - before - took / 2);
        }
        if took <= QUICK_NS {
            break;
        }
    }
    offset
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
