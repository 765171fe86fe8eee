//! One ring buffer, read in user space.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};

/// The reading end of a ring.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self(map.try_into()?))
    }

    /// Calls `record` with at most `most` waiting records, oldest first, and gives their room back
    /// one by one. Returns how many there were.
    pub fn drain(&mut self, most: usize, mut record: impl FnMut(&[u8])) -> usize {
        for drained in 0..most {
            match self.0.next() {
                Some(item) => record(&item),
                None => return drained,
            }
        }
        most
    }
}

/// Readable while records wait.
impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
