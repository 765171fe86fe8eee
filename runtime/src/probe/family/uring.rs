//! Where the requests of `io_uring` are seen. What the tracepoints pass differs between kernels.

use super::{At, Hook, Part, Rung};

/// What a kind lacks where none of these is there.
pub(super) const WITHOUT: Option<&str> = Some("operations by io_uring are not seen");

/// A request is submitted (Linux 6.4).
const SUBMITTED: At<'static> =
    At::Typed { name: "io_uring_submit_req", passes: &["struct io_kiocb *"] };

/// A request is submitted (Linux 5.19).
const SUBMITTED_BEFORE: At<'static> =
    At::Typed { name: "io_uring_submit_sqe", passes: &["struct io_kiocb *", "bool"] };

/// What a kind lacks where that is not there.
const WITHOUT_OVERFLOW: Option<&str> =
    Some("completions of io_uring that find no room are not seen");

/// A completion found no room in the queue (Linux 5.19).
const OVERFLOWED: At<'static> = At::Typed {
    name: "io_uring_cqe_overflow",
    passes: &["void *", "long long unsigned int", "s32", "u32", "void *"],
};

/// A request has completed; the completion is passed as a whole.
pub(super) const COMPLETED: At<'static> = At::Typed {
    name: "io_uring_complete",
    passes: &["struct io_ring_ctx *", "void *", "struct io_uring_cqe *"],
};

/// A request has completed; the completion is passed in pieces (Linux 5.19).
pub(super) const COMPLETED_BEFORE: At<'static> = At::Typed {
    name: "io_uring_complete",
    passes: &["void *", "void *", "u64", "int", "unsigned int", "u64", "u64"],
};

/// The completions that find no room, of whose requests these kinds are.
pub(super) const fn overflows(kinds: &'static [u16]) -> Part<'static> {
    Part {
        kinds,
        fields: 0,
        without: WITHOUT_OVERFLOW,
        ladder: &[Rung { hooks: &[Hook { program: "overflow", at: OVERFLOWED }], lacks: None }],
    }
}

/// Requests from where they are submitted to where they complete. With what is lacking where a completion is
/// passed in pieces. A request is known from where it is
/// submitted, so what completes it comes first.
pub(super) const fn requests(lacks: Option<&'static str>) -> [Rung<'static>; 3] {
    const ENTRY: Hook<'static> = Hook { program: "complete_entry", at: COMPLETED };
    const RESULT: Hook<'static> = Hook { program: "complete_result", at: COMPLETED_BEFORE };
    const SUBMIT: Hook<'static> = Hook { program: "submit", at: SUBMITTED };
    const SUBMIT_BEFORE: Hook<'static> = Hook { program: "submit", at: SUBMITTED_BEFORE };
    [
        Rung { hooks: &[ENTRY, SUBMIT], lacks: None },
        Rung { hooks: &[RESULT, SUBMIT], lacks },
        Rung { hooks: &[RESULT, SUBMIT_BEFORE], lacks },
    ]
}
