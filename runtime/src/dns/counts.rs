//! What became of all messages.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of all messages and connections that came to a proxy. Each message is counted once from
/// `unknown` to `refused`, and each that was sent on once from `answered` to `unanswered`.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that came when a door was full, by the kernel's count; up to a second late.
    pub dropped: Count,
    /// Packets and connections that are of no flow: not led here by the guard, or forgotten.
    pub unknown: Count,
    /// Messages that are no query with one question.
    pub malformed: Count,
    /// Queries for something else than records.
    pub unsupported: Count,
    /// Queries that came while too many were under way.
    pub overload: Count,
    /// Queries that went on.
    pub allowed: Count,
    /// Queries that were refused by the judge, or as it took too long.
    pub refused: Count,
    /// Queries among the last two that the judge took too long for.
    pub late: Count,
    /// Connections that came while there were too many.
    pub connections_refused: Count,
    /// Queries that were answered by their server; by TCP there may be several answers.
    pub answered: Count,
    /// Answers among these that could not be read, and went on as they were.
    pub unread: Count,
    /// Queries that could not be sent to their server, or were rejected by its machine; these are answered
    /// with SERVFAIL.
    pub failed: Count,
    /// Queries that were not answered in time.
    pub unanswered: Count,
}
