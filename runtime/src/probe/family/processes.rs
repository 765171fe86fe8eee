//! What is known of the processes that aggregated kinds count by.

use tipstaff_events::{aggregate::PROCESSES, wire::Header};

use super::{At, Hook, Part, Rung, Sized, TASK};

const FORK: At<'static> = At::Raw { name: "sched_process_fork", passes: &[TASK, TASK] };

const EXEC: At<'static> =
    At::Raw { name: "sched_process_exec", passes: &[TASK, "pid_t", "struct linux_binprm *"] };

const MOVE: At<'static> = At::Raw {
    name: "cgroup_attach_task",
    passes: &["struct cgroup *", "const char *", TASK, "bool"],
};

/// Half as many processes as keys.
pub(super) const MAP: Sized =
    Sized { name: PROCESSES, of_keys: (1, 2), value: size_of::<Header>(), per_cpu: false };

/// A process begins: it may have the number of one that has ended.
pub(super) const fn begin(kinds: &'static [u16]) -> Part<'static> {
    Part {
        kinds,
        fields: 0,
        without: Some("a new process may be told by the name of one that had its number before"),
        ladder: &[Rung { hooks: &[Hook { program: "begin", at: At::Beside(&FORK) }], lacks: None }],
    }
}

/// A process runs a new program: its name changes, and perhaps its owner.
pub(super) const fn exec(kinds: &'static [u16]) -> Part<'static> {
    Part {
        kinds,
        fields: 0,
        without: Some("a process that runs a new program keeps its name"),
        ladder: &[Rung { hooks: &[Hook { program: "exec", at: At::Beside(&EXEC) }], lacks: None }],
    }
}

/// A process comes into another cgroup.
pub(super) const fn moved(kinds: &'static [u16]) -> Part<'static> {
    Part {
        kinds,
        fields: 0,
        without: Some("a process that comes into another cgroup is told by the one before"),
        ladder: &[Rung { hooks: &[Hook { program: "moved", at: At::Beside(&MOVE) }], lacks: None }],
    }
}
