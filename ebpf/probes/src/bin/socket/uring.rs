//! The same by `io_uring`, seen where a request completes: its file is still there, and nothing needs
//! to be kept from where it was submitted.

use tipstaff_probes::{
    aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext},
    events::catalogue::{connect, listen},
    kernel::io_listen,
    socket::Sock,
    task,
    uring::{IO_URING, Request, operation, result_in},
};

use crate::{attempt, on_accept, on_listen};

/// Since Linux 6.10 the completion is passed as a whole.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_entry(ctx: BtfTracePointContext) -> i32 {
    if let Some(result) = result_in(ctx.arg(2)) {
        on_complete(Request(ctx.arg(1)), result);
    }
    0
}

#[btf_tracepoint(function = "io_uring_complete")]
fn complete_result(ctx: BtfTracePointContext) -> i32 {
    on_complete(Request(ctx.arg(1)), ctx.arg(3));
    0
}

#[inline(always)]
fn on_complete(request: Request, result: i32) {
    let Some(operation) = request.operation() else { return };
    if !matches!(operation, operation::CONNECT | operation::ACCEPT | operation::LISTEN) {
        return;
    }
    let sock = request.file().and_then(Sock::of_file);
    match operation {
        operation::CONNECT => {
            if let Some(word) = task::wanted(connect::KIND) {
                attempt::returned(&attempt::Returned {
                    word,
                    sock,
                    given: None,
                    result,
                    via: IO_URING,
                });
            }
        }
        operation::ACCEPT => {
            let accepted = if result < 0 { sock } else { Sock::of_descriptor(result) };
            on_accept(accepted, result, IO_URING);
        }
        _ => {
            if let Some(word) = task::wanted(listen::KIND) {
                on_listen(
                    word,
                    sock,
                    io_listen::backlog.read(request.0).unwrap_or(0),
                    result,
                    IO_URING,
                );
            }
        }
    }
}
