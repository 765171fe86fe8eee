//! What the maps of aggregated kinds hold: cumulative numbers by key, one for each CPU. The runtime
//! reads them at each tick, adds the CPUs up, and takes the difference to the reading before.

/// Map, hash of process to [`crate::wire::Header`] with all common fields: what is known of the
/// processes whose keys are in the other maps.
pub const PROCESSES: &str = "PROCESSES";
/// Map, array of one u64: the number of the tick that runs, for [`Latency::stamps`].
pub const TICK: &str = "TICK";
/// Map, hash of `task_struct` to u64: when the thread entered the call that it is in, or 0.
pub const ENTERED: &str = "ENTERED";
/// Map, per-CPU hash of [`CallKey`] to u64: how many calls.
pub const CALLS: &str = "CALLS";
/// Map, per-CPU hash of [`CallKey`] to [`Latency`].
pub const LATENCIES: &str = "LATENCIES";

/// Map, per-CPU hash of process to [`Switches`].
pub const SWITCHES: &str = "SWITCHES";
/// Map, hash of thread to what it waits for, within `sched_stats`.
pub const WAITING: &str = "WAITING";

/// Map, per-CPU hash of [`IoKey`] to [`IoSums`].
pub const IO: &str = "IO";

/// Ranges of a histogram: nanoseconds up to nine minutes, bytes up to a terabyte.
pub const BUCKETS: usize = 40;

/// What system calls are counted by. What is not asked for is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    /// Process (thread group) in the initial pid namespace.
    pub pid: u32,
    /// Number of the call, and [`CallKey::COMPAT`].
    pub call: u16,
    /// The error, or 0.
    pub errno: u16,
}

impl CallKey {
    /// Bit of `call`: the number is of the 32-bit table.
    pub const COMPAT: u16 = 1 << 15;
    /// Stands in `call` for this and higher numbers.
    pub const HIGHEST: u16 = Self::COMPAT - 1;
}

/// Durations, added up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Ticks that `least` and `greatest` are of: of two successive ticks each has its place, so that the
    /// one that has ended can be read while the next one runs.
    pub stamps: [u64; 2],
    /// The shortest one in each of these ticks.
    pub least: [u64; 2],
    /// The longest one.
    pub greatest: [u64; 2],
    /// How many in each range.
    pub buckets: [u64; BUCKETS],
}

/// What the scheduler did with the threads of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Switches {
    /// Times that a thread gave up its processor.
    pub voluntary: u64,
    /// Times that it was taken from it.
    pub involuntary: u64,
    /// Times that a thread was moved to another processor.
    pub migrations: u64,
    /// Times that a thread began to run whose wait is known.
    pub runs: u64,
    /// Time that they were ready to run before, and did not.
    pub queued: u64,
    /// Time that they were not ready to run before that.
    pub blocked: u64,
    /// The part of it in which no signal could wake them.
    pub uninterruptible: u64,
    /// How many were ready so long before they ran.
    pub buckets: [u64; BUCKETS],
}

/// What input and output is counted by. What is not asked for is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IoKey {
    /// Process (thread group) in the initial pid namespace.
    pub pid: u32,
    /// The device of the file system, as the kernel has it: 20 bits are the minor number.
    pub device: u32,
    /// Number of the mount; 0 where it is not known.
    pub mount: u32,
    /// The error, or 0.
    pub errno: u16,
    /// Index in [`crate::catalogue::IO_OPERATION`].
    pub operation: u8,
    /// Index in [`crate::catalogue::PATH_CLASS`].
    pub class: u8,
    /// Index in [`crate::catalogue::FILE_TYPE`].
    pub file: u8,
    /// 0.
    pub pad: [u8; 3],
}

const _: () = assert!(size_of::<IoKey>() == 20);

/// Input and output, added up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IoSums {
    /// Calls or requests.
    pub calls: u64,
    /// Bytes that they moved.
    pub bytes: u64,
    /// How many moved so many, of those that moved any.
    pub buckets: [u64; BUCKETS],
}
