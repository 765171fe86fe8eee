//! Attempts to connect over TCP. An event needs two halves, in either order: what the call returned,
//! and what became of the socket. They meet in a map by the socket's address.
//!
//! Each half writes what it knows, then adds its own mark; who sees both marks afterwards takes the
//! entry out, which only one can, and emits the event. So it is emitted once, whatever the order.

use tipstaff_probes::{
    aya_ebpf::{
        helpers::bpf_ktime_get_ns,
        macros::map,
        maps::{HashMap, LruHashMap},
    },
    call::{EINTR, SYSCALL},
    events::{
        catalogue::{Connect, OUTCOME, connect},
        index,
        wire::{LOST_MAP, LOST_MISSED},
    },
    map::{add, lost},
    record::Draft,
    socket::{Given, Sock, protocol},
    task,
};

const NONE: u8 = index(OUTCOME, "none");
const ESTABLISHED: u8 = index(OUTCOME, "established");
const REFUSED: u8 = index(OUTCOME, "refused");
const TIMED_OUT: u8 = index(OUTCOME, "timed_out");
const UNREACHABLE: u8 = index(OUTCOME, "unreachable");
const RESET: u8 = index(OUTCOME, "reset");
const PENDING: u8 = index(OUTCOME, "pending");
const ABORTED: u8 = index(OUTCOME, "aborted");

/// Attempts under way at the same time. Beyond that the event comes when the call returns, if that
/// says what the outcome is; else nobody will ever know it, and the event counts as lost.
const MAX_ATTEMPTS: u32 = 8192;
/// The first attempt is still under way.
const EALREADY: i32 = 114;
/// The attempt goes on without the call.
const EINPROGRESS: i32 = 115;

/// An attempt under way.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attempt {
    /// The event as far as it is known.
    record: Connect,
    /// Start of the attempt, as in `Header::time`.
    started: u64,
    /// [`RETURNED`] and [`SETTLED`], added.
    halves: u64,
}

/// The call has returned.
const RETURNED: u64 = 1;
/// The socket has become established or closed. Both sides may add it: all bits above count.
const SETTLED: u64 = 1 << 32;

#[map]
static ATTEMPTS: HashMap<u64, Attempt> = HashMap::with_max_entries(MAX_ATTEMPTS, 0);
/// Sockets whose attempt found no room, until its call returns. Empty where the state of sockets is
/// not watched: there an outcome that is pending is all that can be told.
#[map]
static WITHOUT_ROOM: LruHashMap<u64, u8> = LruHashMap::with_max_entries(4096, 0);
/// Sockets whose event is out with this result of the call, which may return again or be made again.
/// Of those beyond, a further call is told like the only one.
#[map]
static TOLD: LruHashMap<u64, i32> = LruHashMap::with_max_entries(MAX_ATTEMPTS, 0);

/// A call that has returned.
pub struct Returned {
    /// What is wanted of `connect`.
    pub word: u64,
    /// The socket, if the descriptor was one.
    pub sock: Sock,
    /// The address that was passed, as far as it is still known.
    pub given: Given,
    /// What the call returned.
    pub result: i32,
    /// How it reached the kernel.
    pub via: u8,
}

/// The socket has sent its first packet, in the context of the process that connects.
#[inline(always)]
pub fn started(sock: Sock) {
    let owner = sock.owner();
    // Established: the kernel adds a way to what was connected by MPTCP.
    if task::is_hidden() || owner.is_established() {
        return;
    }
    let key = owner.key();
    let _ = TOLD.remove(&key);
    // In place: the stack has no room for it twice.
    let mut attempt = Attempt {
        record: Connect {
            header: task::header(connect::KIND, u64::MAX),
            family: sock.family(),
            protocol: protocol::TCP,
            via: SYSCALL,
            ..Connect::default()
        },
        started: 0,
        halves: 0,
    };
    let record = &mut attempt.record;
    let known = sock.peer(&mut record.address, &mut record.port);
    record.header.absent = if known { 0 } else { connect::address | connect::port };
    // The result is absent until there is one.
    record.header.absent |=
        connect::result | connect::unix_path | connect::local_address | connect::local_port;
    attempt.started = attempt.record.header.time;
    if ATTEMPTS.insert(&key, &attempt, 0).is_err() {
        let _ = WITHOUT_ROOM.insert(&key, &1, 0);
    }
}

impl Attempt {
    #[inline(always)]
    fn is_settled(&self) -> bool {
        self.halves >= SETTLED
    }

    /// Writes down the outcome: established, or closed with this error (`sk_err`).
    #[inline(always)]
    fn settle(&mut self, sock: Sock, established: bool, error: i32) {
        let record = &mut self.record;
        record.outcome = if established { ESTABLISHED } else { outcome_of(-error) };
        if record.outcome == NONE {
            record.outcome = ABORTED;
        }
        // SAFETY: no arguments.
        record.latency = unsafe { bpf_ktime_get_ns() } - self.started;
        if sock.local(&mut record.local_address, &mut record.local_port) {
            record.header.absent &= !(connect::local_address | connect::local_port);
        }
        add(&raw mut self.halves, SETTLED);
    }
}

/// The socket is established, or closed with this error (`sk_err`).
#[inline(always)]
pub fn settled(word: u64, sock: Sock, established: bool, error: i32) {
    let key = sock.owner().key();
    let Some(attempt) = ATTEMPTS.get_ptr_mut(&key) else { return };
    // SAFETY: a map value, which is not given to another socket as long as this one lives.
    let attempt = unsafe { &mut *attempt };
    // Else it was established and is closed now, and no call of ours returned: TCP Fast Open by
    // `sendto`, or a socket of the kernel's own.
    if !attempt.is_settled() {
        attempt.settle(sock, established, error);
        if attempt.halves & RETURNED == 0 {
            return;
        }
    }
    finish(word, key, attempt);
}

/// The socket is gone, and with it every call that used it. What is still here failed without a call
/// of ours: TCP Fast Open, or the kernel's own.
#[inline(always)]
pub fn gone(word: u64, sock: Sock) {
    let key = sock.owner().key();
    if let Some(attempt) = ATTEMPTS.get_ptr_mut(&key) {
        // SAFETY: a map value, which is not given to another socket as long as this one lives.
        let attempt = unsafe { &mut *attempt };
        if !attempt.is_settled() {
            attempt.settle(sock, false, 0);
        }
        finish(word, key, attempt);
    }
    let _ = TOLD.remove(&key);
    let _ = WITHOUT_ROOM.remove(&key);
}

/// A call has returned.
#[inline(always)]
pub fn returned(call: &Returned) {
    let sock = call.sock;
    if sock.exists()
        && let Some(attempt) = ATTEMPTS.get_ptr_mut(&sock.key())
    {
        // SAFETY: a map value, which is not given to another socket as long as this one lives.
        let attempt = unsafe { &mut *attempt };
        // A second call on the same socket only asks how the first is getting on.
        if attempt.halves & RETURNED == 0 {
            // The kernel leaves out a program that an interrupt has found running on the same CPU:
            // what the call says about its socket is true whether that was seen or not.
            if call.result == 0 && !attempt.is_settled() {
                attempt.settle(sock, true, 0);
            }
            let absent = attempt.record.header.absent & !connect::result;
            // All of it, as in `started`: when the attempt ends, more may be wanted than now.
            attempt.record.header = task::header(connect::KIND, u64::MAX);
            attempt.record.header.absent = absent;
            attempt.record.result = call.result;
            attempt.record.via = call.via;
            add(&raw mut attempt.halves, RETURNED);
            if attempt.is_settled() {
                finish(call.word, sock.key(), attempt);
            }
            return;
        }
        emit_at_once(call, false);
        return;
    }
    // A second call, which only learns that the first attempt is under way, waits for nothing.
    if !sock.exists() || call.result == -EALREADY {
        emit_at_once(call, false);
        return;
    }
    if WITHOUT_ROOM.remove(&sock.key()).is_ok() && outcome_of(call.result) == PENDING {
        lost(connect::KIND, LOST_MAP);
        return;
    }
    // SAFETY: the value is one number.
    let told = unsafe { TOLD.get(sock.key()) }.copied().unwrap_or(0);
    if told == -EINTR {
        // The call that was interrupted was started again.
        if call.result != -EINTR {
            let _ = TOLD.remove(&sock.key());
        }
        return;
    }
    emit_at_once(call, told == -EINPROGRESS);
}

/// Emits the event if nobody else does. Where no scratch buffer is left it counts as lost, if nobody
/// else emits it.
#[inline(always)]
fn finish(word: u64, key: u64, attempt: &Attempt) {
    // Copied before it is taken out: after that the memory may hold another attempt.
    let draft = Draft::uncounted(attempt.record);
    if ATTEMPTS.remove(&key).is_err() || word == 0 {
        return;
    }
    let Some(mut draft) = draft else {
        lost(connect::KIND, LOST_MISSED);
        return;
    };
    let record = draft.record();
    if record.result == -EINTR || record.result == -EINPROGRESS {
        let _ = TOLD.insert(&key, &record.result, 0);
    }
    // The call can know better why the socket was closed.
    let by_result = outcome_of(record.result);
    if record.outcome == ABORTED && by_result != NONE && by_result != PENDING {
        record.outcome = by_result;
    }
    // SAFETY: no arguments.
    record.header.time = unsafe { bpf_ktime_get_ns() };
    draft.emit(word);
}

/// The event of a call that has nothing to wait for: not TCP, or failed before the first packet, or
/// it only asks how the attempt ended that an earlier one began.
#[inline(always)]
fn emit_at_once(call: &Returned, only_asks: bool) {
    let Some(mut draft) = Draft::new(Connect {
        header: task::header(connect::KIND, call.word),
        result: call.result,
        via: call.via,
        ..Connect::default()
    }) else {
        return;
    };
    let mut absent = connect::latency;
    let record = draft.record();
    let (sock, given) = (call.sock, call.given);
    if sock.exists() {
        (record.family, record.protocol) = (sock.family(), sock.protocol());
    } else {
        record.family = given.family();
        absent |= connect::protocol;
        if !given.exists() {
            absent |= connect::family;
        }
    }
    let connected = call.result == 0;
    if record.protocol == protocol::TCP && given.is_address() && !only_asks {
        record.outcome = if connected { ESTABLISHED } else { outcome_of(call.result) };
    }
    // Where the address is not known any more the socket knows it.
    let asks_socket = connected && !given.exists();
    let known = given.endpoint(&mut record.address, &mut record.port)
        || asks_socket && sock.peer(&mut record.address, &mut record.port);
    if !known {
        absent |= connect::address | connect::port;
    }
    if !(connected && sock.local(&mut record.local_address, &mut record.local_port)) {
        absent |= connect::local_address | connect::local_port;
    }
    let text =
        if asks_socket { sock.unix_peer().bound_path(&mut draft) } else { given.path(&mut draft) };
    if text.offset == 0 {
        absent |= connect::unix_path;
    }
    draft.record().unix_path = text;
    draft.record().header.absent = absent;
    draft.emit(call.word);
}

/// What an error says of a TCP connection.
#[inline(always)]
fn outcome_of(result: i32) -> u8 {
    match -result {
        111 => REFUSED,                                 // ECONNREFUSED
        110 => TIMED_OUT,                               // ETIMEDOUT
        64 | 92 | 100 | 101 | 112 | 113 => UNREACHABLE, // ENONET, ENOPROTOOPT, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH
        104 => RESET,                                   // ECONNRESET
        103 => ABORTED,                                 // ECONNABORTED
        4 | 114 | 115 => PENDING,                       // EINTR, EALREADY, EINPROGRESS
        _ => NONE,
    }
}
