//! Where file systems are mounted, for the processes that use them.
//!
//! The number of a mount is in one mount namespace only. So it is looked for among our own mounts, and then
//! among those of the process. Those are the work of strangers, who may have very many with very long
//! paths: each namespace is read once, in part where it is long, and all together so much in a second.

use std::{
    collections,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    time::{Duration, Instant},
};

use tipstaff_events::wire::MAX_TEXT;

use super::sums::Fast;
use crate::mountinfo::Line;

/// After so long a mount is looked up again: its number may have been given to another one, and what was
/// not found be there.
const FORGET: Duration = Duration::from_secs(5);
/// Most that is read of one list, in bytes: ten thousand mounts with paths of common length.
const MOST_OF_ONE: u64 = 2 << 20;
/// Most that is read of all lists in a second, in bytes. Whose turn does not come is asked in the next.
const MOST_A_SECOND: u64 = 8 << 20;
/// Mounts that are remembered although the last reading does not use them.
const MOST_UNUSED: usize = 1_024;

type HashSet<T> = collections::HashSet<T, foldhash::fast::RandomState>;

/// A mount by its number and device.
pub(super) type Id = (u32, u32);

/// A mount, its texts cut where a record would cut them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) point: Vec<u8>,
    pub(super) file_system: Vec<u8>,
}

/// What was found so far of what is used, and when; `None`: nobody who could be asked has it, such as the
/// kernel's own mounts.
#[derive(Default)]
pub(super) struct Mounts {
    known: Fast<Id, (Instant, Option<Place>)>,
    /// Since when so much was read.
    spent: Option<(Instant, u64)>,
}

impl Mounts {
    /// Looks for the mounts that these processes use, and forgets what was not used for long.
    pub(super) fn look_for(&mut self, used: &[(u32, Id)]) {
        let now = Instant::now();
        let ids: HashSet<Id> = used.iter().map(|(_, id)| *id).collect();
        let is_old = |since: Instant| now.duration_since(since) > FORGET;
        // What is used again a little later may be by who cannot be asked any more.
        let has_room = self.known.len() <= MOST_UNUSED;
        self.known.retain(|id, (since, _)| ids.contains(id) || has_room && !is_old(*since));
        let mut wanted = ids;
        wanted.retain(|id| self.known.get(id).is_none_or(|(since, _)| is_old(*since)));
        let mut asked = HashSet::default();
        if !wanted.is_empty() {
            self.ask("/proc/thread-self", now, &mut wanted, &mut asked);
        }
        // Each namespace is asked before any mount is given up.
        let mut later = HashSet::default();
        for (pid, id) in used {
            if wanted.contains(id)
                && !self.ask(&format!("/proc/{pid}"), now, &mut wanted, &mut asked)
            {
                later.insert(*id);
            }
        }
        for id in wanted.difference(&later) {
            self.known.insert(*id, (now, None));
        }
    }

    /// What is known of a mount that was looked for.
    pub(super) fn find(&self, id: Id) -> Option<&Place> {
        self.known.get(&id)?.1.as_ref()
    }

    /// Takes what is wanted from the mounts of this process. Whether it could be asked, or has been, or is
    /// gone.
    fn ask(
        &mut self,
        process: &str,
        now: Instant,
        wanted: &mut HashSet<Id>,
        asked: &mut HashSet<u64>,
    ) -> bool {
        let Ok(namespace) = fs::metadata(format!("{process}/ns/mnt")) else { return true };
        if asked.contains(&namespace.ino()) {
            return true;
        }
        let (_, spent) = match &mut self.spent {
            Some(spent) if now.duration_since(spent.0) < Duration::from_secs(1) => spent,
            spent => spent.insert((now, 0)),
        };
        if *spent >= MOST_A_SECOND {
            return false;
        }
        asked.insert(namespace.ino());
        let Ok(file) = File::open(format!("{process}/mountinfo")) else { return true };
        let mut list = BufReader::with_capacity(64 << 10, file.take(MOST_OF_ONE));
        let mut line = Vec::new();
        while !wanted.is_empty() {
            line.clear();
            match list.read_until(b'\n', &mut line) {
                Ok(length) if length > 0 => *spent += length as u64,
                // What is gone has no mounts.
                _ => break,
            }
            let Some(found) = Line::parse(line.trim_ascii_end()) else { continue };
            let (major, minor) = found.device;
            let id = (found.id, major << MINOR_BITS | minor);
            if wanted.remove(&id) {
                // One byte more than a record takes: so it says that there was more.
                let cut = |mut text: Vec<u8>| {
                    text.truncate(MAX_TEXT + 1);
                    text.shrink_to_fit();
                    text
                };
                let point = cut(found.point().into_vec());
                let file_system = cut(found.file_system().to_vec());
                self.known.insert(id, (now, Some(Place { point, file_system })));
            }
        }
        true
    }
}

/// Bits of the minor number in a device's number, as the kernel has it.
pub(super) const MINOR_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo;

    fn proc() -> Id {
        let all = mountinfo::read().unwrap();
        let proc = all.iter().find(|mount| mount.file_system == "proc").expect("/proc is mounted");
        (proc.id, proc.device.0 << MINOR_BITS | proc.device.1)
    }

    #[test]
    fn our_own_mounts_are_found_and_what_nobody_has_is_not() {
        let mut mounts = Mounts::default();
        let (nobodys, proc) = ((u32::MAX, 1), proc());
        let me = std::process::id();
        mounts.look_for(&[(me, nobodys), (me, proc)]);
        assert_eq!(mounts.find(nobodys), None);
        assert!(mounts.known.contains_key(&nobodys));
        let found = mounts.find(proc).unwrap();
        assert!(found.point == b"/proc" && found.file_system == b"proc", "{found:?}");
        assert_eq!(mounts.known.len(), 2, "what is not used is not kept");
        for (since, _) in mounts.known.values_mut() {
            *since -= FORGET * 2;
        }
        mounts.look_for(&[(me, proc)]);
        assert_eq!(mounts.known.len(), 1, "what is used no more is not kept");
        assert!(mounts.find(proc).is_some(), "what is still used was looked up again");
    }

    #[test]
    fn who_is_asked_when_enough_was_read_is_asked_later() {
        let mut mounts =
            Mounts { spent: Some((Instant::now(), MOST_A_SECOND)), ..Mounts::default() };
        let (me, proc) = (std::process::id(), proc());
        mounts.look_for(&[(me, proc)]);
        assert!(mounts.known.is_empty(), "it is neither found nor given up");
        mounts.spent = None;
        mounts.look_for(&[(me, proc)]);
        assert!(mounts.find(proc).is_some());
    }
}
