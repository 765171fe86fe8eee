//! Buffers of rows, used again. Memory that is new to the process costs a page fault per 4 KiB,
//! and for a full batch of small rows that is as much as all its rows cost otherwise.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

/// Most buffers that are kept: those that are on their way between the reader and quick policies.
const MOST: usize = 8;

/// Buffers that nobody uses at the moment, shared by all feeds.
#[derive(Debug, Clone, Default)]
pub struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// An empty buffer with at least this room.
    #[must_use]
    pub fn take(&self, room: usize) -> Vec<u8> {
        let mut buffer = self.with(Vec::pop).unwrap_or_default();
        buffer.reserve(room);
        buffer
    }

    /// Keeps the buffer, or drops it if there are enough.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        // What does not fit is dropped after the lock is let go.
        let _too_many = self.with(|buffers| {
            if buffers.len() < MOST {
                buffers.push(buffer);
                None
            } else {
                Some(buffer)
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The rows of a closed batch. Their buffer goes back where it came from.
#[derive(Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    home: Option<Spare>,
}

impl Rows {
    /// Rows in a buffer that is used again.
    #[must_use]
    pub fn in_spare(bytes: Vec<u8>, home: Spare) -> Self {
        Self { bytes, home: Some(home) }
    }

    /// Size of the buffer.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl From<Vec<u8>> for Rows {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Deref for Rows {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.give(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_with_its_room() {
        let spare = Spare::default();
        let mut buffer = spare.take(1000);
        buffer.extend_from_slice(b"row");
        let address = buffer.as_ptr();
        drop(Rows::in_spare(buffer, spare.clone()));
        let again = spare.take(10);
        assert!(again.is_empty() && again.capacity() >= 1000);
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn no_more_than_some_are_kept() {
        let spare = Spare::default();
        let buffers: Vec<_> = (0..MOST + 3).map(|_| spare.take(10)).collect();
        for buffer in buffers {
            spare.give(buffer);
        }
        assert_eq!(spare.with(|buffers| buffers.len()), MOST);
    }
}
