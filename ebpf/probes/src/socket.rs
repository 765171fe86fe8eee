//! What the kernel knows of a socket.

use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
};

use crate::{
    call::user,
    events::{
        catalogue::{FAMILY, PROTOCOL},
        index,
        wire::Text,
    },
    kernel::{
        self, Pointer, file, inet_sock, inode, sock, sock_common, socket, unix_address, unix_sock,
    },
    path,
    record::Draft,
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
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Longest path of a unix socket.
const UNIX_PATH_MAX: usize = 108;

/// An address and a port; IPv4 is mapped into IPv6.
#[derive(Clone, Copy, Default)]
pub struct Endpoint {
    /// The address, in network order.
    pub address: [u8; 16],
    /// The port.
    pub port: u16,
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub struct Sock(pub Pointer);

impl Sock {
    /// The socket behind a descriptor of the current process.
    #[inline(always)]
    #[must_use]
    pub fn of_descriptor(descriptor: i32) -> Option<Self> {
        Self::of_file(path::file_of(descriptor)?)
    }

    /// The socket that an open file is.
    #[inline(always)]
    #[must_use]
    pub fn of_file(open_file: Pointer) -> Option<Self> {
        let mode: u16 = inode::i_mode.read(file::f_inode.read(open_file)?)?;
        if mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let pointer: Pointer = socket::sk.read(file::private_data.read(open_file)?)?;
        (!pointer.is_null()).then_some(Self(pointer))
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

    /// The socket that a unix socket is connected to.
    #[inline(always)]
    #[must_use]
    pub fn unix_peer(self) -> Option<Self> {
        if self.family() != family::UNIX {
            return None;
        }
        let peer: Pointer = unix_sock::peer.read(self.0)?;
        (!peer.is_null()).then_some(Self(peer))
    }

    /// The other side.
    #[inline(always)]
    #[must_use]
    pub fn peer(self) -> Option<Endpoint> {
        let port = u16::from_be(sock_common::skc_dport.read(self.0)?);
        self.endpoint(&sock_common::skc_daddr, &sock_common::skc_v6_daddr, port)
    }

    /// This side.
    #[inline(always)]
    #[must_use]
    pub fn local(self) -> Option<Endpoint> {
        // A socket that is being closed has given its number back, but not its copy on the wire.
        let port = match sock_common::skc_num.read(self.0)? {
            0 => u16::from_be(inet_sock::inet_sport.read(self.0)?),
            port => port,
        };
        self.endpoint(&sock_common::skc_rcv_saddr, &sock_common::skc_v6_rcv_saddr, port)
    }

    #[inline(always)]
    fn endpoint(self, v4: &kernel::Offset, v6: &kernel::Offset, port: u16) -> Option<Endpoint> {
        let address = match self.family() {
            family::INET => mapped(v4.read(self.0)?),
            family::INET6 => v6.read(self.0)?,
            _ => return None,
        };
        Some(Endpoint { address, port })
    }

    /// Appends the path that a unix socket is bound to; `None` if it is not, or no unix socket.
    #[inline(always)]
    pub fn bound_path<R>(self, draft: &mut Draft<R>) -> Option<Text> {
        if self.family() != family::UNIX {
            return None;
        }
        let address: Pointer = unix_sock::addr.read(self.0)?;
        if address.is_null() {
            return None;
        }
        let length: i32 = unix_address::len.read(address)?;
        unix_path::<R, false>(draft, unix_address::name.of(address)? as u64, length as usize)
    }
}

/// What a process passed as an address.
pub struct Given {
    pointer: u64,
    length: u32,
    /// Index in the catalogue's families; `None` for the one that breaks an association.
    pub family: Option<u8>,
}

impl Given {
    /// The address of `length` bytes at `pointer`; `None` if it cannot be read.
    #[inline(always)]
    #[must_use]
    pub fn new(pointer: u64, length: u32) -> Option<Self> {
        let family: u16 = user(pointer)?;
        Some(Self { pointer, length, family: (family != 0).then(|| family_of(family)) })
    }

    /// The address and port, of IPv4 or IPv6.
    #[inline(always)]
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        let port = u16::from_be(user(self.pointer + 2)?);
        let address = match self.family? {
            family::INET => mapped(user(self.pointer + 4)?),
            family::INET6 => user(self.pointer + 8)?,
            _ => return None,
        };
        Some(Endpoint { address, port })
    }

    /// Appends the path of a unix socket.
    #[inline(always)]
    pub fn path<R>(&self, draft: &mut Draft<R>) -> Option<Text> {
        if self.family != Some(family::UNIX) {
            return None;
        }
        unix_path::<R, true>(draft, self.pointer, self.length as usize)
    }
}

/// Appends the path in a `struct sockaddr_un` of `length` bytes, in the form of the catalogue: `@`
/// for the NUL before an abstract one, no NUL behind another.
#[inline(always)]
fn unix_path<R, const USER: bool>(
    draft: &mut Draft<R>,
    address: u64,
    length: usize,
) -> Option<Text> {
    let path = address + size_of::<u16>() as u64;
    let length = length.wrapping_sub(size_of::<u16>());
    if length == 0 || length > UNIX_PATH_MAX {
        return None;
    }
    let first: u8 = if USER { user(path)? } else { kernel::read(path as Pointer)? };
    let room = draft.room::<{ UNIX_PATH_MAX + 1 }>()?;
    if first == 0 {
        // SAFETY: the room is that large.
        let result = unsafe {
            room.write(b'@');
            let (room, length, path) =
                (room.add(1).cast(), length as u32 - 1, (path + 1) as Pointer);
            if USER {
                bpf_probe_read_user(room, length, path)
            } else {
                bpf_probe_read_kernel(room, length, path)
            }
        };
        return (result == 0).then(|| draft.keep(length, false));
    }
    // A path that fills the address has no NUL; the helper wants room for one.
    let (room, room_length, path) = (room.cast(), length as u32 + 1, path as Pointer);
    // SAFETY: the room is that large.
    let read = unsafe {
        if USER {
            bpf_probe_read_user_str(room, room_length, path)
        } else {
            bpf_probe_read_kernel_str(room, room_length, path)
        }
    };
    (read > 0).then(|| draft.keep(read as usize - 1, false))
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
