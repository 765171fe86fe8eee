//! signal, oom.

use tipstaff_events::catalogue::{oom, signal};

use super::{At, Family, Hook, Part, Rung, TASK};

pub(in super::super) static FAMILY: Family = Family {
    object: "signal",
    parts: &[
        Part {
            kinds: &[signal::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung {
                hooks: &[Hook {
                    program: "signal_raw",
                    at: At::Raw {
                        name: "signal_generate",
                        passes: &["int", "struct kernel_siginfo *", TASK, "int", "int"],
                    },
                }],
                lacks: None,
            }],
        },
        Part {
            kinds: &[oom::KIND],
            fields: 0,
            without: None,
            ladder: &[
                // Since Linux 6.8.
                Rung {
                    hooks: &[Hook {
                        program: "oom_task",
                        at: At::Raw { name: "mark_victim", passes: &[TASK, "uid_t"] },
                    }],
                    lacks: None,
                },
                Rung {
                    hooks: &[Hook {
                        program: "oom_number",
                        at: At::Raw { name: "mark_victim", passes: &["int"] },
                    }],
                    lacks: Some("of the victim only its number is known"),
                },
            ],
        },
    ],
    aggregates: None,
    maps: &[],
};
