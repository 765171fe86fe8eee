//! One ring buffer, read in user space.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The reading end of a ring.
pub struct Ring {
    ring: RingBuf<MapData>,
    /// A record that was taken out and is not to be handed out yet; empty if there is none.
    held: Vec<u8>,
}

impl Ring {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { ring: map.try_into()?, held: Vec::new() })
    }

    /// Calls `record` with at most `most` waiting records, oldest first, up to the first one that is
    /// later than `until`, and gives their room back one by one. Returns how many were looked at.
    pub fn drain(&mut self, most: usize, until: u64, mut record: impl FnMut(&[u8])) -> usize {
        let mut looked_at = 0;
        if !self.held.is_empty() && most > 0 {
            looked_at = 1;
            if time(&self.held) > until {
                return looked_at;
            }
            record(&self.held);
            self.held.clear();
        }
        while looked_at < most {
            let Some(item) = self.ring.next() else { break };
            looked_at += 1;
            if time(&item) > until {
                self.held.extend_from_slice(&item);
                break;
            }
            record(&item);
        }
        looked_at
    }

    /// Whether a record was taken out that is to be handed out later.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether something is in the ring: what [`Self::drain`] left there, or a record that a program
    /// has reserved and not committed, behind which later ones wait although they are committed.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        // The kernel compares the positions up to which is reserved and up to which we have read.
        let mut ring = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        let at_once = Timespec::default();
        self.holds() || poll(&mut ring, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }
}

/// Time of a record: the first field of its header.
fn time(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Readable while records wait.
impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
