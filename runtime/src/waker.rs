//! Wakes a thread that sleeps in `poll`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the thread that polls [`Waker::fd`]. Clones wake the same thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new one.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Readable once [`Waker::wake`] was called, until [`Waker::reset`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        // It fails only when it was called 2^64 times without a reset: then it is readable anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Lets the thread sleep again.
    pub fn reset(&self) {
        // It fails only when nobody woke it.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}
