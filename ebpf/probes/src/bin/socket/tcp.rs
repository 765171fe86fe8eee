//! Changes of a TCP socket's state: the outcome of attempts to connect, and the end of connections.

use tipstaff_probes::{
    aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext},
    events::catalogue::{connect, tcp_close},
    kernel::{Pointer, sock},
    map,
    socket::{Sock, protocol},
};

use crate::{attempt, connection};

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

/// For `connect`: the outcome of attempts. Also runs in interrupts: the current process is the
/// socket's only at `SYN_SENT`.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn connect_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg::<Pointer>(0));
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if new != SYN_SENT && new != ESTABLISHED && new != CLOSE {
        return 0;
    }
    let word = map::wanted(connect::KIND);
    if word == 0 || sock.protocol() != protocol::TCP {
        return 0;
    }
    match (old, new) {
        (_, SYN_SENT) => attempt::started(sock),
        (_, ESTABLISHED) => attempt::settled(word, sock, true, 0),
        (CLOSE | SYN_SENT | SYN_RECV, _) => {
            attempt::settled(word, sock, false, sock::sk_err.read(sock.0).unwrap_or(0));
        }
        // It was established, whether that was seen or not.
        _ => attempt::settled(word, sock, true, 0),
    }
    0
}

/// For `tcp_close`: the life of connections.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn close_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg::<Pointer>(0));
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if new != SYN_SENT && new != ESTABLISHED && new != CLOSE {
        return 0;
    }
    let word = map::wanted(tcp_close::KIND);
    if word == 0 || sock.protocol() != protocol::TCP {
        return 0;
    }
    match (old, new) {
        (_, SYN_SENT) => connection::started(sock),
        (_, ESTABLISHED) => connection::established(sock),
        (CLOSE | SYN_SENT | LISTEN | SYN_RECV | NEW_SYN_RECV, _) => connection::forget(sock),
        _ => connection::closed(word, sock, old),
    }
    0
}
