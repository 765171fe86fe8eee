//! How long threads are ready to run before they do, and how long they are off the processor: by cgroup,
//! and by process.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Counters, Event, Gap, Known, On, Policy, Settings, metrics};

#[derive(Event)]
#[event(kind = "sched_stats", every = "5s")]
struct Switches<'a> {
    cgroup: u64,
    #[event(field = "cgroup.path")]
    path: Option<&'a str>,
    comm: &'a str,
    voluntary: u64,
    involuntary: u64,
    migrations: u64,
    runs: u64,
    queued: u64,
    blocked: u64,
    uninterruptible: u64,
    queued_histogram: &'a [u8],
}

#[derive(Settings)]
struct Rules {
    /// Processes, by name and cgroup, that are told one by one. The others are counted as `other` of their
    /// cgroup.
    #[setting(default = 20)]
    processes: usize,
}

/// A process that was not switched for so long makes room for another.
const FORGET_NS: u64 = 600_000_000_000;

/// Ranges of waits that are told, as powers of two of nanoseconds: up to a microsecond, four, and so on to
/// a second.
const BOUNDS: [(usize, &str); 11] = [
    (10, "0.000001024"),
    (12, "0.000004096"),
    (14, "0.000016384"),
    (16, "0.000065536"),
    (18, "0.000262144"),
    (20, "0.001048576"),
    (22, "0.004194304"),
    (24, "0.016777216"),
    (26, "0.067108864"),
    (28, "0.268435456"),
    (30, "1.073741824"),
];

struct SchedLatency {
    switches: Counters<3>,
    migrations: Counters<2>,
    runs: Counters<2>,
    queued: Counters<2>,
    blocked: Counters<2>,
    uninterruptible: Counters<2>,
    ranges: Counters<2>,
    lost: Counter,
    /// Processes that are told one by one.
    known: Known<(String, String)>,
}

impl Policy for SchedLatency {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let rules = Rules::read(settings)?;
        metrics::describe("sched_switches_total", "Times that threads left their processor.", "");
        metrics::describe("sched_migrations_total", "Times that threads changed processors.", "");
        metrics::describe("sched_runs_total", "Times that threads ran whose wait is known.", "");
        for (name, text) in [
            ("sched_queued_nanoseconds_total", "Time that threads were ready and did not run."),
            ("sched_blocked_nanoseconds_total", "Time that threads slept or waited."),
            (
                "sched_uninterruptible_nanoseconds_total",
                "Time that threads waited and no signal could wake them.",
            ),
        ] {
            metrics::describe(name, text, "nanoseconds");
        }
        metrics::describe(
            "sched_queued_up_to_total",
            "Times that threads ran after having been ready for at most `up_to` seconds.",
            "",
        );
        metrics::describe(
            "sched_lost_total",
            "Switches and migrations that were not counted by process.",
            "",
        );
        Ok(Self {
            switches: Counters::new("sched_switches_total", ["cgroup", "process", "kind"]),
            migrations: Counters::new("sched_migrations_total", ["cgroup", "process"]),
            runs: Counters::new("sched_runs_total", ["cgroup", "process"]),
            queued: Counters::new("sched_queued_nanoseconds_total", ["cgroup", "process"]),
            blocked: Counters::new("sched_blocked_nanoseconds_total", ["cgroup", "process"]),
            uninterruptible: Counters::new(
                "sched_uninterruptible_nanoseconds_total",
                ["cgroup", "process"],
            ),
            ranges: Counters::new("sched_queued_up_to_total", ["cgroup", "up_to"]),
            lost: Counter::new("sched_lost_total", &[]),
            known: Known::new(rules.processes, FORGET_NS),
        })
    }

    fn lost(&mut self, gap: Gap) {
        self.lost.add(gap.lost);
    }
}

impl On<Switches<'_>> for SchedLatency {
    fn on(&mut self, time_ns: u64, seen: Switches<'_>) {
        let number = seen.cgroup.to_string();
        let cgroup = seen.path.unwrap_or(&number);
        let name = (cgroup.to_owned(), seen.comm.to_owned());
        let process = if self.known.admits(&name, time_ns) { seen.comm } else { "other" };
        let all = [
            (&self.migrations, seen.migrations),
            (&self.runs, seen.runs),
            (&self.queued, seen.queued),
            (&self.blocked, seen.blocked),
            (&self.uninterruptible, seen.uninterruptible),
        ];
        for (counters, value) in all.into_iter().filter(|(_, value)| *value > 0) {
            counters.add([cgroup, process], value);
        }
        for (kind, value) in [("voluntary", seen.voluntary), ("involuntary", seen.involuntary)] {
            if value > 0 {
                self.switches.add([cgroup, process, kind], value);
            }
        }
        if seen.runs > 0 {
            let (buckets, _) = seen.queued_histogram.as_chunks();
            let below = |end| buckets.iter().take(end).map(|n| u64::from_le_bytes(*n)).sum();
            for (end, bound) in BOUNDS {
                self.ranges.add([cgroup, bound], below(end));
            }
            self.ranges.add([cgroup, "+Inf"], below(buckets.len()));
        }
    }
}

tipstaff::export!(SchedLatency: Switches<'_>; settings = Rules);
