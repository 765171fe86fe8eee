//! connect, accept, listen, `tcp_close`.
#![no_std]
#![no_main]

mod attempt;
mod connection;
mod tcp;
mod twice;
mod uring;

use tipstaff_probes::{
    aya_ebpf::{
        macros::{btf_tracepoint, map},
        maps::ProgramArray,
        programs::BtfTracePointContext,
    },
    call::{Call, Name, Table, hand_over, user},
    events::{
        catalogue::{Accept, Listen, accept, connect, listen, tcp_close},
        wire::LOST_MISSED,
    },
    map::{self, lost},
    record::Draft,
    socket::{Given, Sock},
    task,
};

const CONNECT: Name = 1;
const ACCEPT: Name = 2;
const LISTEN: Name = 3;
const SOCKETCALL: Name = 4;

static CALLS: Table = Table::new(&[
    (CONNECT, 42, 362),
    (ACCEPT, 43, -1),
    (ACCEPT, 288, 364), // accept4
    (LISTEN, 50, 363),
    (SOCKETCALL, -1, 102),
]);

/// The program of each kind, by its slot.
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(3, 0);

/// Sends each call to the program of its kind.
#[btf_tracepoint(function = "sys_exit")]
fn socket(ctx: BtfTracePointContext) -> i32 {
    let Some(call) = Call::of(&ctx, &CALLS) else { return 0 };
    let (kind, slot) = match name_of(&call) {
        CONNECT => (connect::KIND, 0),
        ACCEPT => (accept::KIND, 1),
        LISTEN => (listen::KIND, 2),
        _ => return 0,
    };
    // Who accepts a connection is also asked for by `tcp_close`.
    if task::wanted(kind).is_some() || kind == accept::KIND && map::wanted(tcp_close::KIND) != 0 {
        hand_over(&ctx, &PROGRAMS, slot, kind);
    }
    0
}

/// Which call it is, also behind `socketcall`; 0 for another.
#[inline(always)]
fn name_of(call: &Call) -> Name {
    match call.name {
        SOCKETCALL => match call.argument::<0>() {
            3 => CONNECT,
            4 => LISTEN,
            5 | 18 => ACCEPT,
            _ => 0,
        },
        name => name,
    }
}

/// The first three arguments, also behind `socketcall`. Where those cannot be read the event is
/// missed, if it is wanted.
#[inline(always)]
fn arguments(call: &Call, kind: u16) -> Option<[u64; 3]> {
    if call.name != SOCKETCALL {
        return Some([call.argument::<0>(), call.argument::<1>(), call.argument::<2>()]);
    }
    let read: Option<[u32; 3]> = user(call.argument::<1>());
    if read.is_none() && task::wanted(kind).is_some() {
        lost(kind, LOST_MISSED);
    }
    let [first, second, third] = read?;
    Some([first.into(), second.into(), third.into()])
}

#[btf_tracepoint(function = "sys_exit")]
fn connect_call(ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = Call::of(&ctx, &CALLS)
        && let Some(word) = task::wanted(connect::KIND)
        && let Some([descriptor, address, length]) = arguments(&call, connect::KIND)
    {
        attempt::returned(&attempt::Returned {
            word,
            sock: Sock::of_descriptor(descriptor as i32),
            given: Given::new(address, length as u32),
            result: call.result(),
            via: call.via,
        });
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
fn accept_call(ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = Call::of(&ctx, &CALLS)
        && let Some([descriptor, ..]) = arguments(&call, accept::KIND)
    {
        let result = call.result();
        let (accepted, listening) = if result < 0 {
            (Sock::NONE, Sock::of_descriptor(descriptor as i32))
        } else {
            (Sock::of_descriptor(result), Sock::NONE)
        };
        on_accept(accepted, listening, result, call.via);
    }
    0
}

/// The listening socket says what the accepted one would, where that is not there.
#[inline(always)]
fn on_accept(accepted: Sock, listening: Sock, result: i32, via: u8) {
    if accepted.exists() && map::wanted(tcp_close::KIND) != 0 {
        connection::accepted(accepted);
    }
    let Some(word) = task::wanted(accept::KIND) else { return };
    let sock = if accepted.exists() { accepted } else { listening };
    let header = task::header(accept::KIND, word);
    let Some(mut draft) = Draft::new(Accept { header, result, via, ..Accept::default() }) else {
        return;
    };
    let mut absent = 0;
    let record = draft.record();
    if !accepted.peer(&mut record.address, &mut record.port) {
        absent |= accept::address | accept::port;
    }
    if !sock.local(&mut record.local_address, &mut record.local_port) {
        absent |= accept::local_address | accept::local_port;
    }
    (record.family, record.protocol) = (sock.family(), sock.protocol());
    if !sock.exists() {
        absent |= accept::family | accept::protocol;
    }
    let text = sock.bound_path(&mut draft);
    if text.offset == 0 {
        absent |= accept::unix_path;
    }
    draft.record().unix_path = text;
    draft.record().header.absent = absent;
    draft.emit(word);
}

#[btf_tracepoint(function = "sys_exit")]
fn listen_call(ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = Call::of(&ctx, &CALLS)
        && let Some(word) = task::wanted(listen::KIND)
        && let Some([descriptor, backlog, _]) = arguments(&call, listen::KIND)
    {
        let sock = Sock::of_descriptor(descriptor as i32);
        on_listen(word, sock, backlog as i32, call.result(), call.via);
    }
    0
}

#[inline(always)]
fn on_listen(word: u64, sock: Sock, backlog: i32, result: i32, via: u8) {
    let header = task::header(listen::KIND, word);
    let Some(mut draft) = Draft::new(Listen { header, result, backlog, via, ..Listen::default() })
    else {
        return;
    };
    let mut absent = 0;
    let record = draft.record();
    if !sock.local(&mut record.address, &mut record.port) {
        absent |= listen::address | listen::port;
    }
    (record.family, record.protocol) = (sock.family(), sock.protocol());
    if !sock.exists() {
        absent |= listen::family | listen::protocol;
    }
    let text = sock.bound_path(&mut draft);
    if text.offset == 0 {
        absent |= listen::unix_path;
    }
    draft.record().unix_path = text;
    draft.record().header.absent = absent;
    draft.emit(word);
}
