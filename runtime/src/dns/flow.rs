//! What is behind a packet that comes to a door.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use tipstaff_events::{dns, wire::Header};

use crate::record::{Subject, bytes_at, subject};

/// Transport protocol of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// `IPPROTO_*`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

/// Where a query was to go, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The server that the query was sent to.
    pub server: SocketAddr,
    /// By which protocol.
    pub transport: Transport,
    /// Cookie of the socket.
    pub cookie: u64,
    /// The process that connected the socket, or sent by it last, and its time.
    pub subject: Subject,
    /// Its thread.
    pub tid: u32,
    /// Command name of that thread.
    pub comm: String,
    /// What records about it begin with.
    pub(crate) header: [u8; size_of::<Header>()],
}

impl Flow {
    /// Reads a [`dns::Flow`].
    pub(crate) fn read(cookie: u64, flow: &[u8; size_of::<dns::Flow>()]) -> Option<Self> {
        let header =
            bytes_at::<{ size_of::<Header>() }>(flow, offset_of!(dns::Flow, header)).ok()?;
        let address = Ipv6Addr::from(bytes_at::<16>(flow, offset_of!(dns::Flow, address)).ok()?);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        let port = u16::from_ne_bytes(bytes_at(flow, offset_of!(dns::Flow, port)).ok()?);
        let [protocol] = bytes_at(flow, offset_of!(dns::Flow, protocol)).ok()?;
        let transport =
            [Transport::Udp, Transport::Tcp].into_iter().find(|one| one.number() == protocol)?;
        let comm: [u8; 16] = bytes_at(&header, offset_of!(Header, comm)).ok()?;
        let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self {
            server: (address, port).into(),
            transport,
            cookie,
            subject: subject(&header).ok()?,
            tid: u32::from_ne_bytes(bytes_at(&header, offset_of!(Header, tid)).ok()?),
            comm: String::from_utf8_lossy(comm).into_owned(),
            header,
        })
    }
}

/// The address as records have it.
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .octets()
}
