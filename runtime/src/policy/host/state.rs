//! `tipstaff:policy/state`: what a policy keeps outside of its instances, by the policy's name.
//!
//! ```text
//! state::add("failed:10.0.0.1", 1, 60 s)   -> 3      the third within a minute of the first
//! state::set("seen:/bin/x", [], 0)         -> true   kept until the policy is removed
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::State;
use crate::policy::bindings::tipstaff::policy::state;

/// Longest key, in bytes.
const MAX_KEY: usize = 1024;
/// What an entry costs besides its key and value, in bytes: its place in the tables.
const ENTRY: usize = 128;

/// What is kept for one policy. The keys may come from an attacker: std's maps are seeded.
#[derive(Debug, Default)]
pub struct Store {
    entries: HashMap<String, Entry>,
    /// The entries that will be forgotten, the next one first.
    ends: BTreeSet<(Instant, String)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    end: Option<Instant>,
}

/// A key or a value that is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The key is too long.
    #[error("a key of {0} bytes: at most {MAX_KEY} are allowed")]
    Key(usize),
    /// Not a counter.
    #[error("the value has {0} bytes: only a value of 8 bytes is a counter that can be added to")]
    NoCounter(usize),
}

/// What a change costs: the bytes of an entry.
fn cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY
}

impl Store {
    /// Bytes that are taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn get(&mut self, key: &str, now: Instant) -> Option<&[u8]> {
        self.forget(now);
        self.entries.get(key).map(|entry| &*entry.value)
    }

    /// Sets a value, if all then takes no more than `limit` bytes.
    fn set(&mut self, key: String, value: Vec<u8>, ttl: u64, limit: usize, now: Instant) -> bool {
        self.forget(now);
        let old = self.entries.get(&key).map_or(0, |entry| cost(&key, &entry.value));
        let bytes = self.bytes - old + cost(&key, &value);
        // One that shrinks is fine, also where the limit was larger before.
        if bytes > limit && bytes > self.bytes {
            return false;
        }
        self.remove(&key);
        self.bytes += cost(&key, &value);
        // Times that are too far away are never.
        let end = (ttl > 0).then(|| now.checked_add(Duration::from_nanos(ttl))).flatten();
        if let Some(end) = end {
            self.ends.insert((end, key.clone()));
        }
        self.entries.insert(key, Entry { value, end });
        true
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some((key, Entry { value, end })) = self.entries.remove_entry(key) else {
            return false;
        };
        self.bytes -= cost(&key, &value);
        if let Some(end) = end {
            self.ends.remove(&(end, key));
        }
        true
    }

    /// Adds to a counter; `Ok(None)` if there is no room for a new one.
    fn add(
        &mut self,
        key: String,
        n: i64,
        ttl: u64,
        limit: usize,
        now: Instant,
    ) -> Result<Option<i64>, StateError> {
        self.forget(now);
        let Some(entry) = self.entries.get_mut(&key) else {
            let is_set = self.set(key, n.to_le_bytes().to_vec(), ttl, limit, now);
            return Ok(is_set.then_some(n));
        };
        let length = entry.value.len();
        let value: &mut [u8; 8] =
            entry.value.as_mut_slice().try_into().map_err(|_| StateError::NoCounter(length))?;
        let sum = i64::from_le_bytes(*value).saturating_add(n);
        *value = sum.to_le_bytes();
        Ok(Some(sum))
    }

    /// Forgets what has come to its end.
    fn forget(&mut self, now: Instant) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now)
            && let Some((_, key)) = self.ends.pop_first()
        {
            if let Some(Entry { value, .. }) = self.entries.remove(&key) {
                self.bytes -= cost(&key, &value);
            }
        }
    }
}

impl State {
    /// Does something with the policy's store.
    fn with_store<R>(&self, key: &str, act: impl FnOnce(&mut Store) -> R) -> Result<R, StateError> {
        if key.len() > MAX_KEY {
            return Err(StateError::Key(key.len()));
        }
        let mut store = self.outcome.store.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut store);
        self.outcome.store_bytes.set(i64::try_from(store.bytes()).unwrap_or(i64::MAX));
        Ok(result)
    }
}

impl state::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.with_store(&key, |store| store.get(&key, Instant::now()).map(<[u8]>::to_vec))?)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl: u64) -> wasmtime::Result<bool> {
        let limit = self.outcome.store_limit;
        let is_set = self
            .with_store(&key.clone(), |store| store.set(key, value, ttl, limit, Instant::now()))?;
        if !is_set {
            self.outcome.store_refused.inc();
        }
        Ok(is_set)
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<bool> {
        Ok(self.with_store(&key, |store| {
            store.forget(Instant::now());
            store.remove(&key)
        })?)
    }

    fn add(&mut self, key: String, n: i64, ttl: u64) -> wasmtime::Result<Option<i64>> {
        let limit = self.outcome.store_limit;
        let sum =
            self.with_store(&key.clone(), |store| store.add(key, n, ttl, limit, Instant::now()))??;
        if sum.is_none() {
            self.outcome.store_refused.inc();
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Whether the books are right.
    fn check(store: &Store) {
        let bytes: usize = store.entries.iter().map(|(key, entry)| cost(key, &entry.value)).sum();
        assert_eq!(store.bytes, bytes);
        let mut ends: Vec<_> = store
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((entry.end?, key.clone())))
            .collect();
        ends.sort();
        assert!(store.ends.iter().eq(&ends));
    }

    #[test]
    fn a_value_is_there_until_its_time_is_over() {
        let (mut store, start) = (Store::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(store.set("a".into(), vec![1], 5 * SECOND, 1000, start));
        assert!(store.set("b".into(), vec![2], 0, 1000, start));
        assert!(store.set("far".into(), vec![3], u64::MAX, 1000, start));
        assert_eq!(store.get("a", at(4)), Some(&[1][..]));
        assert!(store.set("a".into(), vec![4], 5 * SECOND, 1000, at(4)), "it lives longer now");
        check(&store);
        assert_eq!(store.get("a", at(8)), Some(&[4][..]));
        assert_eq!(store.get("a", at(9)), None);
        assert_eq!(store.get("b", at(1_000_000)), Some(&[2][..]));
        assert!(store.remove("b") && !store.remove("b") && store.remove("far"));
        assert_eq!(store.bytes(), 0);
        check(&store);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let (mut store, now) = (Store::default(), Instant::now());
        let limit = 2 * (ENTRY + 11);
        assert!(store.set("a".into(), vec![0; 10], 0, limit, now));
        assert!(store.set("b".into(), vec![0; 10], SECOND, limit, now));
        assert!(!store.set("a".into(), vec![0; 11], 0, limit, now));
        assert!(!store.set("c".into(), vec![], 0, limit, now));
        assert_eq!(store.add("d".into(), 1, 0, limit, now), Ok(None));
        assert_eq!(store.get("a", now), Some(&[0; 10][..]));
        assert!(store.set("a".into(), vec![1; 3], 0, 10, now), "less fits also under a new limit");
        check(&store);
        // When one is forgotten there is room again.
        let later = now + Duration::from_secs(1);
        assert_eq!(store.add("d".into(), 1, 0, limit, later), Ok(Some(1)));
        check(&store);
    }

    #[test]
    fn a_counter_counts_from_when_it_was_made_and_does_not_wrap() {
        let (mut store, start) = (Store::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut add = |n, seconds| store.add("n".into(), n, 3 * SECOND, 1000, at(seconds)).unwrap();
        assert_eq!([add(1, 0), add(1, 1), add(-5, 2)], [Some(1), Some(2), Some(-3)]);
        assert_eq!(add(7, 3), Some(7), "adding does not prolong its life");
        assert_eq!(add(i64::MAX, 3), Some(i64::MAX));
        store.set("t".into(), b"text".to_vec(), 0, 1000, start);
        assert_eq!(store.add("t".into(), 1, 0, 1000, start), Err(StateError::NoCounter(4)));
        check(&store);
    }

    #[test]
    fn a_million_keys_stay_within_the_limit() {
        let (mut store, now) = (Store::default(), Instant::now());
        let limit = 100_000;
        for n in 0..1_000_000u32 {
            store.set(n.to_string(), vec![], u64::from(n % 3), limit, now);
        }
        assert!(store.bytes() <= limit && store.entries.len() <= limit / ENTRY);
        check(&store);
    }
}
