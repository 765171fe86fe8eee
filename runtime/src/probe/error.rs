//! What can go wrong with probes, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::guard::TableError;

/// See the variants. A hook that does not work is not an error: it is in the
/// [`Report`](super::Report), and the next one of its ladder is tried.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The agent was built without objects.
    #[error(
        "this program was built without eBPF probes ({missing}); run tools/setup.sh and build again"
    )]
    NotBuilt {
        /// What the build did not find.
        missing: &'static str,
    },
    /// A capability is missing.
    #[error(
        "loading eBPF programs needs {capability}, which this process does not have; run as root \
         (CAP_BPF and CAP_PERFMON are not enough: the maps that probes share are in a bpffs of their own)"
    )]
    NotPermitted {
        /// The capability.
        capability: &'static str,
    },
    /// The kernel keeps its memory from eBPF programs.
    #[error(
        "the kernel is locked down for confidentiality, which keeps its memory from eBPF programs; \
         probes work with lockdown=integrity on the kernel's command line"
    )]
    LockedDown,
    /// Maps count as locked memory, and there may be too little of it.
    #[error(
        "{source}; the limit on locked memory, {limit} bytes, cannot be lifted, and before Linux 5.11 \
         maps count: run with CAP_SYS_RESOURCE, or with LimitMEMLOCK=infinity (systemd), or after \
         `ulimit -l unlimited`"
    )]
    LockedMemory {
        /// What did not work.
        source: Box<ProbeError>,
        /// The limit.
        limit: u64,
    },
    /// The kernel has no BTF.
    #[error(
        "cannot read {path}: {source}; probes need a kernel with CONFIG_DEBUG_INFO_BTF, and sysfs mounted at /sys",
        path = path.display()
    )]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's BTF cannot be read.
    #[error("{path} is malformed, or of a newer format than this program knows", path = path.display())]
    MalformedBtf {
        /// The file.
        path: PathBuf,
    },
    /// No tracefs.
    #[error(
        "tracefs is not mounted and cannot be mounted privately: {source}; \
         probes on tracepoints need it: mount -t tracefs tracefs /sys/kernel/tracing"
    )]
    NoTracefs {
        /// Why mounting did not work.
        source: io::Error,
    },
    /// No bpffs.
    #[error(
        "cannot make a private bpffs for shared maps: {source}; it needs CAP_SYS_ADMIN and Linux 5.2 or newer"
    )]
    NoBpffs {
        /// Why not.
        source: io::Error,
    },
    /// An object does not load.
    #[error("the eBPF object {object} does not load: {source}")]
    Object {
        /// Name of the object.
        object: String,
        /// What aya says.
        source: Box<aya::EbpfError>,
    },
    /// Something is wrong with one of the maps.
    #[error("the eBPF map {map}: {reason}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The rings cannot be waited for.
    #[error("cannot wait for the eBPF rings: {source}")]
    Epoll {
        /// Why not.
        source: io::Error,
    },
    /// The reader cannot be told of records that this process makes itself.
    #[error("cannot make what the reader is woken by: {source}")]
    Handover {
        /// Why not.
        source: io::Error,
    },
    /// The program that tells who we are does not run.
    #[error("cannot learn this process's id as eBPF sees it: {reason}")]
    Handshake {
        /// What is wrong.
        reason: String,
    },
    /// /proc belongs to another pid namespace than the one that eBPF sees.
    #[error(
        "eBPF sees this process as {seen}, but /proc/self is {listed}: processes could not be told apart; \
         run in the host's pid namespace, or mount the host's /proc"
    )]
    ForeignProc {
        /// Thread group id that eBPF sees.
        seen: u32,
        /// What /proc/self points at.
        listed: String,
    },
    /// A tracepoint from the configuration cannot be a kind.
    #[error("tracepoint {spec}: {reason}")]
    Tracepoint {
        /// CATEGORY:NAME, as configured.
        spec: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A guard cannot be set up.
    #[error("cannot guard the cgroup {cgroup}: {reason}", cgroup = cgroup.display())]
    Guard {
        /// Directory of the cgroup.
        cgroup: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A guard's table does not fit into the kernel's maps.
    #[error("the table of the cgroup {cgroup}: {source}", cgroup = cgroup.display())]
    Table {
        /// Directory of the cgroup.
        cgroup: PathBuf,
        /// What is wrong.
        source: Box<TableError>,
    },
}
