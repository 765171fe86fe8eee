//! `sched_stats`. Where threads are woken and moved is hooked only for who asks for that.

use tipstaff_events::{
    aggregate::{SWITCHES, Switches, WAITING},
    catalogue::sched_stats,
};

use super::{At, Family, Hook, Part, Rung, Sized, TASK, processes};

const WAITS: u32 = sched_stats::runs
    | sched_stats::queued
    | sched_stats::blocked
    | sched_stats::uninterruptible
    | sched_stats::queued_histogram;

/// Since and before Linux 5.18.
const SWITCH: At<'static> =
    At::Typed { name: "sched_switch", passes: &["bool", TASK, TASK, "unsigned int"] };
const SWITCH_BEFORE: At<'static> =
    At::Typed { name: "sched_switch", passes: &["bool", TASK, TASK] };
const WAKE: At<'static> = At::Typed { name: "sched_wakeup", passes: &[TASK] };
const WAKE_NEW: At<'static> = At::Typed { name: "sched_wakeup_new", passes: &[TASK] };
const MIGRATE: At<'static> = At::Typed { name: "sched_migrate_task", passes: &[TASK, "int"] };

/// Bytes of what is kept of a thread.
const THREAD: usize = 32;

pub(in super::super) static FAMILY: Family = Family {
    object: "sched",
    parts: &[
        processes::begin(&[sched_stats::KIND]),
        processes::moved(&[sched_stats::KIND]),
        processes::exec(&[sched_stats::KIND]),
        Part {
            kinds: &[sched_stats::KIND],
            fields: WAITS,
            without: Some("waits are not measured"),
            ladder: &[Rung {
                hooks: &[
                    Hook { program: "wake", at: At::Beside(&WAKE) },
                    Hook { program: "wake_new", at: At::Beside(&WAKE_NEW) },
                ],
                lacks: None,
            }],
        },
        Part {
            kinds: &[sched_stats::KIND],
            fields: sched_stats::migrations,
            without: Some("migrations are not counted"),
            ladder: &[Rung { hooks: &[Hook { program: "migrate", at: MIGRATE }], lacks: None }],
        },
        Part {
            kinds: &[sched_stats::KIND],
            fields: 0,
            without: None,
            ladder: &[
                Rung { hooks: &[Hook { program: "switch_told", at: SWITCH }], lacks: None },
                Rung { hooks: &[Hook { program: "switch_read", at: SWITCH_BEFORE }], lacks: None },
            ],
        },
    ],
    aggregates: Some(sched_stats::KIND),
    maps: &[
        processes::MAP,
        Sized { name: SWITCHES, of_keys: (1, 2), value: size_of::<Switches>(), per_cpu: true },
        Sized { name: WAITING, of_keys: (2, 1), value: THREAD, per_cpu: false },
    ],
};
