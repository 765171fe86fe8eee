//! What the agent keeps for this policy outside of its instances: it survives a panic and a
//! replaced file, and ends with the policy or the agent.
//!
//! Each call crosses to the agent and back, tens of nanoseconds and a copy of the value: keep what
//! every event needs in the policy itself, and here what must not be lost.

use std::time::Duration;

use crate::bindings::tipstaff::policy::state;

/// There is no room: the policy reached its limit `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no room: the policy reached its limit `state`")
    }
}

impl std::error::Error for Full {}

/// The value of a key.
#[must_use]
pub fn get(key: &str) -> Option<Vec<u8>> {
    state::get(key)
}

/// Sets the value of a key, to be forgotten after `ttl`; `None`: never.
///
/// # Errors
/// There is no room; then the value is what it was.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Full> {
    if state::set(key, value, nanoseconds(ttl)) { Ok(()) } else { Err(Full) }
}

/// Forgets a key. Whether it was there.
#[expect(clippy::must_use_candidate, reason = "most callers do not care")]
pub fn remove(key: &str) -> bool {
    state::remove(key)
}

/// Adds to a counter, which begins with 0 and is forgotten `ttl` after it was made; `None`: never.
/// What it has now.
///
/// # Errors
/// There is no room for a new one.
pub fn add(key: &str, n: i64, ttl: Option<Duration>) -> Result<i64, Full> {
    state::add(key, n, nanoseconds(ttl)).ok_or(Full)
}

/// What a counter has; 0 where there is none.
#[must_use]
pub fn count(key: &str) -> i64 {
    get(key).and_then(|value| value.try_into().ok()).map_or(0, i64::from_le_bytes)
}

fn nanoseconds(ttl: Option<Duration>) -> u64 {
    // 0 means never; a time that is too long is never as well.
    ttl.map_or(0, |ttl| u64::try_from(ttl.as_nanos()).unwrap_or(0).max(1))
}
