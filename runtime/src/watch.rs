//! The directory of policies: which `.wasm` files came, changed or went, once they are whole.
//!
//! Events of the kernel only say when to look; what changed is found by comparing the directory with
//! what was told before. So nothing is missed where events are (a network file system, an overflow),
//! and a file copied in place is told once, when its writer has closed it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

use crate::trust::{Trust, TrustError};

/// A file is whole if it has not changed for this long and nobody is seen writing to it.
const QUIET: Duration = Duration::from_millis(200);
/// The same where someone wrote to it and was not seen to close it (the event may be lost).
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that come together are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// How often to look although nothing was heard.
const RESCAN: Duration = Duration::from_secs(5);
/// The same where the kernel gives no events.
const POLL: Duration = Duration::from_millis(500);

/// What changed. Take out what went before putting in what came: a renamed file is in both.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that are gone.
    pub gone: Vec<PathBuf>,
    /// Files that are new or have other contents.
    pub came: Vec<PathBuf>,
}

/// What the watch tells.
#[derive(Debug)]
pub enum Told {
    /// Files changed.
    Changes(Changes),
    /// The directory cannot be read or is not to be trusted any more. Told once; what was told of
    /// its files stands until it can be read again.
    Unreadable(TrustError),
}

/// A directory that is watched, until this is dropped.
#[derive(Debug)]
pub struct Watch {
    // Its end is what ends the thread.
    wake: Option<Sender<Wake>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Wake {
    /// Something happened to the directory, or to this file in it.
    Look(Vec<(OsString, Writer)>),
    End,
}

/// What is known of who writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Writes,
    Closed,
}

/// What says that a file has other contents, or that reading it again may end otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// A change of owner or mode, after which a refused file may be trusted.
    changed: (i64, i64),
}

type Files = BTreeMap<OsString, Fingerprint>;

impl Watch {
    /// Watches `directory`; returns the files in it. `tell` is called on a thread of the watch's own
    /// with what changes from then on.
    pub fn start(
        directory: &Path,
        trust: Trust,
        tell: impl FnMut(Told) + Send + 'static,
    ) -> Result<(Self, Vec<PathBuf>), TrustError> {
        let (wake, woken) = mpsc::channel();
        let mut seer =
            Seer { directory: directory.to_owned(), trust, wake: wake.clone(), events: None };
        // First the events, then the files: what comes in between is heard.
        seer.listen();
        let present = look(directory, &seer.trust)?;
        let files = present.keys().map(|name| directory.join(name)).collect();
        let settled = Settled { told: present, pending: BTreeMap::new() };
        let run = move || seer.run(&woken, settled, tell);
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(run);
        let thread = thread.map_err(|error| TrustError::io(directory, "watch", error))?;
        Ok((Self { wake: Some(wake), thread: Some(thread) }, files))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(wake) = self.wake.take() {
            let _gone = wake.send(Wake::End);
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The policy files in a directory, by name.
pub fn files(directory: &Path, trust: &Trust) -> Result<Vec<PathBuf>, TrustError> {
    Ok(look(directory, trust)?.into_keys().map(|name| directory.join(name)).collect())
}

/// The files that there are now.
fn look(directory: &Path, trust: &Trust) -> Result<Files, TrustError> {
    let candidates = trust.names(directory)?.into_iter().filter(|name| {
        let name = name.as_encoded_bytes();
        // Hidden files are what editors and rsync leave.
        name.ends_with(b".wasm") && !name.starts_with(b".")
    });
    let found = candidates.filter_map(|name| {
        let metadata =
            fs::metadata(directory.join(&name)).ok().filter(|metadata| !metadata.is_dir())?;
        Some((name, Fingerprint::of(&metadata)))
    });
    Ok(found.collect())
}

/// Looks at the directory.
struct Seer {
    directory: PathBuf,
    trust: Trust,
    wake: Sender<Wake>,
    /// The source of events and the directory's device and inode; `None`: poll.
    events: Option<(RecommendedWatcher, (u64, u64))>,
}

impl Seer {
    fn run(mut self, woken: &Receiver<Wake>, mut settled: Settled, mut tell: impl FnMut(Told)) {
        let mut unreadable = String::new();
        loop {
            let idle = if self.events.is_some() { RESCAN } else { POLL };
            let mut next =
                match woken.recv_timeout(settled.due(Instant::now()).unwrap_or(idle).min(idle)) {
                    Ok(wake) => Some(wake),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
            if next.is_some() {
                thread::sleep(GATHER);
            }
            while let Some(wake) = next {
                match wake {
                    Wake::Look(writers) => settled.heard(writers),
                    Wake::End => return,
                }
                next = woken.try_recv().ok();
            }
            self.listen();
            match look(&self.directory, &self.trust) {
                Ok(found) => {
                    unreadable.clear();
                    let changes = settled.compare(&found, Instant::now());
                    if changes != Names::default() {
                        tell(Told::Changes(changes.below(&self.directory)));
                    }
                }
                Err(error) if error.to_string() == unreadable => {}
                Err(error) => {
                    unreadable = error.to_string();
                    tell(Told::Unreadable(error));
                }
            }
        }
    }

    /// Asks the kernel for events, again if the directory is another one by now.
    fn listen(&mut self) {
        let Ok(metadata) = fs::metadata(&self.directory) else {
            self.events = None;
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if self.events.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        let wake = self.wake.clone();
        let hear = move |event: notify::Result<Event>| {
            if let Some(writers) = interesting(event) {
                let _ended = wake.send(Wake::Look(writers));
            }
        };
        let watcher =
            RecommendedWatcher::new(hear, notify::Config::default()).and_then(|mut watcher| {
                watcher.watch(&self.directory, RecursiveMode::NonRecursive).map(|()| watcher)
            });
        self.events = match watcher {
            Ok(watcher) => Some((watcher, identity)),
            Err(error) => {
                tracing::debug!(%error, directory = %self.directory.display(), "no events, looking regularly instead");
                None
            }
        };
    }
}

/// The files that an event is about; `None` for events that our own looking makes.
fn interesting(event: notify::Result<Event>) -> Option<Vec<(OsString, Writer)>> {
    // Events were lost: look.
    let Ok(event) = event else { return Some(Vec::new()) };
    let writer = match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => Some(Writer::Writes),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Writer::Closed),
        EventKind::Access(_) => return None,
        // A name that now stands for another file, whose writers are not known.
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            Some(Writer::Closed)
        }
        _ => None,
    };
    let names = event.paths.iter().filter_map(|path| path.file_name());
    Some(names.filter_map(|name| Some((name.to_owned(), writer?))).collect())
}

impl Fingerprint {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// [`Changes`] by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    gone: Vec<OsString>,
    came: Vec<OsString>,
}

impl Names {
    fn below(self, directory: &Path) -> Changes {
        let paths = |names: Vec<OsString>| names.iter().map(|name| directory.join(name)).collect();
        Changes { gone: paths(self.gone), came: paths(self.came) }
    }
}

/// What was told, and what is still changing.
#[derive(Debug, Default)]
struct Settled {
    told: Files,
    pending: BTreeMap<OsString, Pending>,
}

#[derive(Debug)]
struct Pending {
    /// `None`: gone.
    now: Option<Fingerprint>,
    since: Instant,
    writer: Writer,
}

impl Pending {
    fn settles_at(&self) -> Instant {
        let wait = match self.writer {
            Writer::Closed => QUIET,
            Writer::Writes => PATIENCE,
        };
        self.since + wait
    }
}

impl Settled {
    /// How long until something may have settled.
    fn due(&self, now: Instant) -> Option<Duration> {
        self.pending
            .values()
            .map(|pending| pending.settles_at().saturating_duration_since(now))
            .min()
    }

    /// Takes in what events say of writers.
    fn heard(&mut self, writers: Vec<(OsString, Writer)>) {
        for (name, writer) in writers {
            let now = self.told.get(&name).copied();
            let new = || Pending { now, since: Instant::now(), writer };
            self.pending.entry(name).or_insert_with(new).writer = writer;
        }
    }

    /// Compares what there is with what was told: what has settled is told now.
    fn compare(&mut self, found: &Files, now: Instant) -> Names {
        let Self { told, pending } = self;
        for name in told.keys().chain(found.keys()) {
            let current = found.get(name).copied();
            match pending.get_mut(name) {
                Some(pending) if pending.now != current => {
                    (pending.now, pending.since) = (current, now);
                }
                Some(_) => {}
                None if told.get(name).copied() == current => {}
                None => {
                    let writer = Writer::Closed;
                    pending.insert(name.clone(), Pending { now: current, since: now, writer });
                }
            }
        }
        let mut changes = Names::default();
        pending.retain(|name, pending| {
            if pending.settles_at() > now {
                return true;
            }
            match (told.get(name).copied(), pending.now) {
                (before, after) if before == after => {}
                (_, Some(after)) => {
                    told.insert(name.clone(), after);
                    changes.came.push(name.clone());
                }
                (_, None) => {
                    told.remove(name);
                    changes.gone.push(name.clone());
                }
            }
            false
        });
        changes
    }
}

#[cfg(test)]
mod tests;
