//! Where the proxy listens.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tipstaff_events::dns::{DOORS, Settings};

use super::Transport;
use crate::sys::network;

/// Room for some thousand queries: a burst waits rather than is dropped.
const RECEIVE_BYTES: usize = 4 << 20;

/// Sockets on loopback addresses, with ports that the kernel chose.
#[derive(Debug)]
pub struct Doors {
    /// By family; the second is empty where there is no IPv6.
    pub(super) udp: [Vec<UdpSocket>; 2],
    /// By family.
    pub(super) tcp: Vec<TcpListener>,
    netns: u64,
}

impl Doors {
    /// Opens them in the network namespace of this thread. Only sockets of the same one will be led
    /// there. Its loopback interface must be up.
    pub fn open() -> io::Result<Self> {
        let (udp4, tcp4) = open(Ipv4Addr::LOCALHOST.into())?;
        let mut doors = Self {
            netns: network::netns_cookie(tcp4.as_fd()).map_err(without_cookies)?,
            udp: [udp4, vec![]],
            tcp: vec![tcp4],
        };
        match open(Ipv6Addr::LOCALHOST.into()) {
            Ok((udp6, tcp6)) => {
                doors.udp[1] = udp6;
                doors.tcp.push(tcp6);
            }
            // Without IPv6 nobody can send anything to a server by it either.
            Err(error)
                if [Some(libc::EADDRNOTAVAIL), Some(libc::EAFNOSUPPORT)]
                    .contains(&error.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(doors)
    }

    /// Why this kernel can have none, if so.
    pub fn refusal() -> Option<String> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let cookie = network::netns_cookie(socket.as_fd()).map_err(without_cookies);
        cookie.err().map(|error| error.to_string())
    }

    /// The addresses, each with its protocol. Where the network of the scope is guarded, too, it has
    /// to be allowed to reach them: another guard may see these in place of the server's.
    pub fn addresses(&self) -> io::Result<Vec<(Transport, SocketAddr)>> {
        let udp = self.udp.iter().flatten().map(|door| Ok((Transport::Udp, door.local_addr()?)));
        let tcp = self.tcp.iter().map(|door| Ok((Transport::Tcp, door.local_addr()?)));
        udp.chain(tcp).collect()
    }

    /// What the guard's programs have to know of them.
    pub(crate) fn settings(&self) -> io::Result<Settings> {
        let ports = |sockets: &[UdpSocket]| -> io::Result<[u16; DOORS]> {
            let mut ports = [0; DOORS];
            for (port, socket) in ports.iter_mut().zip(sockets) {
                *port = socket.local_addr()?.port();
            }
            Ok(ports)
        };
        let tcp = |family: usize| -> io::Result<u16> {
            self.tcp.get(family).map_or(Ok(0), |listener| Ok(listener.local_addr()?.port()))
        };
        Ok(Settings {
            netns: self.netns,
            udp4: ports(&self.udp[0])?,
            udp6: ports(&self.udp[1])?,
            tcp4: tcp(0)?,
            tcp6: tcp(1)?,
            ..Settings::default()
        })
    }
}

/// The kernel calls it an unknown option where it does not have these.
fn without_cookies(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) {
        let said = "needs Linux 5.14 (SO_NETNS_COOKIE, by which networks are told apart)";
        return io::Error::new(io::ErrorKind::Unsupported, said);
    }
    error
}

fn open(address: IpAddr) -> io::Result<(Vec<UdpSocket>, TcpListener)> {
    let any_port = SocketAddr::from((address, 0));
    let udp = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(any_port)?;
        socket.set_nonblocking(true)?;
        if let Err(error) = set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES) {
            tracing::debug!(%error, "a door of the DNS guard stays small");
        }
        Ok(socket)
    };
    let tcp = TcpListener::bind(any_port)?;
    tcp.set_nonblocking(true)?;
    Ok(((0..DOORS).map(|_| udp()).collect::<Result<_, _>>()?, tcp))
}
