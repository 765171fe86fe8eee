//! denied: decides whether a socket of the cgroup that this is attached to may connect, send, bind.
//!
//! Loaded once for each guard, with maps of its own ([`tipstaff_probes::events::guard`]). Nothing here
//! can deny by accident: without a table, past the deadman, and where the kernel does not give what is
//! asked of it, the operation goes on; once there is a table, an address that no node is about gets the
//! table's default, as the host meant it.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        bindings::BPF_F_NO_PREALLOC,
        helpers::generated::bpf_ktime_get_boot_ns,
        macros::{cgroup_sock_addr, map},
        maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
        programs::SockAddrContext,
    },
    events::{
        catalogue::{Denied, FAMILY, OPERATION, PROTOCOL, VERDICT, denied},
        guard::{
            BIND, BY_DEFAULT, CONNECT, COUNTS_OF_TABLE, Count, DEADMAN, DEFAULT_IN_RECORD,
            DENY_BIT, ENFORCE, GUARD, MAX_KNOWN, MAX_NODES, MODE, Node, OTHER, PLACE_BITS, Peer,
            Place, RECORDS_PER_SECOND, SCOPE, SEND, TABLE, TCP, UDP, WORDS, lifts,
        },
        index,
    },
    map::{self, add},
    record::emit,
    task,
};

#[map]
static CONTROL: Array<u64> = Array::with_max_entries(WORDS, 0);
#[map]
static NODES: LpmTrie<Place, Node> = LpmTrie::with_max_entries(MAX_NODES, 0);
#[map]
static KNOWN: HashMap<Peer, u64> = HashMap::with_max_entries(MAX_KNOWN, BPF_F_NO_PREALLOC);
#[map]
static COUNTS: Array<Count> = Array::with_max_entries(2 * COUNTS_OF_TABLE, 0);

/// What a program returns: the call fails with EPERM, or goes on.
const FAIL: i32 = 0;
const GO_ON: i32 = 1;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const NANOSECONDS: u64 = 1_000_000_000;

const INET: u8 = index(FAMILY, "inet");
const INET6: u8 = index(FAMILY, "inet6");

/// The first 12 bytes of an IPv4 address that is mapped into IPv6, in words as they are in memory.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];
/// 127.0.0.1 and the last word of `::1`, as they are in memory.
const LOOPBACK: u32 = 0x7f00_0001_u32.to_be();
const LOOPBACK6: u32 = 1_u32.to_be();

#[cgroup_sock_addr(connect4)]
fn guard_connect4(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, CONNECT, INET, || destination4(&ctx))
}

#[cgroup_sock_addr(connect6)]
fn guard_connect6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, CONNECT, INET6, || destination6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
fn guard_sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context, which the verifier knows.
    let from = unsafe { (&raw const (*ctx.sock_addr).msg_src_ip4).read_volatile() };
    verdict(&ctx, SEND, INET, || only(mapped(or_own(given4(&ctx), from))))
}

#[cgroup_sock_addr(sendmsg6)]
fn guard_sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, SEND, INET6, || destination6(&ctx))
}

#[cgroup_sock_addr(bind4)]
fn guard_bind4(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, BIND, INET, || only(mapped(given4(&ctx))))
}

#[cgroup_sock_addr(bind6)]
fn guard_bind6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, BIND, INET6, || only(given6(&ctx)))
}

/// An address, in words as they are in memory.
type Address = [u32; 4];

/// What becomes of the operation. `addresses`: the one that it is about, twice; or two, if it may be about
/// either: then one that is denied is enough.
#[inline(always)]
fn verdict(
    ctx: &SockAddrContext,
    operation: u16,
    family: u8,
    addresses: impl Fn() -> [Address; 2],
) -> i32 {
    let table = control(TABLE);
    if table == 0 {
        return GO_ON;
    }
    let deadman = control(DEADMAN);
    if deadman != 0 && now() >= deadman {
        return GO_ON;
    }
    let (port, transport) = port_and_protocol(ctx);
    let protocol = match transport {
        IPPROTO_TCP => TCP,
        IPPROTO_UDP => UDP,
        _ => OTHER,
    };
    let generation = table & !DENY_BIT;
    let asked = operation | protocol;
    let [one, other] = addresses();
    let mut address = octets(one);
    let mut rule = denying(table, address, asked, port);
    if rule.is_none() && other != one {
        address = octets(other);
        rule = denying(table, address, asked, port);
    }
    let Some(rule) = rule else { return GO_ON };
    let enforces = control(MODE) == ENFORCE;
    let record = Denied {
        address,
        rule: if rule == BY_DEFAULT { DEFAULT_IN_RECORD } else { u32::from(rule) },
        port,
        operation: match operation {
            CONNECT => index(OPERATION, "connect"),
            SEND => index(OPERATION, "send"),
            _ => index(OPERATION, "bind"),
        },
        family,
        protocol: match protocol {
            TCP => index(PROTOCOL, "tcp"),
            UDP => index(PROTOCOL, "udp"),
            _ => index(PROTOCOL, "other"),
        },
        verdict: if enforces { index(VERDICT, "denied") } else { index(VERDICT, "would_deny") },
        ..Denied::default()
    };
    account(generation, rule, enforces, record);
    if enforces { FAIL } else { GO_ON }
}

/// The rule by which the address is denied in this table.
#[inline(always)]
fn denying(table: u64, address: [u8; 16], asked: u16, port: u16) -> Option<u16> {
    let generation = table & !DENY_BIT;
    let key = Key::new(PLACE_BITS, Place { generation, address });
    let rule = match NODES.get(&key).and_then(|node| node.find(asked, port, now)) {
        Some(entry) if entry.denies() => entry.rule,
        None if table & DENY_BIT != 0 => BY_DEFAULT,
        Some(_) | None => return None,
    };
    let is_lifted =
        asked & BIND == 0 && (is_known(address, port, rule) || is_known(address, 0, rule));
    (!is_lifted).then_some(rule)
}

/// Whether what is known of the peer lifts the denial by this rule.
#[inline(always)]
fn is_known(address: [u8; 16], port: u16, rule: u16) -> bool {
    let peer = Peer { address, port: u64::from(port) };
    // SAFETY: a map value; it changes as a whole.
    match unsafe { KNOWN.get(&peer) } {
        Some(until) => lifts(*until, rule, now()),
        None => false,
    }
}

/// Counts the denial, and tells of it if somebody wants to know and has not heard too much of the rule.
#[inline(always)]
fn account(generation: u64, rule: u16, enforces: bool, mut record: Denied) {
    let part = (generation & 1) as u32 * COUNTS_OF_TABLE;
    let Some(count) = COUNTS.get_ptr_mut(part + u32::from(rule)) else { return };
    // SAFETY: a map value, aligned to 8 bytes.
    let (denied, would_deny) = unsafe { (&raw mut (*count).denied, &raw mut (*count).would_deny) };
    add(if enforces { denied } else { would_deny }, 1);
    let word = map::wanted(denied::KIND);
    if word == 0 {
        return;
    }
    // SAFETY: as above. CPUs may overwrite each other's window: then a few records more are made.
    unsafe {
        let second = now() / NANOSECONDS;
        let (of, records) = (&raw mut (*count).second, &raw mut (*count).records);
        if of.read_volatile() != second {
            of.write_volatile(second);
            records.write_volatile(0);
        }
        let made = records.read_volatile();
        if made >= RECORDS_PER_SECOND {
            add(&raw mut (*count).suppressed, 1);
            return;
        }
        records.write_volatile(made + 1);
    }
    record.header = task::header_of(task::current(), denied::KIND, word);
    record.guard = control(GUARD) as u32;
    record.scope = control(SCOPE);
    emit(word, &record);
}

#[inline(always)]
fn control(word: u32) -> u64 {
    match CONTROL.get_ptr(word) {
        // SAFETY: a map value; words change as a whole.
        Some(word) => unsafe { word.read_volatile() },
        None => 0,
    }
}

/// On the clock that counts suspend.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn port_and_protocol(ctx: &SockAddrContext) -> (u16, u32) {
    // SAFETY: the context, which the verifier knows.
    let (port, protocol) = unsafe {
        (
            (&raw const (*ctx.sock_addr).user_port).read_volatile(),
            (&raw const (*ctx.sock_addr).protocol).read_volatile(),
        )
    };
    (u16::from_be(port as u16), protocol)
}

#[inline(always)]
fn given4(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the context, which the verifier knows.
    unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() }
}

#[inline(always)]
fn given6(ctx: &SockAddrContext) -> Address {
    // SAFETY: the context, which the verifier knows.
    unsafe {
        let words = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}

/// The IPv4 address that the socket is bound to, or 0.
#[inline(always)]
fn bound4(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the context and the socket in it, which the verifier knows.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        if socket.is_null() { 0 } else { (&raw const (*socket).src_ip4).read_volatile() }
    }
}

/// Whether an IPv6 socket is bound to an IPv4 address.
#[inline(always)]
fn is_bound_mapped(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context and the socket in it, which the verifier knows.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        if socket.is_null() {
            return false;
        }
        let words = (&raw const (*socket).src_ip6).cast::<u32>();
        let [a, b, c] =
            [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile()];
        [a, b, c] == MAPPED
    }
}

#[inline(always)]
fn mapped(address: u32) -> Address {
    [MAPPED[0], MAPPED[1], MAPPED[2], address]
}

#[inline(always)]
fn only(address: Address) -> [Address; 2] {
    [address, address]
}

/// Where an IPv4 connect goes. The kernel takes 0.0.0.0 for the address that the socket is bound to, but for
/// loopback where that is a broadcast address, which cannot be told from others here: so both count.
#[inline(always)]
fn destination4(ctx: &SockAddrContext) -> [Address; 2] {
    match given4(ctx) {
        0 => [mapped(or_own(0, bound4(ctx))), mapped(LOOPBACK)],
        address => only(mapped(address)),
    }
}

/// The kernel takes 0.0.0.0 for the address that the call comes from, and where that is not set (or is a
/// group's) for loopback.
#[inline(always)]
fn or_own(address: u32, from: u32) -> u32 {
    const GROUPS: u8 = 224;
    if address != 0 {
        address
    } else if from != 0 && (from as u8) < GROUPS {
        from
    } else {
        LOOPBACK
    }
}

/// Where an IPv6 call goes. The kernel takes :: for loopback, in the family that the socket is bound in,
/// and decides about 0.0.0.0 mapped as about 0.0.0.0.
#[inline(always)]
fn destination6(ctx: &SockAddrContext) -> [Address; 2] {
    let [a, b, c, d] = given6(ctx);
    if a | b != 0 {
        return only([a, b, c, d]);
    }
    if c == MAPPED[2] && d == 0 {
        return [mapped(or_own(0, bound4(ctx))), mapped(LOOPBACK)];
    }
    if c | d == 0 {
        return only(if is_bound_mapped(ctx) { mapped(LOOPBACK) } else { [0, 0, 0, LOOPBACK6] });
    }
    only([a, b, c, d])
}

#[inline(always)]
fn octets(words: Address) -> [u8; 16] {
    // SAFETY: both are 16 bytes, and every pattern is an address.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}
