//! The built-in event kinds. A new kind is written here, and nowhere else described again.

use crate::{Field, Kind, Ring, Role, Type, wire};
use wire::{Header, Text};

/// The struct of a kind's record.
pub trait Record: Copy {
    /// Number of the kind.
    const KIND: u16;
    /// Ring that its records travel in, unless an enforcing policy waits for them.
    const RING: Ring;
}

/// Bit of `comm` in [`wire::WANTED`].
pub const WANT_COMM: u64 = 1 << wire::COMMON_SHIFT;
/// Bit of `cgroup` in [`wire::WANTED`].
pub const WANT_CGROUP: u64 = 2 << wire::COMMON_SHIFT;
/// Bit of `cgroup_v1` in [`wire::WANTED`].
pub const WANT_CGROUP_V1: u64 = 4 << wire::COMMON_SHIFT;
/// Bit of `ns_pid` in [`wire::WANTED`].
pub const WANT_NS_PID: u64 = 8 << wire::COMMON_SHIFT;
/// Bit of `uid` in [`wire::WANTED`].
pub const WANT_UID: u64 = 16 << wire::COMMON_SHIFT;

common! {
    /// Time of the event on the kernel's monotonic clock, which stands still during suspend.
    time: U64, "ns", 0;
    /// Process (thread group id) in the initial pid namespace.
    pid: U32, "", 0;
    /// Thread in the initial pid namespace.
    tid: U32, "", 0;
    /// Process in its own pid namespace.
    ns_pid: U32, "", WANT_NS_PID;
    /// Command name of the thread, at most 15 bytes.
    comm: Comm, "", WANT_COMM;
    /// Real user in the initial user namespace.
    uid: U32, "", WANT_UID;
    /// Id of the cgroup in the v2 hierarchy (the inode of its directory).
    cgroup: U64, "", WANT_CGROUP;
    /// Id of the cgroup in the v1 memory hierarchy; 0 where there is none.
    cgroup_v1: U64, "", WANT_CGROUP_V1;
}

/// What became of the file behind a path.
pub static FILE_STATE: &[&str] = &["present", "deleted", "memfd", "unreachable", "not_a_file"];
/// The way by which a call reached the kernel.
pub static VIA: &[&str] = &["syscall", "compat", "io_uring"];
/// Address families.
pub static FAMILY: &[&str] = &["other", "unix", "inet", "inet6"];
/// Transport protocols.
pub static PROTOCOL: &[&str] = &["other", "tcp", "udp", "icmp", "unix"];
/// What became of a connection attempt.
pub static OUTCOME: &[&str] =
    &["none", "established", "refused", "timed_out", "unreachable", "reset", "pending", "aborted"];
/// Where a signal comes from.
pub static SIGNAL_ORIGIN: &[&str] = &["user", "kernel"];
/// What became of a signal.
pub static SIGNAL_RESULT: &[&str] =
    &["delivered", "ignored", "already_pending", "overflow_fail", "lose_info"];
/// The table of system calls that a number is of.
pub static ABI: &[&str] = &["native", "i386"];
/// Operations on sockets that a guard decides about.
pub static OPERATION: &[&str] = &["connect", "send", "bind"];
/// What a guard did, or would have done if it were not in audit.
pub static VERDICT: &[&str] = &["denied", "would_deny"];
/// What became of a DNS query.
pub static DNS_VERDICT: &[&str] = &[
    "allow",
    "refuse",
    "allow_on_timeout",
    "refuse_on_timeout",
    "refuse_malformed",
    "refuse_unsupported",
    "refuse_overload",
    "refuse_server",
];
/// What is done to a file.
pub static IO_OPERATION: &[&str] =
    &["read", "write", "open", "create", "mkdir", "unlink", "rmdir", "submit", "map"];
/// The way that bytes go.
pub static PATH_CLASS: &[&str] =
    &["syscall", "vector", "aio", "io_uring", "splice", "sendfile", "copy_range", "mmap"];
/// What a file is.
pub static FILE_TYPE: &[&str] =
    &["unknown", "regular", "directory", "block", "char", "pipe", "socket", "link"];
/// Who opened a connection.
pub static DIRECTION: &[&str] = &["unknown", "outgoing", "incoming"];

kinds! {
    /// A process was created. The event's process is the parent; new threads are not reported.
    Fork fork = 1 in Life, pad 0 {
        /// Start of the child, on the clock that counts suspend; with the pid the key of a process.
        child_start: U64, "ns since boot";
        /// The child, in the initial pid namespace.
        child_pid: U32, "";
        /// The child, in its own pid namespace.
        child_ns_pid: U32, "";
    }
    /// A process runs a new program. Failed attempts are not reported.
    Exec exec = 2 in Life, pad 3 {
        /// Start of the process, on the clock that counts suspend; with the pid the key of a process.
        start: U64, "ns since boot";
        /// Absolute path of the file that runs (for a script: its interpreter), as in
        /// `/proc/PID/exe` but resolved in the caller's root.
        path: Text, "";
        /// The path that the call passed. For `fexecve` this is `/dev/fd/N`.
        path_given: Text, "";
        /// The script, where a script is run; the working directory is put before a relative path.
        script: Text, "";
        /// The arguments as the new program sees them, each ended by a NUL, 8,192 bytes at most.
        args: List, "";
        /// Length of all arguments in bytes, also where `args` was cut.
        args_size: U32, "bytes";
        /// The parent process in the initial pid namespace.
        ppid: U32, "";
        /// Real group in the initial user namespace.
        gid: U32, "";
        /// Whether the file still has a name: `deleted`, or `memfd` for one that never had any.
        file_state: Name(FILE_STATE), "";
    }
    /// The last thread of a process ended: one event per process.
    Exit exit = 3 in Life, pad 4 {
        /// Start of the process, on the clock that counts suspend; with the pid the key of a process.
        start: U64, "ns since boot";
        /// Time from start to end.
        run_time: U64, "ns";
        /// Exit code, 0 to 255; 0 if a signal ended the process.
        code: U32, "";
        /// Signal that ended the process, or 0.
        signal: U32, "signal number";
        /// The parent process in the initial pid namespace.
        ppid: U32, "";
    }
    /// A thread ended, also the last one of its process.
    ThreadExit thread_exit = 4 in Bulk, pad 0 {
        /// Time from start to end of the thread.
        run_time: U64, "ns";
        /// Exit code, 0 to 255.
        code: U32, "";
        /// Signal that ended the thread, or 0.
        signal: U32, "signal number";
    }
    /// A signal was sent. The event's process is the sender, or what ran when the kernel sent it.
    Signal signal = 5 in Bulk, pad 6 {
        /// Process that the signal is for.
        target_pid: U32, "";
        /// Thread that was chosen to look at it.
        target_tid: U32, "";
        /// The signal.
        number: U32, "signal number";
        /// `si_code` of the signal.
        code: I32, "";
        /// Whether a process sent it or the kernel did by itself, by its `code`. A process can choose
        /// any code up to 0: with -2 to -5, which the kernel uses itself (timers, message queues,
        /// asynchronous I/O, SIGIO), its signals pass for the kernel's.
        origin: Name(SIGNAL_ORIGIN), "";
        /// What became of it at once.
        result: Name(SIGNAL_RESULT), "";
    }
    /// The out-of-memory killer chose a victim. The event's process is the victim.
    Oom oom = 6 in Bulk, pad 0 {
        /// Address space of the victim.
        total_vm: U64, "bytes";
        /// Resident anonymous memory.
        anon_rss: U64, "bytes";
        /// Resident file pages.
        file_rss: U64, "bytes";
        /// Resident shared memory.
        shmem_rss: U64, "bytes";
        /// Page tables.
        pgtables: U64, "bytes";
        /// Process whose allocation led to this.
        trigger_pid: U32, "";
        /// The victim's `oom_score_adj`.
        oom_score_adj: I32, "";
    }
    /// A file was opened, or an attempt failed (open, openat, openat2, creat, `open_by_handle_at`;
    /// also by the 32-bit table and by `io_uring`, whose requests keep 1,024 bytes of a given path).
    Open open = 10 in Bulk, pad 2 {
        /// Absolute path of the open file, resolved in the caller's root. After a failure: the given
        /// path behind the directory that it starts from, symbolic links and `..` not resolved. A
        /// path that does not begin with `/` is not whole: `file_state` says why.
        path: Text, "";
        /// The path that the call passed, as it is in memory when the call returns.
        path_given: Text, "";
        /// Flags of the call (`O_*`).
        flags: U32, "O_* bits";
        /// Mode for a file that is created; absent where the call creates none.
        mode: U32, "permission bits";
        /// The descriptor, or a negative errno. `EINTR` also if the call is then started again. Absent
        /// where a request of `io_uring` asked not to be told of success.
        result: I32, "errno if negative";
        /// `present`; `deleted`: the path is the one that it had; `memfd`: the path is `memfd:NAME`;
        /// `unreachable`: no way leads there from the caller's root, or none of 256 levels, and the
        /// path is its known end; `not_a_file`: a pipe, a socket or the like, the path is the kernel's
        /// name for it and often empty. Absent after a failure.
        file_state: Name(FILE_STATE), "";
        /// How the call reached the kernel.
        via: Name(VIA), "";
    }
    /// A name was removed, or an attempt failed (unlink, unlinkat, rmdir).
    Unlink unlink = 11 in Bulk, pad 2 {
        /// The given path behind the directory that it starts from, in the caller's root; symbolic
        /// links and `..` are not resolved.
        path: Text, "";
        /// The path that the call passed, as it is in memory when the call returns.
        path_given: Text, "";
        /// 0, or a negative errno.
        result: I32, "errno if negative";
        /// 1 if a directory was to be removed.
        directory: U8, "";
        /// How the call reached the kernel.
        via: Name(VIA), "";
    }
    /// A name was changed, or an attempt failed (rename, renameat, renameat2).
    Rename rename = 12 in Bulk, pad 7 {
        /// The old given path behind the directory that it starts from, in the caller's root;
        /// symbolic links and `..` are not resolved.
        path: Text, "";
        /// The old path that the call passed.
        path_given: Text, "";
        /// The new given path behind the directory that it starts from, likewise.
        new_path: Text, "";
        /// The new path that the call passed.
        new_path_given: Text, "";
        /// Flags of the call (`RENAME_*`).
        flags: U32, "RENAME_* bits";
        /// 0, or a negative errno.
        result: I32, "errno if negative";
        /// How the call reached the kernel.
        via: Name(VIA), "";
    }
    /// A socket was connected, or an attempt failed. For TCP the event comes when the call has returned
    /// and the outcome is known, with the time of the later of the two. MPTCP counts as TCP.
    Connect connect = 13 in Bulk, pad 0 {
        /// Time from the first packet of the attempt to its outcome; TCP only, and absent where no
        /// packet was sent.
        latency: U64, "ns";
        /// Address to connect to; where TCP sent a packet the one that it went to.
        address: Address, "";
        /// Local address, where it is known.
        local_address: Address, "";
        /// Path of a unix socket; an abstract one begins with `@`.
        unix_path: Text, "";
        /// What the call returned: 0, or a negative errno (`EINPROGRESS` for a non-blocking socket;
        /// `EINTR` also if the call was then started again). Absent where no call connected: TCP Fast
        /// Open, and connections of the kernel's own, which are reported when they are closed.
        result: I32, "errno if negative";
        /// Port to connect to.
        port: U16, "";
        /// Local port, where it is known.
        local_port: U16, "";
        /// Address family.
        family: Name(FAMILY), "";
        /// Transport protocol.
        protocol: Name(PROTOCOL), "";
        /// What became of the attempt. `aborted`: given up by the process; `pending`: not known, as
        /// this kernel does not tell, or as this call only learned that an earlier one is under way
        /// (`EALREADY`); `none`: not TCP, or nothing was attempted, or this call only asked how an
        /// earlier one ended, which had `EINPROGRESS` and has an event of its own with the outcome
        /// (known of the last 8,192 sockets; of others it has the outcome again). While 8,192 attempts
        /// are under way, further ones whose call does not say what became of them count as lost.
        outcome: Name(OUTCOME), "";
        /// How the call reached the kernel.
        via: Name(VIA), "";
    }
    /// A connection was accepted, or an attempt failed (accept, accept4; also by the 32-bit table and
    /// by `io_uring`).
    Accept accept = 14 in Bulk, pad 1 {
        /// Address of the peer.
        address: Address, "";
        /// Local address.
        local_address: Address, "";
        /// Path that a unix socket listens on; an abstract one begins with `@`.
        unix_path: Text, "";
        /// The descriptor, or a negative errno.
        result: I32, "errno if negative";
        /// Port of the peer.
        port: U16, "";
        /// Local port.
        local_port: U16, "";
        /// Address family.
        family: Name(FAMILY), "";
        /// Transport protocol.
        protocol: Name(PROTOCOL), "";
        /// How the call reached the kernel.
        via: Name(VIA), "";
    }
    /// A socket was set to listen, or an attempt failed.
    Listen listen = 15 in Bulk, pad 7 {
        /// Local address.
        address: Address, "";
        /// Path that a unix socket listens on; an abstract one begins with `@`.
        unix_path: Text, "";
        /// 0, or a negative errno.
        result: I32, "errno if negative";
        /// The backlog that was asked for.
        backlog: I32, "connections";
        /// Local port.
        port: U16, "";
        /// Address family.
        family: Name(FAMILY), "";
        /// Transport protocol.
        protocol: Name(PROTOCOL), "";
        /// How the call reached the kernel.
        via: Name(VIA), "";
    }
    /// A TCP connection that had been established was closed, by either side; data that still comes
    /// afterwards is not counted. The event's process is the one that connected or accepted; its
    /// `pid` is 0 where that was not seen (older than the agent, never accepted, or one of more than
    /// 32,768 at the same time). Of MPTCP each subflow is a connection; those that the kernel adds
    /// have no process.
    TcpClose tcp_close = 16 in Bulk, pad 2 {
        /// Start of the process, on the clock that counts suspend; with the pid the key of a process.
        /// It may have ended since, and its pid be that of another. Absent where `pid` is 0.
        start: U64, "ns since boot";
        /// Bytes sent and acknowledged by the peer; 1 too many for an outgoing connection that is
        /// older than the agent.
        bytes_sent: U64, "bytes";
        /// Bytes received.
        bytes_received: U64, "bytes";
        /// Time since the connection was established; absent where that was not seen.
        duration: U64, "ns";
        /// Address of the peer.
        address: Address, "";
        /// Local address.
        local_address: Address, "";
        /// Port of the peer.
        port: U16, "";
        /// Local port.
        local_port: U16, "";
        /// Address family.
        family: Name(FAMILY), "";
        /// Which side opened the connection, seen from here.
        direction: Name(DIRECTION), "";
    }
    /// An operation on a socket that a guard denied, or in audit would have denied. The event's process is
    /// the one that made the call. At most about 100 events in a second for each rule: all are counted, and
    /// so are those that were not told.
    Denied denied = 17 in Bulk, pad 2 {
        /// Id of the cgroup that the guard is for: that of the process, or one above it.
        scope: U64, "";
        /// Address of the peer, for `bind` the local one. Where a call names none (0.0.0.0 or ::) the one
        /// that the kernel takes it for.
        address: Address, "";
        /// Number of the guard: which policy's, in which scope.
        guard: U32, "";
        /// Index of the rule in the policy's table; 4294967295: no rule, but the table's default.
        rule: U32, "";
        /// Port of the peer, for `bind` the local one.
        port: U16, "";
        /// What was tried; `send` is sending by UDP to an address that the call names.
        operation: Name(OPERATION), "";
        /// Address family that the call named.
        family: Name(FAMILY), "";
        /// Transport protocol.
        protocol: Name(PROTOCOL), "";
        /// Whether it failed, or would have.
        verdict: Name(VERDICT), "";
    }
    /// System calls that returned since the tick before, added up by what is asked for. `exit` and
    /// `exit_group`, which do not return, count when the thread ends; what else does not return (a
    /// thread killed by seccomp within a call) does not count. What a new process or thread returns
    /// from `fork`, `clone` and the like is no call of its own. Common fields are those of the process:
    /// `tid` is its `pid` and `comm` that of its first thread. Without `number`, `call` and `abi` the
    /// calls are not told apart, nor without `errno` the errors.
    SyscallStats syscall_stats = 20 in Bulk, pad 3 {
        /// How many calls.
        count: U64, "calls", sum;
        /// How many of them have a latency: those that began after it was first asked for.
        timed: U64, "calls", sum;
        /// Time from entry to return, of those.
        latency: U64, "ns", sum;
        /// The shortest of them.
        latency_least: U64, "ns", least;
        /// The longest of them.
        latency_greatest: U64, "ns", greatest;
        /// How long they took.
        latency_histogram: Histogram, "ns", sum;
        /// Name of the call; `syscall_N` for a number that has none.
        call: Text, "";
        /// Number of the call; 32767 for what is above.
        number: U16, "";
        /// The error; 0 for success. A call that a signal interrupted has `EINTR`.
        errno: U16, "errno";
        /// The table that `number` is of; calls by `int 0x80` and of 32-bit programs have their own.
        abi: Name(ABI), "";
    }
    /// What the scheduler did with the threads of a process since the tick before, also with those of
    /// the kernel. A switch counts for who leaves the processor, when it leaves it; a wait counts when
    /// it is over and the thread runs. Common fields are those of the process: `tid` is its `pid` and
    /// `comm` that of its first thread.
    SchedStats sched_stats = 21 in Bulk, pad 4 {
        /// Times that a thread gave up its processor: what `voluntary_ctxt_switches` in
        /// `/proc/PID/task/*/status` counts.
        voluntary: U64, "switches", sum;
        /// Times that a thread was taken from it: what `nonvoluntary_ctxt_switches` counts.
        involuntary: U64, "switches", sum;
        /// Times that a thread was moved to another processor: what `se.nr_migrations` in
        /// `/proc/PID/task/*/sched` counts. perf's software counter has at most one for each time that
        /// the thread runs.
        migrations: U64, "migrations", sum;
        /// Times that a thread began to run whose wait is known: all, but the first one of those that
        /// waited already when this was first asked for, and those of threads beyond two for each key
        /// that there is room for.
        runs: U64, "runs", sum;
        /// Time that threads were ready to run and did not, before these runs.
        queued: U64, "ns", sum;
        /// Time that threads slept or waited for something else than a processor, before these runs.
        /// `queued` and `blocked` together are the time off the processor.
        blocked: U64, "ns", sum;
        /// The part of `blocked` in which no signal could wake them: mostly waits for storage and locks
        /// within the kernel.
        uninterruptible: U64, "ns", sum;
        /// How long threads were ready before they ran, each time.
        queued_histogram: Histogram, "ns", sum;
    }
    /// Input and output of files that returned since the tick before, added up by what is asked for. A
    /// call counts when it returns, a request of `io_uring` when it completes and its process's queue
    /// has room to say so. `sendfile`, `splice` and `copy_file_range` count as a read of one file and a write of
    /// the other. Bytes are those that calls say that they moved: what the page cache and the storage
    /// make of it is something else. What `io_submit` (aio) and memory that is mapped to a file move is
    /// not known: their rows say how often, and have no `bytes`.
    IoStats io_stats = 22 in Bulk, pad 3 {
        /// How many calls or requests; of aio the requests that were submitted, of `mmap` the
        /// mappings of files that were made.
        calls: U64, "calls", sum;
        /// Bytes that were read or written. Absent where that is not known, which is not 0.
        bytes: U64, "bytes", sum;
        /// Number of the mount in `/proc/PID/mountinfo`; absent where it is not known: after a failed
        /// `open`, for `mkdir`, `unlink` and `rmdir`, and where `io_uring` opens.
        mount: U32, "";
        /// Major number of the file system's device; 0 for one without storage.
        device_major: U32, "";
        /// Minor number of the file system's device.
        device_minor: U32, "";
        /// Bytes of each call that moved any.
        size_histogram: Histogram, "bytes", sum;
        /// Where the file system is mounted, as the process sees it. Absent where `mount` is, and where
        /// nobody can be asked any more (the process has ended, and nobody else has its mounts).
        mountpoint: Text, "";
        /// Type of the file system, as in `ext4`. Absent where `mountpoint` is.
        fstype: Text, "";
        /// The error; 0 for success, also at the end of a file. A call that was interrupted has `EINTR`.
        errno: U16, "errno";
        /// What was done. `create` is an `open` that may make a file; `submit`: requests of aio that
        /// read or write; `map`: a file was mapped.
        operation: Name(IO_OPERATION), "";
        /// The way that the bytes went.
        path_class: Name(PATH_CLASS), "";
        /// What the file is; `unknown` where `mount` is absent, and for descriptors that are none.
        file: Name(FILE_TYPE), "";
    }
    /// A DNS query came from a scope with a DNS guard, and it was decided whether it goes on. The event's
    /// process is the one that connected the socket, or where it is not connected the last one that sent
    /// by it; `tid` likewise. Comes from the guard's proxy, with the time of the decision.
    DnsQuery dns_query = 40 in Bulk, pad 2 {
        /// Time from when the proxy read the query to the decision.
        decision_time: U64, "ns";
        /// Server that the query was sent to.
        address: Address, "";
        /// The name, in lower case, without the last dot; `.` for the root. A dot or backslash within a
        /// label has a backslash in front, a byte that is not printable ASCII is `\\DDD` in decimal.
        /// Absent where the query could not be read.
        name: Text, "";
        /// Type of the records asked for, as `A`, `AAAA`, `MX`, or `TYPE65400` for one without a name.
        record_type: Text, "";
        /// Number of the guard whose table decided, the first one of several: which policy's, in which
        /// scope; 0: none did.
        guard: U32, "";
        /// Index of the rule among those about names in that table; 4294967295: no rule, but the table's
        /// default.
        rule: U32, "";
        /// Port of the server.
        port: U16, "";
        /// Transaction id.
        id: U16, "";
        /// Transport protocol.
        protocol: Name(PROTOCOL), "";
        /// What was decided, and why: by a table, as it was not decided in time, as the message is no
        /// query that can be read (`malformed`) or asks for something else than records (`unsupported`),
        /// as too many are under way (`overload`), or as a table denies the server's address (`server`).
        verdict: Name(DNS_VERDICT), "";
    }
    /// An answer to a DNS query that was let through (`dns_query`), with the same process.
    DnsAnswer dns_answer = 41 in Bulk, pad 4 {
        /// Time from when the query was sent on to its answer.
        latency: U64, "ns";
        /// Server that the answer is from.
        address: Address, "";
        /// The name that was asked for, as in `dns_query`.
        name: Text, "";
        /// Type of the records that were asked for.
        record_type: Text, "";
        /// The first 16 addresses that the name has, each ended by a NUL; those of the names that it stands
        /// for (CNAME) are its own.
        addresses: List, "";
        /// How many addresses it has.
        address_count: U32, "";
        /// The shortest time for which one of them, or a name on the way there, may be kept.
        ttl: U32, "s";
        /// Port of the server.
        port: U16, "";
        /// Transaction id.
        id: U16, "";
        /// Response code: 0 no error, 2 the server failed, 3 there is no such name, 5 refused.
        rcode: U16, "DNS response code";
        /// 1 if the answer did not fit and is asked for again by TCP.
        truncated: U8, "";
        /// Transport protocol.
        protocol: Name(PROTOCOL), "";
    }
    /// A cgroup made more events than its budget (`events_per_cgroup` in `[agent]`), and some were left
    /// out: a gap says of which kinds. Told once a second while it lasts, with the cgroup in `cgroup`,
    /// and no process.
    CgroupBudget cgroup_budget = 42 in Bulk, pad 0 {
        /// Events of all kinds that were left out since the event before of this cgroup.
        left_out: U64, "";
        /// Path of the cgroup below its mount. Absent where it is gone already.
        path: Text, "";
        /// The budget.
        per_second: U32, "events per second";
    }
    /// The agent used more processor time than `cpu_percent` in `[agent]`, and takes fewer events of a
    /// kind from now on; or it takes more of them again. Has no process.
    AgentBudget agent_budget = 43 in Bulk, pad 0 {
        /// The kind.
        event: Text, "";
        /// Of so many events that policies ask for one is taken from now on; 1: all are.
        every: U32, "";
        /// What the agent, with its programs in the kernel, used until now.
        used: U32, "1/1000 of a core";
        /// What it may use.
        allowed: U32, "1/1000 of a core";
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_ascend_and_stay_below_the_runtime_kinds() {
        assert!(KINDS.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(KINDS.iter().all(|kind| kind.id < wire::FIRST_RUNTIME_KIND));
    }

    #[test]
    fn names_are_unique_in_each_kind_with_the_common_fields() {
        for kind in KINDS {
            let mut seen = HashSet::new();
            for field in COMMON.iter().chain(kind.fields) {
                assert!(seen.insert(field.name), "{} has two fields {}", kind.name, field.name);
            }
        }
    }

    #[test]
    fn fields_lie_in_the_record_one_behind_the_other() {
        for kind in KINDS {
            let mut end = size_of::<Header>();
            for field in kind.fields {
                assert_eq!(usize::from(field.offset), end, "{}.{}", kind.name, field.name);
                end += field.ty.size();
            }
            assert!(usize::from(kind.size) - end < 8, "{}", kind.name);
        }
    }

    #[test]
    fn own_bits_stay_below_the_common_ones() {
        for kind in KINDS {
            assert!(
                kind.fields
                    .iter()
                    .all(|field| field.wanted < 1 << wire::COMMON_SHIFT && field.wanted != 0)
            );
        }
    }
}
