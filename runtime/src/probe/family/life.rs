//! fork, exec, exit, `thread_exit`.

use tipstaff_events::catalogue::{exec, exit, fork, thread_exit};

use super::{At, Family, Hook, Part, Rung, TASK};

pub(in super::super) static FAMILY: Family = Family {
    object: "life",
    parts: &[
        Part {
            kinds: &[fork::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung {
                hooks: &[Hook {
                    program: "fork_raw",
                    at: At::Raw { name: "sched_process_fork", passes: &[TASK, TASK] },
                }],
                lacks: None,
            }],
        },
        Part {
            kinds: &[exec::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung {
                hooks: &[Hook {
                    program: "exec_raw",
                    at: At::Raw {
                        name: "sched_process_exec",
                        passes: &[TASK, "pid_t", "struct linux_binprm *"],
                    },
                }],
                lacks: None,
            }],
        },
        Part {
            kinds: &[exit::KIND, thread_exit::KIND],
            fields: 0,
            without: None,
            ladder: &[
                // Since Linux 6.16 the tracepoint says itself which thread is the last one.
                Rung {
                    hooks: &[Hook {
                        program: "exit_told",
                        at: At::Raw { name: "sched_process_exit", passes: &[TASK, "bool"] },
                    }],
                    lacks: None,
                },
                Rung {
                    hooks: &[Hook {
                        program: "exit_counted",
                        at: At::Raw { name: "sched_process_exit", passes: &[TASK] },
                    }],
                    lacks: None,
                },
            ],
        },
    ],
    aggregates: None,
    maps: &[],
};
