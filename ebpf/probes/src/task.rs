//! Whose event it is: the header of a record, filled in as far as it was asked for.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task},
    },
};

use crate::{
    events::{
        catalogue::{WANT_CGROUP, WANT_CGROUP_V1, WANT_COMM, WANT_NS_PID, WANT_UID},
        wire::{HIDE_CHILDREN, Header},
    },
    kernel::{
        self, Pointer, cgroup, cgroup_root, css_set, kernfs_node, pid, signal_struct, task_struct,
        upid,
    },
    map,
};

/// Id of the v2 cgroup that all is about, with the cgroups below it; 0: all is about the whole
/// machine. Set by the runtime.
#[unsafe(export_name = "SCOPE")]
static SCOPE: Global<u64> = Global::new(0);
/// Levels of cgroups that are climbed to find the scope: what is deeper below it counts as outside.
const MAX_LEVELS: u32 = 64;

/// Thread group of the current task, in the initial pid namespace.
#[inline(always)]
#[must_use]
pub fn current_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Thread of the current task, in the initial pid namespace.
#[inline(always)]
#[must_use]
pub fn current_tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// The current `task_struct`.
#[inline(always)]
#[must_use]
pub fn current() -> Pointer {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task() as Pointer }
}

/// Whether the current task is a process's and not one of the kernel's own.
#[inline(always)]
#[must_use]
pub fn is_user() -> bool {
    task_struct::mm.read::<Pointer>(current()).is_some_and(|mm| !mm.is_null())
}

/// What is wanted of the kind for an event of the current process; `None` if nothing is, or the
/// process is hidden.
#[inline(always)]
pub fn wanted(kind: u16) -> Option<u64> {
    let word = map::wanted(kind);
    (word != 0 && !is_hidden()).then_some(word)
}

/// Whether the current process is not reported: outside the scope, hidden itself, or the child of one
/// that hides its children.
#[inline(always)]
#[must_use]
pub fn is_hidden() -> bool {
    is_hidden_process(current_pid(), current())
}

/// The same of a process, by any of its threads.
#[inline(always)]
#[must_use]
pub fn is_hidden_process(pid: u32, task: Pointer) -> bool {
    is_outside(task)
        || map::hidden(pid) != 0
        || parent(task).is_some_and(|parent| map::hidden(parent) == HIDE_CHILDREN)
}

/// Whether only what happens in one cgroup is reported.
#[inline(always)]
#[must_use]
pub fn has_scope() -> bool {
    SCOPE.load() != 0
}

/// Whether the task is in none of the cgroups that are reported.
#[inline(always)]
#[must_use]
pub fn is_outside(task: Pointer) -> bool {
    has_scope() && is_in_scope(task as u64) == 0
}

/// Whether the task's cgroup is the scope or below it: a function that the verifier checks by itself,
/// once, and not in each program at each place.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_in_scope(task: u64) -> u32 {
    let Some(mut node) = cgroup_node(task as Pointer) else { return 0 };
    let mut level = 0;
    while level < MAX_LEVELS {
        match kernfs_node::id.read::<u64>(node) {
            Some(id) if id == SCOPE.load() => return 1,
            Some(_) => {}
            None => return 0,
        }
        // The name changed with Linux 6.15.
        let parent = if kernfs_node::parent.exists() {
            kernfs_node::parent.read::<Pointer>(node)
        } else {
            kernfs_node::__parent.read(node)
        };
        match parent {
            Some(parent) if !parent.is_null() => node = parent,
            _ => return 0,
        }
        level += 1;
    }
    0
}

/// Directory of the task's cgroup in the v2 hierarchy.
#[inline(always)]
fn cgroup_node(task: Pointer) -> Option<Pointer> {
    let css_set: Pointer = task_struct::cgroups.read(task)?;
    cgroup::kn.read(css_set::dfl_cgrp.read(css_set)?)
}

/// Header of an event of the current task.
#[inline(always)]
pub fn header(kind: u16, word: u64) -> Header {
    let pid_tgid = bpf_get_current_pid_tgid();
    let mut header = Header {
        // SAFETY: no arguments.
        time: unsafe { bpf_ktime_get_ns() },
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        kind,
        ..Header::default()
    };
    if word & WANT_COMM != 0 {
        let mut comm = MaybeUninit::<[u8; 16]>::uninit();
        // SAFETY: the helper fills all of the 16 bytes, also where it fails.
        header.comm = unsafe {
            bpf_get_current_comm(comm.as_mut_ptr().cast(), 16);
            comm.assume_init()
        };
    }
    if word & WANT_UID != 0 {
        header.uid = bpf_get_current_uid_gid() as u32;
    }
    if word & WANT_CGROUP != 0 {
        // SAFETY: no arguments.
        header.cgroup = unsafe { bpf_get_current_cgroup_id() };
    }
    if word & (WANT_CGROUP_V1 | WANT_NS_PID) != 0 {
        let task = current();
        if word & WANT_CGROUP_V1 != 0 {
            header.cgroup_v1 = cgroup_v1(task).unwrap_or(0);
        }
        if word & WANT_NS_PID != 0 {
            header.ns_pid = ns_pid(task).unwrap_or(0);
        }
    }
    header
}

/// Header of an event of another task.
#[inline(always)]
pub fn header_of(task: Pointer, kind: u16, word: u64) -> Header {
    let mut header = Header {
        // SAFETY: no arguments.
        time: unsafe { bpf_ktime_get_ns() },
        pid: task_struct::tgid.read(task).unwrap_or(0),
        tid: task_struct::pid.read(task).unwrap_or(0),
        kind,
        ..Header::default()
    };
    if word & WANT_COMM != 0 {
        header.comm = task_struct::comm.read(task).unwrap_or_default();
    }
    if word & WANT_UID != 0 {
        header.uid = uid(task).unwrap_or(0);
    }
    if word & WANT_CGROUP != 0 {
        header.cgroup = cgroup_v2(task).unwrap_or(0);
    }
    if word & WANT_CGROUP_V1 != 0 {
        header.cgroup_v1 = cgroup_v1(task).unwrap_or(0);
    }
    if word & WANT_NS_PID != 0 {
        header.ns_pid = ns_pid(task).unwrap_or(0);
    }
    header
}

/// Real user in the initial user namespace.
#[inline(always)]
pub fn uid(task: Pointer) -> Option<u32> {
    kernel::cred::uid.read(task_struct::real_cred.read(task)?)
}

/// Real group in the initial user namespace.
#[inline(always)]
pub fn gid(task: Pointer) -> Option<u32> {
    kernel::cred::gid.read(task_struct::real_cred.read(task)?)
}

/// Start of the process since boot.
#[inline(always)]
pub fn start(task: Pointer) -> Option<u64> {
    task_struct::start_boottime.read(task_struct::group_leader.read(task)?)
}

/// Parent process in the initial pid namespace.
#[inline(always)]
pub fn parent(task: Pointer) -> Option<u32> {
    task_struct::tgid.read(task_struct::real_parent.read(task)?)
}

/// Thread group in the task's own pid namespace.
#[inline(always)]
pub fn ns_pid(task: Pointer) -> Option<u32> {
    let signal: Pointer = task_struct::signal.read(task)?;
    let pids = signal_struct::pids.of(signal)?;
    let index = kernel::value::PIDTYPE_TGID.get()?;
    number_in_own_namespace(kernel::read(pids.wrapping_byte_add(index * size_of::<u64>()))?)
}

/// Number of a `struct pid` in the innermost pid namespace that it is in.
#[inline(always)]
fn number_in_own_namespace(struct_pid: Pointer) -> Option<u32> {
    let level: u32 = pid::level.read(struct_pid)?;
    let numbers = pid::numbers.of(struct_pid)?;
    upid::nr.read(numbers.wrapping_byte_add(level as usize * kernel::size::upid.get()?))
}

/// Id of the task's cgroup in the v2 hierarchy.
#[inline(always)]
pub fn cgroup_v2(task: Pointer) -> Option<u64> {
    kernfs_node::id.read(cgroup_node(task)?)
}

/// Id of the task's cgroup in the v1 memory hierarchy, if the memory controller is on one.
#[inline(always)]
pub fn cgroup_v1(task: Pointer) -> Option<u64> {
    let css_set: Pointer = task_struct::cgroups.read(task)?;
    let subsys = css_set::subsys.of(css_set)?;
    let index = kernel::value::memory_cgrp_id.get()?;
    let state: Pointer = kernel::read(subsys.wrapping_byte_add(index * size_of::<u64>()))?;
    let group: Pointer = kernel::cgroup_subsys_state::cgroup.read(state)?;
    let root: Pointer = cgroup::root.read(group)?;
    // Number 0 is the v2 hierarchy.
    (cgroup_root::hierarchy_id.read::<i32>(root)? != 0).then(|| cgroup_id(group))?
}

#[inline(always)]
fn cgroup_id(group: Pointer) -> Option<u64> {
    kernfs_node::id.read(cgroup::kn.read(group)?)
}
