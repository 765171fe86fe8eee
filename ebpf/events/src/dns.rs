//! What the programs of the DNS guard and its proxy share: the proxy's addresses, and for each socket
//! that was led there, where it wanted to go and who it belongs to.
//!
//! The proxy listens on loopback at several *doors*: all are the same to it, but a socket that talks to
//! several servers is led to another door for each, and so every packet tells by its sender and its door
//! which server it was for. What is behind one door for one socket is a *flow*.

use crate::wire::Header;

/// Port of the servers that sockets are led away from.
pub const PORT: u16 = 53;
/// Doors: servers that one unconnected socket can talk to at the same time. TCP has the first one only, as
/// a connection has one server.
pub const DOORS: usize = 8;
/// Flows and senders that are remembered; those that were not used for longest are forgotten first.
pub const MAX_FLOWS: u32 = 16_384;

/// Map, array of one [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Map, hash of [`FlowKey`] to [`Flow`].
pub const FLOWS: &str = "FLOWS";
/// Map, hash of [`Sender`] to the cookie (u64) of its socket.
pub const SENDERS: &str = "SENDERS";
/// Map, array of u64 by the `COUNT_` constants.
pub const COUNTS: &str = "COUNTS";

/// Calls that were led to the proxy.
pub const COUNT_REDIRECTED: u32 = 0;
/// Calls from another network namespace than the proxy's.
pub const COUNT_ELSEWHERE: u32 = 1;
/// Calls while the proxy was dead.
pub const COUNT_DEAD: u32 = 2;
/// Calls by a family or protocol for which the proxy has no door.
pub const COUNT_NO_DOOR: u32 = 3;
/// Calls whose flow could not be remembered.
pub const COUNT_FORGOTTEN: u32 = 4;
/// Number of counts.
pub const COUNTS_LEN: u32 = 5;

/// What the programs do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Cookie of the network namespace that the proxy is in.
    pub netns: u64,
    /// `CLOCK_MONOTONIC` until which the proxy is taken to be alive, in nanoseconds.
    pub alive_until: u64,
    /// Ports of the doors for UDP on 127.0.0.1; 0: none.
    pub udp4: [u16; DOORS],
    /// Ports of the doors for UDP on `::1`.
    pub udp6: [u16; DOORS],
    /// Port for TCP on 127.0.0.1.
    pub tcp4: u16,
    /// Port for TCP on `::1`.
    pub tcp6: u16,
    /// 1: while the proxy is dead, calls pass untouched; 0: they fail.
    pub pass_dead: u8,
    /// 1: in other network namespaces calls pass untouched; 0: they fail.
    pub pass_elsewhere: u8,
    /// Fills up; 0.
    pub pad: [u8; 2],
}

/// Whose flow it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Index of the door.
    pub door: u32,
    /// Fills up; 0.
    pub pad: u32,
}

/// Where a socket wanted to go, and who it belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Who called last, and when.
    pub header: Header,
    /// The server.
    pub address: [u8; 16],
    /// Its port.
    pub port: u16,
    /// Transport protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// Fills up; 0.
    pub pad: [u8; 5],
}

/// Where a packet to a door comes from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Address; an IPv4 one is mapped into IPv6.
    pub address: [u8; 16],
    /// Port.
    pub port: u16,
    /// Transaction id, the first two bytes of the message; 0 for TCP and shorter messages.
    pub id: u16,
    /// Transport protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// Index of the door.
    pub door: u8,
    /// Fills up; 0.
    pub pad: [u8; 2],
}

// Padding that the compiler adds would make keys differ that are the same.
const _: () = assert!(size_of::<Settings>() == 56);
const _: () = assert!(size_of::<FlowKey>() == 16);
const _: () = assert!(size_of::<Flow>() == size_of::<Header>() + 24);
const _: () = assert!(size_of::<Sender>() == 24);
