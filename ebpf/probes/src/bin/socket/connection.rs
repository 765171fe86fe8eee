//! Established TCP connections, for `tcp_close`: who opened them, and when.

use tipstaff_probes::{
    aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::HashMap},
    events::{
        catalogue::{DIRECTION, TcpClose, tcp_close},
        index,
        wire::Header,
    },
    kernel::{sock_common, tcp_sock},
    record::emit,
    socket::Sock,
    task,
};

use crate::tcp::{CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK};

const UNKNOWN: u8 = index(DIRECTION, "unknown");
const OUTGOING: u8 = index(DIRECTION, "outgoing");
const INCOMING: u8 = index(DIRECTION, "incoming");

/// Connections that are known at the same time. Of those beyond, owner and duration are unknown.
const MAX_CONNECTIONS: u32 = 32 * 1024;
/// Bit of `sock_common.skc_flags`: the peer has sent all that it will send.
const SOCK_DONE: u64 = 1 << 1;

/// A connection.
#[repr(C)]
#[derive(Clone, Copy)]
struct Connection {
    /// Who connected or accepted; `pid` is 0 where that is not known.
    owner: Header,
    /// When that process started, since boot.
    start: u64,
    /// When it was established, as in `Header::time`; 0 if it is not yet.
    established: u64,
    /// Index in `DIRECTION`.
    direction: u32,
    /// 1 if its owner's events are not reported.
    hidden: u32,
}

#[map]
static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(MAX_CONNECTIONS, 0);

/// The current process connects, or the kernel adds a way to what it has connected by MPTCP.
#[inline(always)]
pub fn started(sock: Sock) {
    let is_added = sock.owner().is_established();
    insert(
        sock,
        &Connection {
            owner: if is_added { Header::default() } else { owner() },
            start: task::start(task::current()).unwrap_or(0),
            established: 0,
            direction: OUTGOING.into(),
            hidden: task::is_hidden().into(),
        },
    );
}

/// The connection is established.
#[inline(always)]
pub fn established(sock: Sock) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(connection) = CONNECTIONS.get_ptr_mut(&sock.key()) {
        // SAFETY: a map value, which is not given to another socket as long as this one lives.
        let connection = unsafe { &mut *connection };
        if connection.direction == u32::from(OUTGOING) && connection.established == 0 {
            connection.established = now;
            return;
        }
    }
    insert(
        sock,
        &Connection {
            owner: Header::default(),
            start: 0,
            established: now,
            direction: INCOMING.into(),
            // Until it is accepted it is nobody's.
            hidden: task::has_scope().into(),
        },
    );
}

/// The current process has accepted the connection.
#[inline(always)]
pub fn accepted(sock: Sock) {
    if let Some(connection) = CONNECTIONS.get_ptr_mut(&sock.first_subflow().key()) {
        // SAFETY: a map value, which is not given to another socket as long as this one lives.
        let connection = unsafe { &mut *connection };
        connection.owner = owner();
        connection.start = task::start(task::current()).unwrap_or(0);
        connection.hidden = task::is_hidden().into();
    }
}

/// All common fields, wanted now or not: what a policy asks for later should be there too.
#[inline(always)]
fn owner() -> Header {
    task::header(tcp_close::KIND, u64::MAX)
}

#[inline(always)]
fn insert(sock: Sock, connection: &Connection) {
    // Full: see MAX_CONNECTIONS.
    let _ = CONNECTIONS.insert(&sock.key(), connection, 0);
}

/// The attempt failed: there is no connection.
#[inline(always)]
pub fn forget(sock: Sock) {
    let _ = CONNECTIONS.remove(&sock.key());
}

/// The connection is closed; `state` is the one that it was in.
#[inline(always)]
pub fn closed(word: u64, sock: Sock, state: i32) {
    let mut record = TcpClose { direction: UNKNOWN, family: sock.family(), ..TcpClose::default() };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut absent = tcp_close::duration | tcp_close::start;
    // SAFETY: a map value, which is not given to another socket as long as this one lives.
    if let Some(connection) = unsafe { CONNECTIONS.get(sock.key()) } {
        let connection = *connection;
        forget(sock);
        if connection.hidden != 0 {
            return;
        }
        record.header = connection.owner;
        record.direction = connection.direction as u8;
        if connection.established != 0 {
            record.duration = now - connection.established;
            absent &= !tcp_close::duration;
        }
        if record.header.pid != 0 {
            record.start = connection.start;
            absent &= !tcp_close::start;
        }
    } else if task::has_scope() {
        return;
    }
    record.header.kind = tcp_close::KIND;
    record.header.time = now;
    record.bytes_sent = bytes_sent(sock, state, record.direction);
    record.bytes_received = bytes_received(sock);
    if !sock.peer(&mut record.address, &mut record.port) {
        absent |= tcp_close::address | tcp_close::port;
    }
    if !sock.local(&mut record.local_address, &mut record.local_port) {
        absent |= tcp_close::local_address | tcp_close::local_port;
    }
    record.header.absent = absent;
    emit(word, &record);
}

/// Of what the kernel counts as acknowledged, SYN and FIN are no data.
#[inline(always)]
fn bytes_sent(sock: Sock, state: i32, direction: u8) -> u64 {
    let acknowledged: u64 = tcp_sock::bytes_acked.read(sock.0).unwrap_or(0);
    let next: u32 = tcp_sock::snd_una.read(sock.0).unwrap_or(0);
    let end: u32 = tcp_sock::write_seq.read(sock.0).unwrap_or(0);
    let fin = matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK) && next == end;
    acknowledged.saturating_sub(u64::from(fin) + u64::from(direction == OUTGOING))
}

/// The peer's FIN is no data.
#[inline(always)]
fn bytes_received(sock: Sock) -> u64 {
    let received: u64 = tcp_sock::bytes_received.read(sock.0).unwrap_or(0);
    let flags: u64 = sock_common::skc_flags.read(sock.0).unwrap_or(0);
    received.saturating_sub(u64::from(flags & SOCK_DONE != 0))
}
