//! Where the requests of `io_uring` are seen. What the tracepoints pass differs between kernels.

use super::At;

/// What a kind lacks where none of these is there.
pub(super) const WITHOUT: Option<&str> = Some("operations by io_uring are not seen");

/// A request is submitted (Linux 6.4).
pub(super) const SUBMITTED: At<'static> =
    At::Typed { name: "io_uring_submit_req", passes: &["struct io_kiocb *"] };

/// A request is submitted (Linux 5.19).
pub(super) const SUBMITTED_BEFORE: At<'static> =
    At::Typed { name: "io_uring_submit_sqe", passes: &["struct io_kiocb *", "bool"] };

/// What a kind lacks where that is not there.
pub(super) const WITHOUT_OVERFLOW: Option<&str> =
    Some("completions of io_uring that find no room are not seen");

/// A completion found no room in the queue (Linux 5.19).
pub(super) const OVERFLOWED: At<'static> = At::Typed {
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
