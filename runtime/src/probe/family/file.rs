//! open, unlink, rename.

use tipstaff_events::catalogue::{open, rename, unlink};

use super::{Family, Hook, Part, Rung, SYS_EXIT, called, uring};

pub(in super::super) static FAMILY: Family = Family {
    object: "file",
    parts: &[
        Part {
            kinds: &[open::KIND, unlink::KIND, rename::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung {
                hooks: &[
                    called("open_call", 0),
                    called("unlink_call", 1),
                    called("rename_call", 2),
                    Hook { program: "file", at: SYS_EXIT },
                ],
                lacks: None,
            }],
        },
        Part {
            kinds: &[open::KIND, unlink::KIND, rename::KIND],
            fields: 0,
            without: uring::WITHOUT_OVERFLOW,
            ladder: &[Rung {
                hooks: &[Hook { program: "overflow", at: uring::OVERFLOWED }],
                lacks: None,
            }],
        },
        Part {
            kinds: &[open::KIND, unlink::KIND, rename::KIND],
            fields: 0,
            without: uring::WITHOUT,
            // A request is known from where it is submitted: what completes it comes first.
            ladder: &[
                Rung {
                    hooks: &[
                        Hook { program: "complete_entry", at: uring::COMPLETED },
                        Hook { program: "submit", at: uring::SUBMITTED },
                    ],
                    lacks: None,
                },
                Rung {
                    hooks: &[
                        Hook { program: "complete_result", at: uring::COMPLETED_BEFORE },
                        Hook { program: "submit", at: uring::SUBMITTED },
                    ],
                    lacks: None,
                },
                Rung {
                    hooks: &[
                        Hook { program: "complete_result", at: uring::COMPLETED_BEFORE },
                        Hook { program: "submit", at: uring::SUBMITTED_BEFORE },
                    ],
                    lacks: None,
                },
            ],
        },
    ],
    aggregates: None,
    maps: &[],
};
