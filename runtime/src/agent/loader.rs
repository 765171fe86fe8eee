//! Threads that read and compile policies' files.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    thread,
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{
    guard::Mode,
    policy::{Compiler, LoadError, Loaded, MAX_FILE},
    trust::{Trust, TrustError},
};

/// A file to be loaded under these rules, and the number of the request.
type Request = (PathBuf, u64, Trust);

/// What became of a file.
pub(super) struct Answer {
    path: PathBuf,
    number: u64,
    result: Result<Option<Loaded>, FileError>,
}

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It may not or cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It is no policy.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// See the module's documentation. The threads end when it is dropped.
pub(super) struct Loader {
    requests: Sender<Request>,
    /// For each file that is being loaded, the number of the last request: older answers say what
    /// the file was before.
    pending: BTreeMap<PathBuf, u64>,
    asked: u64,
}

impl Loader {
    /// One thread for each processor: so many files are compiled at the same time.
    pub fn start(compiler: &Compiler) -> io::Result<(Self, Receiver<Answer>)> {
        let (requests, requested) = unbounded();
        let (answers, answered) = unbounded();
        for number in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (compiler, requested, answers): (Compiler, Receiver<Request>, Sender<Answer>) =
                (compiler.clone(), requested.clone(), answers.clone());
            thread::Builder::new().name(format!("loader-{number}")).spawn(move || {
                for (path, number, trust) in requested {
                    let result = load(&compiler, &path, &trust);
                    if answers.send(Answer { path, number, result }).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok((Self { requests, pending: BTreeMap::new(), asked: 0 }, answered))
    }

    /// Loads these files if nobody can change them who may not in this mode. The answers come in any
    /// order.
    pub fn load(&mut self, paths: Vec<PathBuf>, mode: Mode) {
        self.asked += 1;
        for path in paths {
            self.asked += 1;
            self.pending.insert(path.clone(), self.asked);
            // The threads live as long as `self`.
            let _ = self.requests.send((path, self.asked, Trust::of(mode)));
        }
    }

    /// Forgets a file that is being loaded: its answer is of no interest any more.
    pub fn forget(&mut self, path: &Path) {
        self.pending.remove(path);
    }

    /// The file and its policy; `Ok(None)` in place of a policy if the file is gone. Nothing if the
    /// file has changed since.
    pub fn take(&mut self, answer: Answer) -> Option<(PathBuf, Result<Option<Loaded>, FileError>)> {
        if self.pending.get(&answer.path) != Some(&answer.number) {
            return None;
        }
        self.pending.remove(&answer.path);
        Some((answer.path, answer.result))
    }

    /// Whether it was ever asked for anything.
    pub fn was_asked(&self) -> bool {
        self.asked > 0
    }

    /// Whether all answers have been taken.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }
}

fn load(compiler: &Compiler, path: &Path, trust: &Trust) -> Result<Option<Loaded>, FileError> {
    match trust.read(path, MAX_FILE) {
        Ok(bytes) => Ok(Some(compiler.load_bytes(path, &bytes)?)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
