//! Queries by UDP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use domain::base::iana::Rcode;
use tokio::{
    io::Interest, net::UdpSocket, sync::OwnedSemaphorePermit, task::JoinSet, time::timeout,
};

use super::{Flow, Judge, Proxy, Question, Transport, message, proxy::joined};

/// The longest message.
const LONGEST: usize = 65_535;

/// Takes queries at a door until that fails.
pub(super) async fn serve<J: Judge>(
    proxy: Arc<Proxy<J>>,
    socket: Arc<UdpSocket>,
    door: u8,
) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, sender) = tokio::select! {
            Some(ended) = tasks.join_next() => {
                joined(ended);
                continue;
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // A client that we answered is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            },
        };
        let query = &buffer[..length];
        let id = message::id(query);
        let Some(flow) = proxy.flows.find(Transport::Udp, sender, door, id) else {
            proxy.counts.unknown.add();
            reply(&socket, query, sender, Rcode::REFUSED);
            continue;
        };
        let Ok(permit) = Arc::clone(&proxy.queries).try_acquire_owned() else {
            proxy.refuse_for_overload(&flow, query);
            reply(&socket, query, sender, Rcode::REFUSED);
            continue;
        };
        let (proxy, socket, query) = (Arc::clone(&proxy), Arc::clone(&socket), query.to_vec());
        tasks.spawn(async move {
            handle(&proxy, &socket, &query, sender, &flow, permit).await;
        });
    }
}

async fn handle<J: Judge>(
    proxy: &Proxy<J>,
    socket: &UdpSocket,
    query: &[u8],
    sender: SocketAddr,
    flow: &Flow,
    permit: OwnedSemaphorePermit,
) {
    let Some(question) = proxy.decide(flow, query).await else {
        drop(permit);
        reply(socket, query, sender, Rcode::REFUSED);
        return;
    };
    let sent = Instant::now();
    let answer = timeout(proxy.limits.answer, ask(flow.server, query, &question)).await;
    // Who has an answer may ask again.
    drop(permit);
    match answer {
        Ok(Ok(answer)) => {
            proxy.answered(flow, &question, &answer, sent);
            // Where the client's buffer is full the answer is lost as any packet can be.
            let _ = socket.send_to(&answer, sender).await;
        }
        Ok(Err(error)) => {
            proxy.counts.failed.add();
            tracing::debug!(%error, server = %flow.server, "a DNS query cannot be sent on");
            reply(socket, query, sender, Rcode::SERVFAIL);
        }
        Err(_) => proxy.counts.unanswered.add(),
    }
}

/// Answers without records, if there is room for it now.
fn reply(socket: &UdpSocket, query: &[u8], sender: SocketAddr, code: Rcode) {
    if let Some(reply) = message::reply(query, code) {
        let _ = socket.try_send_to(&reply, sender);
    }
}

/// Sends a query on from a socket of its own, with a port that nobody can know, and waits for the answer.
async fn ask(server: SocketAddr, query: &[u8], question: &Question) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    loop {
        // That its machine rejects it is an error and nothing to read.
        let answer = socket.async_io(Interest::READABLE | Interest::ERROR, || {
            // Room only once it is needed: most of the time is spent waiting.
            let mut answer = vec![0; LONGEST];
            let length = rustix::io::read(&socket, &mut answer)?;
            answer.truncate(length);
            Ok(answer)
        });
        let answer = answer.await?;
        if message::answers(&answer, message::id(query), question) {
            return Ok(answer);
        }
    }
}
