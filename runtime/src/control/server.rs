//! Listening for the operator's commands.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::Sender;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot},
};

use super::{Answered, Line, MAX_LINE, Request, VERSION};
use crate::agent::Order;

/// Connections at once. Others wait.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for commands at {}: {error}", path.display())]
pub struct ListenError {
    path: PathBuf,
    error: io::Error,
}

/// A socket that is listened to. Its file goes when this is dropped.
pub struct Control {
    listener: UnixListener,
    _file: File,
}

struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Control {
    /// Takes the socket of the agent of that name. Whoever calls has the lock of that name, so that a
    /// file that is there is nobody's.
    pub fn bind(directory: &Path, name: &str) -> Result<Self, ListenError> {
        let path = super::path(directory, name);
        let bind = || -> io::Result<UnixListener> {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            // Whoever comes in between is asked who he is.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Self { listener, _file: File(path) }),
            Err(error) => Err(ListenError { path, error }),
        }
    }

    /// Hands what is asked for to the agent, for as long as this runs.
    pub async fn serve(self, orders: Sender<Order>) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let user = rustix::process::geteuid().as_raw();
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a command");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let peer = stream.peer_cred().map(|peer| (peer.uid(), peer.pid()));
            let Ok((uid, pid)) = peer else { continue };
            if uid != 0 && uid != user {
                tracing::warn!(uid, pid, "a command of a user who may not give any: not taken");
                continue;
            }
            let orders = orders.clone();
            tokio::spawn(async move {
                // Who goes away in the middle is gone.
                let _ = attend(stream, &orders).await;
                drop(permit);
            });
        }
    }
}

/// Answers one line after the other.
async fn attend(stream: UnixStream, orders: &Sender<Order>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let mut limited = (&mut read).take(most);
        let length = tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let answered = if is_whole || length < MAX_LINE {
            answer(&line, orders).await
        } else {
            Answered::failed(format!("a line of more than {MAX_LINE} bytes"))
        };
        let mut line = serde_json::to_vec(&answered)?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, write.write_all(&line)).await??;
        if !is_whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], orders: &Sender<Order>) -> Answered {
    let request = match parse(line) {
        Ok(request) => request,
        Err(error) => return Answered::failed(error),
    };
    let (sender, answer) = oneshot::channel();
    if orders.send(Order::Control(request, sender)).is_err() {
        return Answered::failed("the agent ends".to_owned());
    }
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(_)) => Answered::failed("the agent ends".to_owned()),
        Err(_) => Answered::failed(format!("the agent is busy for more than {PATIENCE:?}")),
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned =
        serde_json::from_slice(line).map_err(|error| format!("not understood: {error}"))?;
    if versioned.version != VERSION {
        let found = versioned.version;
        return Err(format!("version {found} is not spoken here, expected version {VERSION}"));
    }
    let Line { version: _, request } =
        serde_json::from_slice(line).map_err(|error| format!("not understood: {error}"))?;
    Ok(request)
}
