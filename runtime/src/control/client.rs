//! Asking an agent.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Answered, Line, Request, VERSION};

/// How long an answer may take: attaching and detaching take their time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no agent `{name}` runs: nobody listens at {}", path.display())]
    NoAgent {
        /// Name of the agent.
        name: String,
        /// The socket.
        path: PathBuf,
    },
    /// It does not let us, or breaks off.
    #[error("the agent at {} does not answer: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It says something that we do not understand.
    #[error("the agent at {} speaks another version: {error}", path.display())]
    Version {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// It does not do it.
    #[error("{0}")]
    Refused(String),
}

/// Asks the agent of that name.
pub fn ask(directory: &Path, name: &str, request: Request) -> Result<Answered, ControlError> {
    let path = super::path(directory, name);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NoAgent { name: name.to_owned(), path: path.clone() }
        }
        _ => ControlError::Io { path: path.clone(), error },
    };
    let odd = |error: String| ControlError::Version { path: path.clone(), error };
    let answer = exchange(&path, request).map_err(failed)?;
    if answer.is_empty() {
        let error =
            io::Error::other("it closed the connection; root or the user who runs it may ask");
        return Err(ControlError::Io { path, error });
    }
    let answered: Answered =
        serde_json::from_slice(&answer).map_err(|error| odd(error.to_string()))?;
    if let Some(error) = answered.error {
        return Err(ControlError::Refused(error));
    }
    if answered.version != VERSION {
        return Err(odd(format!("{}, expected {VERSION}", answered.version)));
    }
    Ok(answered)
}

fn exchange(path: &Path, request: Request) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Line { version: VERSION, request })?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It says nothing to strangers: what there is to read tells.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut answer)?;
    Ok(answer)
}
