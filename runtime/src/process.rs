//! The process table: who runs what, and who started whom, as far back as events still ask.
//!
//! It is kept from fork, exec and exit events. A pid is given to another process after its owner
//! has ended, so an entry is one *incarnation* (pid and start time), and the previous one is kept
//! for events that were still on their way. Look-ups name the time of the event, because records
//! of the life ring are read before those of the others: an `open` may come after the `exec` that
//! followed it.

pub mod stat;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Most processes that are remembered, ended ones included.
const MOST: usize = 65_536;
/// How long an ended process is remembered.
const KEEP_NS: u64 = 5_000_000_000;
/// `/proc` gives the start of a process in ticks of this length.
const TICK_NS: u64 = 10_000_000;
/// Most ancestors that are told: deeper chains do not occur unless someone builds them on purpose.
const MOST_ANCESTORS: usize = 32;

/// What a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Since when; 0: for as long as is known.
    pub since: u64,
    /// Path of the file.
    pub exe: Option<Arc<[u8]>>,
    /// Arguments, each ended by a NUL.
    pub args: Option<Arc<[u8]>>,
}

impl Image {
    /// Whether `found`, which `/proc` shows, is another file. Paths may differ by the mount namespace in
    /// which they are read, names do not.
    fn is_other(&self, found: &Self) -> bool {
        let name = |exe: &Arc<[u8]>| exe.rsplit(|&byte| byte == b'/').next().map(<[u8]>::to_vec);
        match (&self.exe, &found.exe) {
            (Some(known), Some(found)) => name(known) != name(found),
            _ => false,
        }
    }
}

/// One incarnation of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Start on the clock that counts suspend; 0: not known.
    pub start: u64,
    /// The process that started it.
    pub parent: u32,
    /// What that one ran then, for when it is forgotten.
    parent_exe: Option<Arc<[u8]>>,
    /// Since when this incarnation has its pid; 0: for as long as is known.
    since: u64,
    image: Image,
    /// Whether the image is from `/proc`, which showed another one than the events.
    is_guessed: bool,
    /// What it ran before its last `exec`.
    previous: Option<Image>,
    ended: Option<u64>,
    /// The one that had the pid before.
    older: Option<Box<Process>>,
}

impl Process {
    /// What it ran at that time.
    #[must_use]
    pub fn image_at(&self, time: u64) -> &Image {
        match &self.previous {
            Some(previous) if time < self.image.since => previous,
            _ => &self.image,
        }
    }

    /// When it ended.
    #[must_use]
    pub fn ended(&self) -> Option<u64> {
        self.ended
    }
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When it was looked at (monotonic).
    pub looked: u64,
    /// The process.
    pub pid: u32,
    /// The process that started it, or its reaper.
    pub parent: u32,
    /// Start since boot, in ticks of 10 ms.
    pub start_ticks: u64,
    /// What it runs.
    pub exe: Option<Arc<[u8]>>,
    /// Its arguments.
    pub args: Option<Arc<[u8]>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Processes {
    table: HashMap<u32, Process, foldhash::fast::RandomState>,
    /// Ended processes in the order of their end.
    ended: VecDeque<(u64, u32, u64)>,
    evicted: u64,
}

impl Processes {
    /// A child was created.
    pub fn fork(&mut self, time: u64, parent: u32, child: u32, start: u64) {
        let image =
            self.at(parent, time).map(|process| process.image_at(time).clone()).unwrap_or_default();
        let parent_exe = image.exe.clone();
        self.begin(
            child,
            Process {
                start,
                parent,
                parent_exe,
                since: time,
                image: Image { since: 0, ..image },
                is_guessed: false,
                previous: None,
                ended: None,
                older: None,
            },
        );
    }

    /// A process runs another program.
    pub fn exec(
        &mut self,
        time: u64,
        pid: u32,
        start: u64,
        parent: u32,
        exe: Option<&[u8]>,
        args: Option<&[u8]>,
    ) {
        let image = Image { since: time, exe: exe.map(Arc::from), args: args.map(Arc::from) };
        match self.table.get_mut(&pid) {
            Some(process) if process.start == start || process.start == 0 => {
                process.start = start;
                let is_told = process.is_guessed && time < process.image.since;
                let before = std::mem::replace(&mut process.image, image);
                // What `/proc` showed was this, before its event came.
                if !is_told {
                    process.previous = Some(before);
                }
                process.is_guessed = false;
            }
            _ => {
                let parent_exe =
                    self.at(parent, time).and_then(|parent| parent.image_at(time).exe.clone());
                // Its fork was not seen, so it had the pid before this.
                self.begin(
                    pid,
                    Process {
                        start,
                        parent,
                        parent_exe,
                        since: 0,
                        image,
                        is_guessed: false,
                        previous: Some(Image::default()),
                        ended: None,
                        older: None,
                    },
                );
            }
        }
    }

    /// The last thread of a process ended.
    pub fn exit(&mut self, time: u64, pid: u32, start: u64, parent: u32) {
        if self.table.get(&pid).is_none_or(|process| process.start != start && process.start != 0) {
            // Remembered all the same: what `/proc` showed of it may still be on its way.
            self.begin(
                pid,
                Process {
                    start,
                    parent,
                    parent_exe: None,
                    since: 0,
                    image: Image::default(),
                    is_guessed: false,
                    previous: None,
                    ended: None,
                    older: None,
                },
            );
        }
        if let Some(process) = self.table.get_mut(&pid)
            && process.ended.is_none()
        {
            process.ended = Some(time);
            self.ended.push_back((time, pid, process.start));
        }
    }

    /// What `/proc` showed: fills what events have not told, and stands for an `exec` that was lost.
    pub fn seen(&mut self, seen: &Seen) {
        let image = Image { since: 0, exe: seen.exe.clone(), args: seen.args.clone() };
        if let Some(process) = self.table.get_mut(&seen.pid) {
            let known = process.start / TICK_NS;
            if process.start != 0 && known != seen.start_ticks {
                // The pid has changed hands: the later start is the one that has it now.
                if known > seen.start_ticks || process.ended.is_none() && process.since != 0 {
                    return;
                }
            } else {
                if process.parent == 0 {
                    process.parent = seen.parent;
                }
                if process.image.since < seen.looked && process.image.is_other(&image) {
                    let image = Image { since: seen.looked, ..image };
                    process.previous = Some(std::mem::replace(&mut process.image, image));
                    process.is_guessed = true;
                    return;
                }
                // What ran before an `exec` cannot be known any more; this is what runs now.
                let known = &mut process.image;
                known.exe = known.exe.take().or(image.exe);
                known.args = known.args.take().or(image.args);
                return;
            }
        }
        self.begin(
            seen.pid,
            Process {
                start: seen.start_ticks * TICK_NS,
                parent: seen.parent,
                parent_exe: None,
                since: 0,
                image,
                is_guessed: false,
                previous: None,
                ended: None,
                older: None,
            },
        );
    }

    /// All processes that run were seen, in a look round that began at `began`: others that are
    /// older than that have ended.
    pub fn seen_all(&mut self, pids: &std::collections::HashSet<u32>, began: u64, now: u64) {
        for (&pid, process) in &mut self.table {
            let newest = process.since.max(process.image.since);
            if process.ended.is_none() && newest < began && !pids.contains(&pid) {
                process.ended = Some(now);
                self.ended.push_back((now, pid, process.start));
            }
        }
    }

    /// The incarnation that started then, or if that is 0 the one that had the pid at that time.
    #[must_use]
    pub fn started(&self, pid: u32, start: u64, time: u64) -> Option<&Process> {
        if start == 0 {
            return self.at(pid, time);
        }
        let mut process = self.table.get(&pid);
        while let Some(found) = process {
            // What `/proc` showed is no more exact than that.
            if found.start == 0 || found.start / TICK_NS == start / TICK_NS {
                return process;
            }
            process = found.older.as_deref();
        }
        None
    }

    /// The incarnation that had the pid at that time.
    #[must_use]
    pub fn at(&self, pid: u32, time: u64) -> Option<&Process> {
        let process = self.table.get(&pid)?;
        if time < process.since { process.older.as_deref() } else { Some(process) }
    }

    /// What the parent of a process ran at that time, or when it started the process.
    #[must_use]
    pub fn parent_exe<'a>(&'a self, process: &'a Process, time: u64) -> Option<&'a [u8]> {
        self.parent(process, time)
            .and_then(|parent| parent.image_at(time).exe.as_deref())
            .or(process.parent_exe.as_deref())
    }

    fn parent(&self, process: &Process, time: u64) -> Option<&Process> {
        let parent = self.at(process.parent, time)?;
        // A later owner of the parent's pid is no ancestor.
        (parent.start <= process.start || process.start == 0).then_some(parent)
    }

    /// Writes the executables of all ancestors, from the parent up, each ended by a NUL.
    pub fn ancestors(&self, process: &Process, time: u64, list: &mut Vec<u8>) {
        let mut process = process;
        for _ in 0..MOST_ANCESTORS {
            let Some(exe) = self.parent_exe(process, time) else { return };
            list.extend_from_slice(exe);
            list.push(0);
            match self.parent(process, time) {
                Some(parent) => process = parent,
                None => return,
            }
        }
    }

    /// Forgets processes that ended long before `now`.
    pub fn expire(&mut self, now: u64) {
        while let Some(&(time, pid, start)) = self.ended.front()
            && time + KEEP_NS < now
        {
            self.ended.pop_front();
            self.forget(pid, start);
        }
    }

    /// Number of processes in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of processes that were forgotten too early, or never remembered, for want of room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn begin(&mut self, pid: u32, mut process: Process) {
        if let Some(mut old) = self.table.remove(&pid) {
            old.older = None;
            // What was only known from /proc has no time of its own.
            process.older = (process.since != 0).then(|| Box::new(old));
        } else if self.table.len() >= MOST {
            self.evicted += 1;
            match self.ended.pop_front() {
                Some((_, pid, start)) => self.forget(pid, start),
                None => return,
            }
        }
        self.table.insert(pid, process);
    }

    fn forget(&mut self, pid: u32, start: u64) {
        if let Some(process) = self.table.get_mut(&pid) {
            if process.start == start && process.ended.is_some() {
                self.table.remove(&pid);
            } else if process.older.as_ref().is_some_and(|older| older.start == start) {
                process.older = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
