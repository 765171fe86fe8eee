//! What tests of sockets share.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::net::{Ipv4Addr, Ipv6Addr};

use tipstaff_events::catalogue::{accept, connect, listen, tcp_close};
use tipstaff_runtime::probe::RingSizes;

use super::kernel::{self, Event, Load, Recording};

pub const ECONNREFUSED: i64 = 111;
pub const EINPROGRESS: i64 = 115;

/// Python that all scripts begin with: a listening socket on loopback, and a port that is closed.
pub const PRELUDE: &str = "
import os, select, socket
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen(64)
port = listening.getsockname()[1]
closed = socket.socket()
closed.bind(('127.0.0.1', 0))
closed_port = closed.getsockname()[1]
def settle(client):
    select.select([], [client], [], 10)
";

/// Connects to a loopback port of its own all the time.
pub fn load() -> Load {
    let script = PRELUDE.to_owned()
        + "
while True:
    client = socket.create_connection(('127.0.0.1', port))
    listening.accept()[0].close()
    client.close()
    client = socket.socket()
    client.connect_ex(('127.0.0.1', closed_port))
    client.close()
";
    Load::start(&mut kernel::python(&script))
}

/// Sees all of sockets.
pub fn recording() -> Recording {
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[connect::KIND, accept::KIND, listen::KIND, tcp_close::KIND]);
    recording
}

/// Runs the prelude and a script while it drains the rings. The pid, and the numbers it printed.
pub fn python(recording: &mut Recording, script: &str) -> (u32, Vec<i64>) {
    recording.run(&mut kernel::python(&(PRELUDE.to_owned() + script)))
}

impl Event {
    /// An address, IPv4 mapped into IPv6.
    pub fn ip(&self, field: &str) -> Ipv6Addr {
        Ipv6Addr::from(self.address(field))
    }
}

pub fn loopback() -> Ipv6Addr {
    Ipv4Addr::LOCALHOST.to_ipv6_mapped()
}
