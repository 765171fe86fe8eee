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
        uring::overflows(&[open::KIND, unlink::KIND, rename::KIND]),
        Part {
            kinds: &[open::KIND, unlink::KIND, rename::KIND],
            fields: 0,
            without: uring::WITHOUT,
            ladder: &uring::requests(None),
        },
    ],
    aggregates: None,
    maps: &[],
};
