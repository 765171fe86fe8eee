//! A live `strace -c` for the whole machine: system calls by process, with their errors and how long
//! they take.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Counters, Event, Gap, Known, On, Policy, Settings, errno, metrics};

#[derive(Event)]
#[event(kind = "syscall_stats", every = "5s")]
struct Calls<'a> {
    pid: u32,
    comm: &'a str,
    call: &'a str,
    abi: &'a str,
    errno: u16,
    count: u64,
    timed: Option<u64>,
    latency: Option<u64>,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

#[derive(Settings)]
struct Rules {
    /// What a process is told by: `comm` (the name of its first thread), `exe` (the file that it runs), or
    /// `pid` (its number and name).
    #[setting(default = "comm")]
    by: String,
    /// Processes that are told one by one. The others are counted together, as `other`.
    #[setting(default = 20)]
    processes: usize,
}

/// A process that has made no call for so long makes room for another.
const FORGET_NS: u64 = 600_000_000_000;

enum By {
    Comm,
    Exe,
    Pid,
}

struct SyscallProfile {
    by: By,
    calls: Counters<2>,
    errors: Counters<3>,
    timed: Counters<2>,
    latency: Counters<2>,
    lost: Counter,
    /// Processes that are told one by one.
    known: Known<String>,
}

impl Policy for SyscallProfile {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let rules = Rules::read(settings)?;
        let by = match rules.by.as_str() {
            "comm" => By::Comm,
            "exe" => By::Exe,
            "pid" => By::Pid,
            other => {
                return Err(format!("setting `by` is {other:?}, expected comm, exe or pid"));
            }
        };
        metrics::describe("syscalls_total", "System calls that returned.", "");
        metrics::describe("syscall_errors_total", "System calls that failed, by error.", "");
        metrics::describe("syscalls_timed_total", "System calls whose latency is known.", "");
        metrics::describe(
            "syscall_latency_nanoseconds_total",
            "Time from entry to return of the system calls in syscalls_timed_total.",
            "nanoseconds",
        );
        metrics::describe(
            "syscalls_lost_total",
            "System calls that were not counted by process, for want of room in the kernel's map.",
            "",
        );
        Ok(Self {
            by,
            calls: Counters::new("syscalls_total", ["process", "call"]),
            errors: Counters::new("syscall_errors_total", ["process", "call", "errno"]),
            timed: Counters::new("syscalls_timed_total", ["process", "call"]),
            latency: Counters::new("syscall_latency_nanoseconds_total", ["process", "call"]),
            lost: Counter::new("syscalls_lost_total", &[]),
            known: Known::new(rules.processes, FORGET_NS),
        })
    }

    fn lost(&mut self, gap: Gap) {
        self.lost.add(gap.lost);
    }
}

impl On<Calls<'_>> for SyscallProfile {
    fn on(&mut self, time_ns: u64, calls: Calls<'_>) {
        let name = match self.by {
            By::Comm => calls.comm.to_owned(),
            By::Exe => calls.exe.unwrap_or("unknown").to_owned(),
            By::Pid => format!("{} {}", calls.pid, calls.comm),
        };
        let process = if self.known.admits(&name, time_ns) { &name } else { "other" };
        // A call of the 32-bit table is another one, whatever its name.
        let compat = format!("{} (i386)", calls.call);
        let call = if calls.abi == "native" { calls.call } else { &compat };
        self.calls.add([process, call], calls.count);
        if calls.errno != 0 {
            let number = calls.errno.to_string();
            let errno = errno::name(calls.errno).unwrap_or(&number);
            self.errors.add([process, call, errno], calls.count);
        }
        if let (Some(timed), Some(latency)) = (calls.timed, calls.latency)
            && timed > 0
        {
            self.timed.add([process, call], timed);
            self.latency.add([process, call], latency);
        }
    }
}

tipstaff::export!(SyscallProfile: Calls<'_>; settings = Rules);
