//! What the kernel knows of a socket.

use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
};

use core::ptr;

use crate::{
    call::user,
    events::{
        catalogue::{FAMILY, PROTOCOL},
        index,
        wire::Text,
    },
    kernel::{
        self, Pointer, file, inet_connection_sock, inet_sock, inode, mptcp_sock,
        mptcp_subflow_context, sock, sock_common, socket, tcp_sock, unix_address, unix_sock,
    },
    path,
    record::{Draft, at_most},
};

/// Address families, as in the catalogue.
pub mod family {
    use super::{FAMILY, index};
    /// None of the others.
    pub const OTHER: u8 = index(FAMILY, "other");
    /// Unix domain.
    pub const UNIX: u8 = index(FAMILY, "unix");
    /// IPv4.
    pub const INET: u8 = index(FAMILY, "inet");
    /// IPv6.
    pub const INET6: u8 = index(FAMILY, "inet6");
}

/// Transport protocols, as in the catalogue.
pub mod protocol {
    use super::{PROTOCOL, index};
    /// None of the others.
    pub const OTHER: u8 = index(PROTOCOL, "other");
    /// TCP, also inside of MPTCP.
    pub const TCP: u8 = index(PROTOCOL, "tcp");
    /// UDP.
    pub const UDP: u8 = index(PROTOCOL, "udp");
    /// ICMP for IPv4 or IPv6.
    pub const ICMP: u8 = index(PROTOCOL, "icmp");
    /// Unix domain.
    pub const UNIX: u8 = index(PROTOCOL, "unix");
}

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_ICMP: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_ICMPV6: u16 = 58;
const IPPROTO_MPTCP: u16 = 262;
const TCP_ESTABLISHED: u8 = 1;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Longest path of a unix socket.
const UNIX_PATH_MAX: usize = 108;

/// A `struct sock`; null where there is none, and then nothing is known of it.
///
/// Values go straight into the record and a function says whether there was one: the compiler leaves
/// what an empty `Option` holds to chance, and the verifier refuses to read that.
#[derive(Clone, Copy)]
pub struct Sock(pub Pointer);

impl Sock {
    /// No socket.
    pub const NONE: Self = Self(ptr::null());

    /// The socket behind a descriptor of the current process.
    #[inline(always)]
    #[must_use]
    pub fn of_descriptor(descriptor: i32) -> Self {
        match path::file_of(descriptor) {
            Some(open_file) => Self::of_file(open_file),
            None => Self::NONE,
        }
    }

    /// The socket that an open file is.
    #[inline(always)]
    #[must_use]
    pub fn of_file(open_file: Pointer) -> Self {
        let inode: Pointer = file::f_inode.read(open_file).unwrap_or(ptr::null());
        let mode: u16 = inode::i_mode.read(inode).unwrap_or(0);
        if mode & S_IFMT != S_IFSOCK {
            return Self::NONE;
        }
        let data: Pointer = file::private_data.read(open_file).unwrap_or(ptr::null());
        Self(socket::sk.read(data).unwrap_or(ptr::null()))
    }

    /// Whether there is one.
    #[inline(always)]
    #[must_use]
    pub fn exists(self) -> bool {
        !self.0.is_null()
    }

    /// Its address in the kernel, by which maps know it.
    #[inline(always)]
    #[must_use]
    pub fn key(self) -> u64 {
        self.0 as u64
    }

    /// Index in the catalogue's families.
    #[inline(always)]
    #[must_use]
    pub fn family(self) -> u8 {
        family_of(sock_common::skc_family.read(self.0).unwrap_or(0))
    }

    /// Index in the catalogue's protocols.
    #[inline(always)]
    #[must_use]
    pub fn protocol(self) -> u8 {
        match (self.family(), sock::sk_protocol.read::<u16>(self.0).unwrap_or(0)) {
            (family::UNIX, _) => protocol::UNIX,
            (family::INET | family::INET6, IPPROTO_TCP | IPPROTO_MPTCP) => protocol::TCP,
            (family::INET | family::INET6, IPPROTO_UDP) => protocol::UDP,
            (family::INET, IPPROTO_ICMP) | (family::INET6, IPPROTO_ICMPV6) => protocol::ICMP,
            _ => protocol::OTHER,
        }
    }

    /// Whether it is a `struct tcp_sock`. A socket of MPTCP is none: its subflows are.
    #[inline(always)]
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(self.family(), family::INET | family::INET6)
            && sock::sk_protocol.read(self.0) == Some(IPPROTO_TCP)
    }

    /// The socket that a process has of this one, which is a `struct tcp_sock`: itself, or that of
    /// MPTCP if it is one of its subflows.
    #[inline(always)]
    #[must_use]
    pub fn owner(self) -> Self {
        let mut owner: Pointer = ptr::null();
        if tcp_sock::is_mptcp.read::<u8>(self.0) == Some(1) {
            let context = inet_connection_sock::icsk_ulp_data.read(self.0).unwrap_or(ptr::null());
            owner = mptcp_subflow_context::conn.read(context).unwrap_or(ptr::null());
        }
        if owner.is_null() { self } else { Self(owner) }
    }

    /// The first subflow of a socket of MPTCP; of another the socket itself.
    #[inline(always)]
    #[must_use]
    pub fn first_subflow(self) -> Self {
        if sock::sk_protocol.read(self.0) == Some(IPPROTO_MPTCP) {
            Self(mptcp_sock::first.read(self.0).unwrap_or(ptr::null()))
        } else {
            self
        }
    }

    /// Whether it is established.
    #[inline(always)]
    #[must_use]
    pub fn is_established(self) -> bool {
        sock_common::skc_state.read(self.0) == Some(TCP_ESTABLISHED)
    }

    /// The socket that a unix socket is connected to.
    #[inline(always)]
    #[must_use]
    pub fn unix_peer(self) -> Self {
        if self.family() == family::UNIX {
            Self(unix_sock::peer.read(self.0).unwrap_or(ptr::null()))
        } else {
            Self::NONE
        }
    }

    /// Fills in the other side, of IPv4 or IPv6.
    #[inline(always)]
    #[must_use]
    pub fn peer(self, address: &mut [u8; 16], port: &mut u16) -> bool {
        let known = self.address(&sock_common::skc_daddr, &sock_common::skc_v6_daddr, address);
        if known {
            *port = u16::from_be(sock_common::skc_dport.read(self.0).unwrap_or(0));
        }
        known
    }

    /// Fills in this side, of IPv4 or IPv6.
    #[inline(always)]
    #[must_use]
    pub fn local(self, address: &mut [u8; 16], port: &mut u16) -> bool {
        let known =
            self.address(&sock_common::skc_rcv_saddr, &sock_common::skc_v6_rcv_saddr, address);
        if known {
            *port = sock_common::skc_num.read(self.0).unwrap_or(0);
            // A socket that is being closed has given its number back, but not its copy on the wire.
            if *port == 0 {
                *port = u16::from_be(inet_sock::inet_sport.read(self.0).unwrap_or(0));
            }
        }
        known
    }

    #[inline(always)]
    fn address(self, v4: &kernel::Offset, v6: &kernel::Offset, address: &mut [u8; 16]) -> bool {
        match self.family() {
            family::INET => *address = mapped(v4.read(self.0).unwrap_or_default()),
            family::INET6 => *address = v6.read(self.0).unwrap_or_default(),
            _ => return false,
        }
        true
    }

    /// Appends the path that a unix socket is bound to. Without an offset it is not, or is no unix
    /// socket.
    #[inline(always)]
    pub fn bound_path<R>(self, draft: &mut Draft<R>) -> Text {
        if self.family() != family::UNIX {
            return Text::default();
        }
        let address: Pointer = unix_sock::addr.read(self.0).unwrap_or(ptr::null());
        if address.is_null() {
            return Text::default();
        }
        let length: i32 = unix_address::len.read(address).unwrap_or(0);
        let path = unix_address::name.of(address).unwrap_or(ptr::null());
        unix_path::<R, false>(draft, path as u64, length as usize)
    }
}

/// What a process passed as an address.
#[derive(Clone, Copy)]
pub struct Given {
    pointer: u64,
    length: u32,
    /// `sa_family`; 0 where it cannot be read, or for the address that breaks an association.
    number: u16,
}

impl Given {
    /// Nothing is known any more.
    pub const NONE: Self = Self { pointer: 0, length: 0, number: 0 };

    /// The address of `length` bytes at `pointer`.
    #[inline(always)]
    #[must_use]
    pub fn new(pointer: u64, length: u32) -> Self {
        Self { pointer, length, number: user(pointer).unwrap_or(0) }
    }

    /// Whether it is or may be an address to connect to.
    #[inline(always)]
    #[must_use]
    pub fn is_address(self) -> bool {
        self.number != 0 || self.pointer == 0
    }

    /// Whether the address is known.
    #[inline(always)]
    #[must_use]
    pub fn exists(self) -> bool {
        self.number != 0
    }

    /// Index in the catalogue's families.
    #[inline(always)]
    #[must_use]
    pub fn family(self) -> u8 {
        family_of(self.number)
    }

    /// Fills in the address and port, of IPv4 or IPv6.
    #[inline(always)]
    #[must_use]
    pub fn endpoint(self, address: &mut [u8; 16], port: &mut u16) -> bool {
        match self.family() {
            family::INET => *address = mapped(user(self.pointer + 4).unwrap_or_default()),
            family::INET6 => *address = user(self.pointer + 8).unwrap_or_default(),
            _ => return false,
        }
        *port = u16::from_be(user(self.pointer + 2).unwrap_or(0));
        true
    }

    /// Appends the path of a unix socket; without an offset there is none.
    #[inline(always)]
    pub fn path<R>(self, draft: &mut Draft<R>) -> Text {
        if self.family() == family::UNIX {
            unix_path::<R, true>(draft, self.pointer, self.length as usize)
        } else {
            Text::default()
        }
    }
}

/// Appends the path in a `struct sockaddr_un` of `length` bytes, in the form of the catalogue: `@`
/// for the NUL before an abstract one, no NUL behind another.
#[inline(always)]
fn unix_path<R, const USER: bool>(draft: &mut Draft<R>, address: u64, length: usize) -> Text {
    let path = address + size_of::<u16>() as u64;
    let length = length.wrapping_sub(size_of::<u16>());
    if length == 0 || length > UNIX_PATH_MAX {
        return Text::default();
    }
    let first: Option<u8> = if USER { user(path) } else { kernel::read(path as Pointer) };
    let Some(room) = draft.room::<{ UNIX_PATH_MAX + 2 }>() else { return Text::default() };
    let copied = match first {
        None => -1,
        Some(0) => {
            let length = at_most!(length - 1, UNIX_PATH_MAX) as u32;
            // SAFETY: the room is that large.
            let result = unsafe {
                room.write(b'@');
                let (room, path) = (room.add(1).cast(), (path + 1) as Pointer);
                if USER {
                    bpf_probe_read_user(room, length, path)
                } else {
                    bpf_probe_read_kernel(room, length, path)
                }
            };
            if result == 0 { i64::from(length) + 1 } else { -1 }
        }
        Some(_) => {
            // A path that fills the address has no NUL; the helper wants room for one.
            let (room, path) = (room.cast(), path as Pointer);
            let length = at_most!(length + 1, UNIX_PATH_MAX + 1) as u32;
            // SAFETY: the room is that large.
            let read = unsafe {
                if USER {
                    bpf_probe_read_user_str(room, length, path)
                } else {
                    bpf_probe_read_kernel_str(room, length, path)
                }
            };
            read - 1
        }
    };
    if copied < 0 {
        return Text::default();
    }
    draft.keep(at_most!(copied as usize, UNIX_PATH_MAX), false)
}

#[inline(always)]
fn family_of(number: u16) -> u8 {
    match number {
        AF_UNIX => family::UNIX,
        AF_INET => family::INET,
        AF_INET6 => family::INET6,
        _ => family::OTHER,
    }
}

#[inline(always)]
fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[10] = 0xff;
    address[11] = 0xff;
    address[12] = v4[0];
    address[13] = v4[1];
    address[14] = v4[2];
    address[15] = v4[3];
    address
}
