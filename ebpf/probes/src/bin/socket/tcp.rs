//! Changes of a TCP socket's state: the outcome of attempts to connect, and the end of connections.

use tipstaff_probes::{
    aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext},
    events::catalogue::{connect, tcp_close},
    kernel::{Pointer, sock},
    map,
    socket::Sock,
};

use crate::{
    attempt, connection,
    twice::{self, For},
};

/// States of a TCP socket, from `net/tcp_states.h`.
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
pub const FIN_WAIT1: i32 = 4;
pub const FIN_WAIT2: i32 = 5;
const CLOSE: i32 = 7;
pub const LAST_ACK: i32 = 9;
const LISTEN: i32 = 10;
pub const CLOSING: i32 = 11;
const NEW_SYN_RECV: i32 = 12;

/// A change of state that matters.
struct Change {
    sock: Sock,
    old: i32,
    new: i32,
    /// What is wanted of the kind.
    word: u64,
}

impl Change {
    #[inline(always)]
    fn of(ctx: &RawTracePointContext, kind: u16) -> Option<Self> {
        let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
        if new != SYN_SENT && new != ESTABLISHED && new != CLOSE {
            return None;
        }
        let word = map::wanted(kind);
        let sock = Sock(ctx.arg::<Pointer>(0));
        (word != 0 && sock.is_tcp()).then_some(Self { sock, old, new, word })
    }

    /// A number that no other change under way has.
    #[inline(always)]
    fn number(&self) -> u64 {
        // The upper byte of an address in the kernel is always the same, and states are below 16.
        self.sock.key() << 8 | (self.old as u64) << 4 | self.new as u64
    }
}

/// For `connect`: the outcome of attempts. Also runs in interrupts: the current process is the
/// socket's only at `SYN_SENT`.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn connect_state(ctx: RawTracePointContext) -> i32 {
    if let Some(change) = Change::of(&ctx, connect::KIND) {
        on_connect(&change);
        twice::done(For::Connect, change.number());
    }
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn connect_state_again(ctx: RawTracePointContext) -> i32 {
    if let Some(change) = Change::of(&ctx, connect::KIND) {
        twice::again(For::Connect, change.number(), || on_connect(&change));
    }
    0
}

/// The socket is gone. Two programs for the same reason as above; what the first has taken out the
/// second does not find.
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
fn connect_gone(ctx: RawTracePointContext) -> i32 {
    on_gone(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
fn connect_gone_again(ctx: RawTracePointContext) -> i32 {
    on_gone(&ctx);
    0
}

#[inline(always)]
fn on_gone(ctx: &RawTracePointContext) {
    let word = map::wanted(connect::KIND);
    if word != 0 {
        attempt::gone(word, Sock(ctx.arg::<Pointer>(0)));
    }
}

#[inline(always)]
fn on_connect(change: &Change) {
    let &Change { sock, old, new, word } = change;
    if new == SYN_SENT {
        attempt::started(sock);
        return;
    }
    // Otherwise it was established, whether that was seen or not.
    let failed = new == CLOSE && matches!(old, CLOSE | SYN_SENT | SYN_RECV);
    let error = if failed { sock::sk_err.read(sock.0).unwrap_or(0) } else { 0 };
    // One place: what is inlined several times takes too much of the stack.
    attempt::settled(word, sock, !failed, error);
}

/// For `tcp_close`: the life of connections.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn close_state(ctx: RawTracePointContext) -> i32 {
    if let Some(change) = Change::of(&ctx, tcp_close::KIND) {
        on_close(&change);
        twice::done(For::Close, change.number());
    }
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn close_state_again(ctx: RawTracePointContext) -> i32 {
    if let Some(change) = Change::of(&ctx, tcp_close::KIND) {
        twice::again(For::Close, change.number(), || on_close(&change));
    }
    0
}

#[inline(always)]
fn on_close(change: &Change) {
    let &Change { sock, old, new, word } = change;
    match (old, new) {
        (_, SYN_SENT) => connection::started(sock),
        (_, ESTABLISHED) => connection::established(sock),
        (CLOSE | SYN_SENT | LISTEN | SYN_RECV | NEW_SYN_RECV, _) => connection::forget(sock),
        _ => connection::closed(word, sock, old),
    }
}
