//! Bytes, calls and errors of files, by cgroup and mount, whatever the file system.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Counters, Event, Gap, On, Policy, Settings, metrics};

#[derive(Event)]
#[event(kind = "io_stats", every = "5s")]
struct Io<'a> {
    cgroup: u64,
    #[event(field = "cgroup.path")]
    path: Option<&'a str>,
    mountpoint: Option<&'a str>,
    fstype: Option<&'a str>,
    operation: &'a str,
    path_class: &'a str,
    file: &'a str,
    errno: u16,
    calls: u64,
    bytes: Option<u64>,
    size_histogram: Option<&'a [u8]>,
}

#[derive(Settings)]
struct Rules {
    /// Whether pipes, sockets, terminals and other devices are counted, too. Without, only files with
    /// storage behind them are, and what cannot be told.
    #[setting(default = false)]
    all_files: bool,
}

/// Ranges of sizes that are told, as powers of two of bytes.
const BOUNDS: [(usize, &str); 8] = [
    (6, "63"),
    (9, "511"),
    (12, "4095"),
    (14, "16383"),
    (16, "65535"),
    (18, "262143"),
    (20, "1048575"),
    (24, "16777215"),
];

/// No error: there is nothing to read yet, or no room to write. The caller asks again.
const EAGAIN: u16 = 11;

struct IoMonitor {
    all_files: bool,
    bytes: Counters<4>,
    requests: Counters<5>,
    unknown: Counters<4>,
    errors: Counters<5>,
    sizes: Counters<4>,
    lost: Counter,
}

impl Policy for IoMonitor {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let rules = Rules::read(settings)?;
        metrics::describe("io_bytes_total", "Bytes that were read or written.", "bytes");
        metrics::describe("io_requests_total", "Calls and requests, by the way they went.", "");
        metrics::describe(
            "io_unknown_requests_total",
            "Requests of aio and mappings of files: how many bytes they move is not known.",
            "",
        );
        metrics::describe("io_errors_total", "Calls and requests that failed, by error.", "");
        metrics::describe(
            "io_size_up_to_total",
            "Calls and requests that moved at most `up_to` bytes, and at least one.",
            "",
        );
        metrics::describe(
            "io_lost_total",
            "Calls and requests that were not counted, for want of room in the kernel's map.",
            "",
        );
        let by = |name, more| Counters::new(name, ["cgroup", "mountpoint", "fstype", more]);
        let by_two = |name, more: [&'static str; 2]| {
            Counters::new(name, ["cgroup", "mountpoint", "fstype", more[0], more[1]])
        };
        Ok(Self {
            all_files: rules.all_files,
            bytes: by("io_bytes_total", "op"),
            requests: by_two("io_requests_total", ["op", "path_class"]),
            unknown: by("io_unknown_requests_total", "path_class"),
            errors: by_two("io_errors_total", ["op", "errno"]),
            sizes: Counters::new("io_size_up_to_total", ["cgroup", "mountpoint", "op", "up_to"]),
            lost: Counter::new("io_lost_total", &[]),
        })
    }

    fn lost(&mut self, gap: Gap) {
        self.lost.add(gap.lost);
    }
}

impl On<Io<'_>> for IoMonitor {
    fn on(&mut self, _time_ns: u64, io: Io<'_>) {
        let has_storage = ["regular", "directory", "block", "unknown"].contains(&io.file);
        if !has_storage && !self.all_files {
            return;
        }
        let number = io.cgroup.to_string();
        let cgroup = io.path.unwrap_or(&number);
        let (point, fstype) = (io.mountpoint.unwrap_or("unknown"), io.fstype.unwrap_or("unknown"));
        self.requests.add([cgroup, point, fstype, io.operation, io.path_class], io.calls);
        if io.errno != 0 && io.errno != EAGAIN {
            let number = io.errno.to_string();
            let errno = tipstaff::errno::name(io.errno).unwrap_or(&number);
            self.errors.add([cgroup, point, fstype, io.operation, errno], io.calls);
        }
        let Some(bytes) = io.bytes else {
            self.unknown.add([cgroup, point, fstype, io.path_class], io.calls);
            return;
        };
        if bytes == 0 {
            return;
        }
        self.bytes.add([cgroup, point, fstype, io.operation], bytes);
        if let Some(histogram) = io.size_histogram {
            let (buckets, _) = histogram.as_chunks();
            let below = |end| buckets.iter().take(end).map(|n| u64::from_le_bytes(*n)).sum();
            for (end, bound) in BOUNDS {
                self.sizes.add([cgroup, point, io.operation, bound], below(end));
            }
            self.sizes.add([cgroup, point, io.operation, "+Inf"], below(buckets.len()));
        }
    }
}

tipstaff::export!(IoMonitor: Io<'_>; settings = Rules);
