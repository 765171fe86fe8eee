//! `io_stats`: calls are counted where they return, requests of `io_uring` where they complete.

use tipstaff_events::{
    aggregate::{IO, IoSums},
    catalogue::io_stats,
};

use super::{Family, Hook, Part, Rung, SYS_EXIT, Sized, processes, uring};

/// Whatever the kernel: who asks for bytes is told so in each row, too.
const LACKS: Option<&str> = Some("what aio and mapped files move is not known");

pub(in super::super) static FAMILY: Family = Family {
    object: "io",
    parts: &[
        processes::begin(&[io_stats::KIND]),
        processes::moved(&[io_stats::KIND]),
        processes::exec(&[io_stats::KIND]),
        Part {
            kinds: &[io_stats::KIND],
            fields: 0,
            without: uring::WITHOUT,
            ladder: &[
                Rung {
                    hooks: &[Hook { program: "complete_entry", at: uring::COMPLETED }],
                    lacks: None,
                },
                Rung {
                    hooks: &[Hook { program: "complete_result", at: uring::COMPLETED_BEFORE }],
                    lacks: None,
                },
            ],
        },
        Part {
            kinds: &[io_stats::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung { hooks: &[Hook { program: "returned", at: SYS_EXIT }], lacks: LACKS }],
        },
    ],
    aggregates: Some(io_stats::KIND),
    maps: &[
        processes::MAP,
        // A key has a third of a kilobyte on each CPU.
        Sized { name: IO, of_keys: (1, 4), value: size_of::<IoSums>(), per_cpu: true },
    ],
};
