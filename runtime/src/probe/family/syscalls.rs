//! `syscall_stats`: calls are counted by one object, and measured by another when somebody asks for how
//! long they take.

use tipstaff_events::{
    aggregate::{CALLS, ENTERED, LATENCIES, Latency},
    catalogue::syscall_stats,
};

use super::{At, Family, Hook, Part, Rung, SYS_EXIT, Sized, TASK, processes};

/// Before and since Linux 6.16.
const EXIT_BEFORE: At<'static> = At::Typed { name: "sched_process_exit", passes: &[TASK] };
const EXIT: At<'static> = At::Typed { name: "sched_process_exit", passes: &[TASK, "bool"] };
const RAW_EXIT_BEFORE: At<'static> = At::Raw { name: "sched_process_exit", passes: &[TASK] };
const RAW_EXIT: At<'static> = At::Raw { name: "sched_process_exit", passes: &[TASK, "bool"] };
const ENTER: At<'static> = At::Raw { name: "sys_enter", passes: &["struct pt_regs *", "long int"] };

const TIMED_FIELDS: u32 = syscall_stats::timed
    | syscall_stats::latency
    | syscall_stats::latency_least
    | syscall_stats::latency_greatest
    | syscall_stats::latency_histogram;

pub(in super::super) static COUNTED: Family = Family {
    object: "syscalls",
    parts: &[
        Part {
            kinds: &[syscall_stats::KIND],
            fields: 0,
            without: Some("`exit` and `exit_group` are not counted"),
            ladder: &[
                Rung { hooks: &[Hook { program: "count_ends", at: EXIT }], lacks: None },
                Rung { hooks: &[Hook { program: "count_ends", at: EXIT_BEFORE }], lacks: None },
            ],
        },
        Part {
            kinds: &[syscall_stats::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung { hooks: &[Hook { program: "count", at: SYS_EXIT }], lacks: None }],
        },
        processes::begin(&[syscall_stats::KIND]),
        processes::moved(&[syscall_stats::KIND]),
    ],
    aggregates: Some(syscall_stats::KIND),
    maps: &[
        processes::MAP,
        Sized { name: CALLS, of_keys: (1, 1), value: size_of::<u64>(), per_cpu: true },
    ],
};

pub(in super::super) static TIMED: Family = Family {
    object: "syscalls_timed",
    parts: &[Part {
        kinds: &[syscall_stats::KIND],
        fields: TIMED_FIELDS,
        without: Some("latencies are not measured"),
        ladder: &[
            Rung {
                hooks: &[
                    Hook { program: "forget", at: At::Beside(&RAW_EXIT) },
                    Hook { program: "measure", at: At::Beside(&SYS_EXIT) },
                    Hook { program: "enter", at: At::Beside(&ENTER) },
                ],
                lacks: None,
            },
            Rung {
                hooks: &[
                    Hook { program: "forget", at: At::Beside(&RAW_EXIT_BEFORE) },
                    Hook { program: "measure", at: At::Beside(&SYS_EXIT) },
                    Hook { program: "enter", at: At::Beside(&ENTER) },
                ],
                lacks: None,
            },
        ],
    }],
    aggregates: Some(syscall_stats::KIND),
    maps: &[
        // A key has half a kilobyte on each CPU.
        Sized { name: LATENCIES, of_keys: (1, 4), value: size_of::<Latency>(), per_cpu: true },
        Sized { name: ENTERED, of_keys: (2, 1), value: size_of::<u64>(), per_cpu: false },
    ],
};
