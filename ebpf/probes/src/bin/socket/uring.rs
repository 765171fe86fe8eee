//! The same by `io_uring`, seen where a request completes: its file is still there, and nothing
//! needs to be kept from where it was submitted. The exception is an accept that goes on and on
//! (multishot): the kernel reports what it accepts without saying for which request.

use tipstaff_probes::{
    aya_ebpf::{
        macros::{btf_tracepoint, map},
        maps::HashMap,
        programs::BtfTracePointContext,
    },
    events::{
        catalogue::{accept, connect, listen},
        wire::LOST_MAP,
    },
    kernel::{Pointer, io_accept, io_listen},
    map::lost,
    socket::{Given, Sock},
    task,
    uring::{IO_URING, MORE, Request, Tag, operation, result_in},
};

use crate::{attempt, on_accept, on_listen};

/// Multishot accepts under way at the same time.
const MAX_MULTISHOT: u32 = 1024;
/// Bit of `io_accept.iou_flags`: the request goes on after the first connection.
const MULTISHOT: u32 = 1;

const ECANCELED: i32 = 125;

/// A multishot accept.
#[repr(C)]
#[derive(Clone, Copy)]
struct Accepting {
    /// The listening socket; 0 if it is none.
    listening: u64,
    /// 1 if what is accepted goes to `io_uring`'s own table and not to a descriptor.
    in_own_table: u64,
}

#[map]
static ACCEPTING: HashMap<Tag, Accepting> = HashMap::with_max_entries(MAX_MULTISHOT, 0);

/// The operation, if events come of it.
#[inline(always)]
fn watched(request: Request) -> Option<u8> {
    let operation = request.operation()?;
    matches!(operation, operation::CONNECT | operation::ACCEPT | operation::LISTEN)
        .then_some(operation)
}

#[btf_tracepoint(function = "io_uring_submit_req")]
fn submit(ctx: BtfTracePointContext) -> i32 {
    let request = Request(ctx.arg(0));
    let Some(operation) = watched(request) else { return 0 };
    // Where no place is left it is seen all the same, if its completion finds room.
    request.keep();
    if operation == operation::ACCEPT
        && io_accept::iou_flags.read::<u32>(request.0).is_some_and(|flags| flags & MULTISHOT != 0)
    {
        let accepting = Accepting {
            listening: sock_of(request).key(),
            in_own_table: in_own_table(request).into(),
        };
        let kept = request.tag().is_some_and(|tag| ACCEPTING.insert(&tag, &accepting, 0).is_ok());
        if !kept && task::wanted(accept::KIND).is_some() {
            lost(accept::KIND, LOST_MAP);
        }
    }
    0
}

/// Where the completion is passed as a whole.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_entry(ctx: BtfTracePointContext) -> i32 {
    let completion: Pointer = ctx.arg(2);
    if let Some(result) = result_in(completion) {
        let request: Pointer = ctx.arg(1);
        if request.is_null() {
            if let Some(tag) = Tag::of_completion(ctx.arg(0), completion) {
                on_accepted(&tag, result);
            }
        } else {
            on_room(Request(request), result);
        }
    }
    0
}

/// Where it is passed in pieces. There multishot accepts cannot be told from others.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_result(ctx: BtfTracePointContext) -> i32 {
    on_room(Request(ctx.arg(1)), ctx.arg(3));
    0
}

/// Where the completion finds no room.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
fn overflow(ctx: BtfTracePointContext) -> i32 {
    let tag = Tag::new(ctx.arg(0), ctx.arg(1));
    let (result, flags) = (ctx.arg(2), ctx.arg(3));
    if flags & MORE != 0 {
        on_accepted(&tag, result);
    } else if let Some(request) = Request::completed(tag, result, flags) {
        request.forget();
        on_complete(request, result);
    }
    0
}

/// Where a completion finds room.
#[inline(always)]
fn on_room(request: Request, result: i32) {
    if watched(request).is_none() {
        return;
    }
    let mut completed = request;
    if !request.forget()
        && let Some(other) = request.exchanged(result)
    {
        other.forget();
        completed = other;
    }
    on_complete(completed, result);
}

#[inline(always)]
fn on_accepted(tag: &Tag, result: i32) {
    // SAFETY: an entry is of one request only.
    if let Some(accepting) = unsafe { ACCEPTING.get(tag) } {
        let accepting = *accepting;
        let listening = Sock(accepting.listening as Pointer);
        accepted(listening, accepting.in_own_table != 0, result);
    }
}

#[inline(always)]
fn on_complete(request: Request, result: i32) {
    let Some(operation) = watched(request) else { return };
    match operation {
        operation::CONNECT => {
            if let Some(word) = task::wanted(connect::KIND) {
                let sock = sock_of(request);
                let via = IO_URING;
                attempt::returned(&attempt::Returned {
                    word,
                    sock,
                    given: Given::NONE,
                    result,
                    via,
                });
            }
        }
        operation::ACCEPT => {
            accepted(sock_of(request), in_own_table(request), result);
            if let Some(tag) = request.tag() {
                let _ = ACCEPTING.remove(&tag);
            }
        }
        operation::LISTEN => {
            if let Some(word) = task::wanted(listen::KIND) {
                let backlog = io_listen::backlog.read(request.0).unwrap_or(0);
                on_listen(word, sock_of(request), backlog, result, IO_URING);
            }
        }
        _ => {}
    }
}

#[inline(always)]
fn accepted(listening: Sock, in_own_table: bool, result: i32) {
    // A process that ends takes its requests with it: cancelled by the kernel, they are no failures.
    if result == -ECANCELED && !task::is_user() {
        return;
    }
    let sock = if result < 0 || in_own_table { Sock::NONE } else { Sock::of_descriptor(result) };
    on_accept(sock, listening, result, IO_URING);
}

/// The socket that a request works on.
#[inline(always)]
fn sock_of(request: Request) -> Sock {
    match request.file() {
        Some(open_file) => Sock::of_file(open_file),
        None => Sock::NONE,
    }
}

#[inline(always)]
fn in_own_table(request: Request) -> bool {
    io_accept::file_slot.read::<u32>(request.0).is_some_and(|slot| slot != 0)
}
