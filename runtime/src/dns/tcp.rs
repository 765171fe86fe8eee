//! Queries by TCP: one connection to the server for each that a client makes, opened when the first query
//! goes on.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use domain::base::iana::Rcode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{Flow, Judge, Proxy, Question, Transport, message, proxy::joined};

/// Queries of a connection whose answers are waited for; an answer to an older one goes on, and is not told.
const MOST_PENDING: usize = 256;

/// Takes connections until that fails.
pub(super) async fn serve<J: Judge>(proxy: Arc<Proxy<J>>, listener: TcpListener) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    loop {
        let (stream, sender) = tokio::select! {
            Some(ended) = tasks.join_next() => {
                joined(ended);
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    // Not at once: what is missing is missing for a while.
                    tokio::time::sleep(proxy.limits.decide).await;
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        let Some(flow) = proxy.flows.find(Transport::Tcp, sender, 0, 0) else {
            proxy.counts.unknown.add();
            continue;
        };
        let Ok(permit) = Arc::clone(&proxy.connections).try_acquire_owned() else {
            proxy.counts.connections_refused.add();
            continue;
        };
        let connection = Connection::new(Arc::clone(&proxy), flow);
        tasks.spawn(async move {
            let _permit = permit;
            connection.run(stream).await;
        });
    }
}

/// A client that went away, or a lack of descriptors or memory.
fn is_passing(error: &io::Error) -> bool {
    const ERRORS: [i32; 6] =
        [libc::ECONNABORTED, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINTR];
    error.raw_os_error().is_some_and(|error| ERRORS.contains(&error))
}

struct Connection<J> {
    proxy: Arc<Proxy<J>>,
    flow: Flow,
    /// What was asked, by transaction id, and when.
    pending: Mutex<HashMap<u16, (Question, Instant)>>,
}

impl<J: Judge> Connection<J> {
    fn new(proxy: Arc<Proxy<J>>, flow: Flow) -> Self {
        Self { proxy, flow, pending: Mutex::default() }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u16, (Question, Instant)>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until both sides have ended, or are silent for too long.
    async fn run(self, stream: TcpStream) {
        let (reading, writing) = stream.into_split();
        let client = AsyncMutex::new(writing);
        let (opened, server) = oneshot::channel();
        let (queries, answers) =
            tokio::join!(self.queries(reading, &client, opened), self.answers(server, &client));
        for error in [queries.err(), answers.err()].into_iter().flatten() {
            tracing::debug!(%error, server = %self.flow.server, "a DNS connection broke");
        }
        for _ in self.pending().drain() {
            self.proxy.counts.unanswered.add();
        }
    }

    /// From the client to the server.
    async fn queries(
        &self,
        mut client: OwnedReadHalf,
        answers: &AsyncMutex<OwnedWriteHalf>,
        opened: oneshot::Sender<OwnedReadHalf>,
    ) -> io::Result<()> {
        let mut opened = Some(opened);
        let mut server: Option<OwnedWriteHalf> = None;
        while let Some(query) = self.read(&mut client).await? {
            let Some(question) = self.proxy.decide(&self.flow, &query).await else {
                self.reply(&query, Rcode::REFUSED, answers).await?;
                continue;
            };
            if let Some(opened) = opened.take() {
                match self.connect().await {
                    Ok(stream) => {
                        let (reading, writing) = stream.into_split();
                        server = Some(writing);
                        // The other side waits for it.
                        let _ = opened.send(reading);
                    }
                    Err(error) => {
                        tracing::debug!(%error, server = %self.flow.server, "no DNS connection");
                    }
                }
            }
            let Some(server) = &mut server else {
                self.proxy.counts.failed.add();
                self.reply(&query, Rcode::SERVFAIL, answers).await?;
                continue;
            };
            self.remember(message::id(&query), question);
            self.write(server, &query).await?;
        }
        Ok(())
    }

    fn remember(&self, id: u16, question: Question) {
        let mut pending = self.pending();
        if pending.len() >= MOST_PENDING
            && let Some(oldest) =
                pending.iter().min_by_key(|(_, (_, sent))| *sent).map(|(id, _)| *id)
        {
            pending.remove(&oldest);
            self.proxy.counts.unanswered.add();
        }
        if pending.insert(id, (question, Instant::now())).is_some() {
            self.proxy.counts.unanswered.add();
        }
    }

    /// From the server to the client.
    async fn answers(
        &self,
        server: oneshot::Receiver<OwnedReadHalf>,
        client: &AsyncMutex<OwnedWriteHalf>,
    ) -> io::Result<()> {
        let Ok(mut server) = server.await else { return Ok(()) };
        while let Some(answer) = self.read(&mut server).await? {
            let id = message::id(&answer);
            let asked = self.pending().remove(&id);
            if let Some((question, sent)) = asked {
                if message::answers(&answer, id, &question) {
                    self.proxy.answered(&self.flow, &question, &answer, sent);
                } else {
                    self.pending().insert(id, (question, sent));
                }
            }
            self.write(&mut *client.lock().await, &answer).await?;
        }
        client.lock().await.shutdown().await
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        timeout(self.proxy.limits.answer, TcpStream::connect(self.flow.server)).await?
    }

    async fn reply(
        &self,
        query: &[u8],
        code: Rcode,
        client: &AsyncMutex<OwnedWriteHalf>,
    ) -> io::Result<()> {
        match message::reply(query, code) {
            Some(reply) => self.write(&mut *client.lock().await, &reply).await,
            None => Ok(()),
        }
    }

    /// The next message; `None` at the end, or after too long a silence.
    async fn read(&self, stream: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
        let reading = async {
            let length = match stream.read_u16().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                length => length?,
            };
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await?;
            Ok(Some(message))
        };
        timeout(self.proxy.limits.idle, reading).await.unwrap_or(Ok(None))
    }

    async fn write(&self, stream: &mut OwnedWriteHalf, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        // Both at once: some clients take the length and the message for one.
        let bytes = [&length.to_be_bytes(), message].concat();
        timeout(self.proxy.limits.idle, stream.write_all(&bytes)).await?
    }
}
