//! The proxy of the DNS guard: what a scope asks DNS servers comes here first, and a [`Judge`] says for
//! each query whether it goes on.
//!
//! The programs of the guard (`probe`) lead what the scope sends to port 53 to the proxy's [`Doors`] on
//! loopback, and know for each packet where it was to go and whose it is: its [`Flow`]. The proxy sends the
//! bytes on unchanged, from sockets of its own, which are in no scope, and brings the answer back.
//!
//! To guard a scope: [`Doors::open`] in the network namespace of the agent, `Probes::guard_dns` for the
//! scope's cgroup with these doors, then [`Proxy::serve`] for as long as the guard is to hold. When that
//! future ends or is dropped, the programs do at once what was chosen for a dead proxy; when the agent
//! dies or hangs, they do so as soon as the proxy has not shown life for [`ALIVE`].

mod counts;
mod doors;
mod flow;
mod judge;
pub mod message;
mod proxy;
mod tcp;
mod tell;
mod udp;

use std::time::Duration;

pub use counts::{Count, Counts};
pub use doors::Doors;
pub(crate) use flow::mapped;
pub use flow::{Flow, Transport};
pub use judge::{Judge, Ruling, Verdict};
pub use message::{Answer, Question};
pub use proxy::Proxy;

/// How long the proxy is taken to be alive after a sign of life.
pub const ALIVE: Duration = Duration::from_secs(5);
/// How often it gives one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Limits of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long the judge may take.
    pub decide: Duration,
    /// What counts if it takes longer.
    pub on_timeout: Verdict,
    /// How long the server may take to answer by UDP, or to accept a connection.
    pub answer: Duration,
    /// How long a TCP connection may be silent.
    pub idle: Duration,
    /// Queries by UDP that may be under way at the same time; further ones are refused. Each takes a
    /// descriptor.
    pub most_queries: usize,
    /// TCP connections at the same time; further ones are closed. Each takes two descriptors.
    pub most_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            decide: Duration::from_millis(20),
            on_timeout: Verdict::Refuse,
            // A resolver asks again, or another server, after this time.
            answer: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            // Half of the 1,024 descriptors that a process usually may have, with the connections.
            most_queries: 384,
            most_connections: 64,
        }
    }
}
