//! Where file systems are mounted, for the processes that use them.
//!
//! The number of a mount is in one mount namespace only. So it is looked for among our own mounts, and then
//! among those of the process.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::sums::{Fast, Pids};
use crate::mountinfo::{self, Mount};

/// After so long all is looked up again: a number may have been given to another mount, and what was not
/// found be there.
const FORGET: Duration = Duration::from_secs(5);

/// A mount by its number and device.
pub(super) type Id = (u32, u32);

/// What was found so far; `None`: nobody who could be asked has it, such as the kernel's own mounts.
#[derive(Default)]
pub(super) struct Mounts {
    known: Fast<Id, Option<Mount>>,
    since: Option<Instant>,
}

impl Mounts {
    /// Looks for the mounts that these processes use.
    pub(super) fn look_for(&mut self, used: &[(u32, Id)]) {
        if self.since.is_none_or(|since| since.elapsed() > FORGET) {
            self.known.clear();
            self.since = Some(Instant::now());
        }
        if used.iter().any(|(_, id)| !self.known.contains_key(id)) {
            self.learn("/proc/thread-self/mountinfo");
        }
        let mut asked = Pids::default();
        // Each is asked before any is given up: one that has ended may share its mounts with another.
        for (pid, id) in used {
            if !self.known.contains_key(id) && asked.insert(*pid) {
                self.learn(&format!("/proc/{pid}/mountinfo"));
            }
        }
        for (_, id) in used {
            self.known.entry(*id).or_default();
        }
    }

    /// What is known of a mount that was looked for.
    pub(super) fn find(&self, id: Id) -> Option<&Mount> {
        self.known.get(&id)?.as_ref()
    }

    fn learn(&mut self, file: &str) {
        let Ok(text) = fs::read(file) else { return };
        for mount in mountinfo::parse(&text) {
            let (major, minor) = mount.device;
            self.known.insert((mount.id, major << MINOR_BITS | minor), Some(mount));
        }
    }
}

/// Bits of the minor number in a device's number, as the kernel has it.
pub(super) const MINOR_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn our_own_mounts_are_found_and_what_nobody_has_is_not() {
        let mut mounts = Mounts::default();
        let nobodys = (u32::MAX, 1);
        mounts.look_for(&[(std::process::id(), nobodys)]);
        assert_eq!(mounts.find(nobodys), None);
        assert!(mounts.known.contains_key(&nobodys));
        let mut found = mounts.known.values().flatten();
        assert!(
            found.any(|mount| mount.point == Path::new("/proc") && mount.file_system == "proc")
        );
    }
}
