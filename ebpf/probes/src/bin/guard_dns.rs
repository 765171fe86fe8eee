//! Leads what a scope sends to DNS servers to the proxy of the DNS guard, and turns the proxy's address
//! back into the server's where the sockets look. All programs are attached to the scope's cgroup.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        bindings::bpf_sock_addr,
        helpers::generated::{
            bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes,
        },
        macros::{cgroup_skb, cgroup_sock_addr, map},
        maps::{Array, LruHashMap},
        programs::{SkBuffContext, SockAddrContext},
    },
    events::{
        catalogue::dns_query,
        dns::{
            COUNT_DEAD, COUNT_ELSEWHERE, COUNT_FORGOTTEN, COUNT_NO_DOOR, COUNT_REDIRECTED,
            COUNTS_LEN, DOORS, Flow, FlowKey, MAX_FLOWS, PORT, Sender, Settings,
        },
    },
    map::add,
    task,
};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
static SENDERS: LruHashMap<Sender, u64> = LruHashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
static COUNTS: Array<u64> = Array::with_max_entries(COUNTS_LEN, 0);

/// The call goes on.
const PASS: i32 = 1;
/// The call fails with EPERM.
const FAIL: i32 = 0;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// The proxy's addresses, as they are on the wire.
const LOOPBACK4: u32 = u32::from_be_bytes([127, 0, 0, 1]).to_be();
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];
/// What an IPv4 address mapped into IPv6 begins with.
const MAPPED: u32 = 0xffff_u32.to_be();

#[cgroup_sock_addr(connect4)]
fn dns_connect4(ctx: SockAddrContext) -> i32 {
    redirect::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(connect6)]
fn dns_connect6(ctx: SockAddrContext) -> i32 {
    redirect::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg4)]
fn dns_sendmsg4(ctx: SockAddrContext) -> i32 {
    redirect::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg6)]
fn dns_sendmsg6(ctx: SockAddrContext) -> i32 {
    redirect::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(recvmsg4)]
fn dns_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(recvmsg6)]
fn dns_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername4)]
fn dns_getpeername4(ctx: SockAddrContext) -> i32 {
    restore::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername6)]
fn dns_getpeername6(ctx: SockAddrContext) -> i32 {
    restore::<true>(ctx.sock_addr)
}

#[cgroup_skb(egress)]
fn dns_egress(ctx: SkBuffContext) -> i32 {
    if let Some(settings) = SETTINGS.get(0) {
        remember_sender(&ctx, settings);
    }
    // Nothing is ever dropped here.
    PASS
}

#[inline(always)]
fn count(index: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        add(counter, 1);
    }
}

/// The address that a call passes or gets. Each access is one of the widths that the verifier allows.
struct SockAddr(*mut bpf_sock_addr);

impl SockAddr {
    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: the context of the program.
        u16::from_be(unsafe { (&raw const (*self.0).user_port).read_volatile() } as u16)
    }

    #[inline(always)]
    fn set_port(&self, port: u16) {
        // SAFETY: the context of the program.
        unsafe { (&raw mut (*self.0).user_port).write_volatile(u32::from(port.to_be())) };
    }

    #[inline(always)]
    fn protocol(&self) -> u32 {
        // SAFETY: the context of the program.
        unsafe { (&raw const (*self.0).protocol).read_volatile() }
    }

    #[inline(always)]
    fn v4(&self) -> u32 {
        // SAFETY: the context of the program.
        unsafe { (&raw const (*self.0).user_ip4).read_volatile() }
    }

    #[inline(always)]
    fn set_v4(&self, address: u32) {
        // SAFETY: the context of the program.
        unsafe { (&raw mut (*self.0).user_ip4).write_volatile(address) };
    }

    #[inline(always)]
    fn v6(&self) -> [u32; 4] {
        // SAFETY: the context of the program.
        unsafe {
            let words = &raw const (*self.0).user_ip6;
            let words = words.cast::<u32>();
            [
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ]
        }
    }

    #[inline(always)]
    fn set_v6(&self, address: [u32; 4]) {
        // SAFETY: the context of the program.
        unsafe {
            let words = (&raw mut (*self.0).user_ip6).cast::<u32>();
            words.write_volatile(address[0]);
            words.add(1).write_volatile(address[1]);
            words.add(2).write_volatile(address[2]);
            words.add(3).write_volatile(address[3]);
        }
    }

    /// The address; an IPv4 one is mapped into IPv6.
    #[inline(always)]
    fn address<const V6: bool>(&self) -> [u32; 4] {
        if V6 { self.v6() } else { [0, 0, MAPPED, self.v4()] }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context of the program.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }
}

#[inline(always)]
fn is_mapped(address: [u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED
}

#[inline(always)]
fn bytes(address: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 bytes, and all bit patterns are valid.
    unsafe { core::mem::transmute(address) }
}

#[inline(always)]
fn words(address: [u8; 16]) -> [u32; 4] {
    // SAFETY: both are 16 bytes, and all bit patterns are valid.
    unsafe { core::mem::transmute(address) }
}

/// Leads a call that goes to a DNS server to the proxy.
#[inline(always)]
fn redirect<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let call = SockAddr(ctx);
    let is_tcp = match call.protocol() {
        protocol if protocol == u32::from(IPPROTO_TCP) => true,
        protocol if protocol == u32::from(IPPROTO_UDP) => false,
        _ => return PASS,
    };
    if call.port() != PORT {
        return PASS;
    }
    let Some(settings) = SETTINGS.get(0) else { return FAIL };
    // SAFETY: the context of the program.
    if unsafe { bpf_get_netns_cookie(ctx.cast()) } != settings.netns {
        count(COUNT_ELSEWHERE);
        return i32::from(settings.pass_elsewhere != 0);
    }
    // SAFETY: no arguments.
    if unsafe { bpf_ktime_get_ns() } > settings.alive_until {
        count(COUNT_DEAD);
        return i32::from(settings.pass_dead != 0);
    }
    let address = call.address::<V6>();
    let cookie = call.cookie();
    let door = if is_tcp { 0 } else { door(cookie, bytes(address)) };
    let at = (door as usize) & (DOORS - 1);
    // An IPv6 socket that calls an IPv4 server may be bound to an IPv4 address, and one that calls an IPv6
    // server may be one for IPv6 only.
    let port = match (V6 && !is_mapped(address), is_tcp) {
        (true, true) => settings.tcp6,
        (true, false) => settings.udp6[at],
        (false, true) => settings.tcp4,
        (false, false) => settings.udp4[at],
    };
    if port == 0 {
        count(COUNT_NO_DOOR);
        return FAIL;
    }
    let flow = Flow {
        header: task::header_of(task::current(), dns_query::KIND, u64::MAX),
        address: bytes(address),
        port: PORT,
        protocol: if is_tcp { IPPROTO_TCP } else { IPPROTO_UDP },
        pad: [0; 5],
    };
    if FLOWS.insert(&FlowKey { cookie, door, pad: 0 }, &flow, 0).is_err() {
        count(COUNT_FORGOTTEN);
        return FAIL;
    }
    if !V6 {
        call.set_v4(LOOPBACK4);
    } else if is_mapped(address) {
        call.set_v6([0, 0, MAPPED, LOOPBACK4]);
    } else {
        call.set_v6(LOOPBACK6);
    }
    call.set_port(port);
    count(COUNT_REDIRECTED);
    PASS
}

/// The door for this server: the one that this socket is led to already, or a free one, or the one that
/// was not used for longest.
#[inline(always)]
fn door(cookie: u64, server: [u8; 16]) -> u32 {
    let (mut oldest, mut oldest_time) = (0, u64::MAX);
    let mut door = 0;
    while door < DOORS as u32 {
        // SAFETY: what another CPU writes meanwhile leads to another door of the same socket at worst.
        let Some(flow) = (unsafe { FLOWS.get(&FlowKey { cookie, door, pad: 0 }) }) else {
            return door;
        };
        if words(flow.address) == words(server) {
            return door;
        }
        if flow.header.time < oldest_time {
            (oldest, oldest_time) = (door, flow.header.time);
        }
        door += 1;
    }
    oldest
}

/// Which door has this port.
#[inline(always)]
fn door_of(port: u16, ports: &[u16; DOORS]) -> Option<u32> {
    let mut door = 0;
    while door < DOORS {
        if ports[door] == port {
            return Some(door as u32);
        }
        door += 1;
    }
    None
}

/// Turns the address of a door back into that of the server.
#[inline(always)]
fn restore<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let call = SockAddr(ctx);
    let Some(settings) = SETTINGS.get(0) else { return PASS };
    let (address, port) = (call.address::<V6>(), call.port());
    if port == 0 {
        return PASS;
    }
    let (udp, tcp) = if address == [0, 0, MAPPED, LOOPBACK4] {
        (&settings.udp4, settings.tcp4)
    } else if address == LOOPBACK6 {
        (&settings.udp6, settings.tcp6)
    } else {
        return PASS;
    };
    let door = if call.protocol() == u32::from(IPPROTO_TCP) {
        if port != tcp {
            return PASS;
        }
        0
    } else {
        let Some(door) = door_of(port, udp) else { return PASS };
        door
    };
    let key = FlowKey { cookie: call.cookie(), door, pad: 0 };
    // SAFETY: the flow of a socket whose own calls alone change it.
    let Some(flow) = (unsafe { FLOWS.get(&key) }) else { return PASS };
    let server = words(flow.address);
    if V6 {
        call.set_v6(server);
    } else {
        call.set_v4(server[3]);
    }
    call.set_port(flow.port);
    PASS
}

#[inline(always)]
fn load<T: Default>(ctx: &SkBuffContext, offset: usize) -> Option<T> {
    let mut value = T::default();
    let to = (&raw mut value).cast();
    // SAFETY: `value` has that size.
    let result =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset as u32, to, size_of::<T>() as u32) };
    (result == 0).then_some(value)
}

/// Remembers which socket a packet to a door comes from: this is what the proxy knows it by.
#[inline(always)]
fn remember_sender(ctx: &SkBuffContext, settings: &Settings) -> Option<()> {
    let first: u8 = load(ctx, 0)?;
    let (protocol, source, is_v6, transport): (u8, [u32; 4], bool, usize) = match first >> 4 {
        4 => {
            if load::<u32>(ctx, 16)? != LOOPBACK4 {
                return None;
            }
            let source = [0, 0, MAPPED, load(ctx, 12)?];
            (load(ctx, 9)?, source, false, usize::from(first & 15) * 4)
        }
        6 => {
            if load::<[u32; 4]>(ctx, 24)? != LOOPBACK6 {
                return None;
            }
            (load(ctx, 6)?, load(ctx, 8)?, true, 40)
        }
        _ => return None,
    };
    let ports: [u16; 2] = load(ctx, transport)?;
    let port = u16::from_be(ports[1]);
    let (udp, tcp) =
        if is_v6 { (&settings.udp6, settings.tcp6) } else { (&settings.udp4, settings.tcp4) };
    let (door, id) = match protocol {
        IPPROTO_UDP => {
            (door_of(port, udp)?, u16::from_be(load(ctx, transport + 8).unwrap_or_default()))
        }
        IPPROTO_TCP if port == tcp => {
            // What opens the connection is enough.
            const SYN: u8 = 2;
            if load::<u8>(ctx, transport + 13)? & SYN == 0 {
                return None;
            }
            (0, 0)
        }
        _ => return None,
    };
    // SAFETY: the context of the program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    // SAFETY: looked at only for being there; and this keeps it from being forgotten.
    unsafe { FLOWS.get(&FlowKey { cookie, door, pad: 0 }) }?;
    let sender = Sender {
        address: bytes(source),
        port: u16::from_be(ports[0]),
        id,
        protocol,
        door: door as u8,
        pad: [0; 2],
    };
    // Without it the proxy refuses.
    let _ = SENDERS.insert(&sender, &cookie, 0);
    Some(())
}
