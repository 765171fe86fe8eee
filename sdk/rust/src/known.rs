//! Keys that are told one by one, of which there may be too many.

use std::collections::BTreeMap;

/// Keeps so many keys apart. What more there is is for the policy to count together, until one of those
/// known was quiet for long enough to make room.
///
/// ```
/// let mut known = tipstaff::Known::new(1, 60_000_000_000);
/// assert!(known.admits(&"a", 0));
/// assert!(!known.admits(&"b", 1));
/// assert!(known.admits(&"b", 60_000_000_000));
/// ```
#[derive(Debug)]
pub struct Known<K> {
    most: usize,
    forget_ns: u64,
    /// When each was seen last.
    keys: BTreeMap<K, u64>,
}

impl<K: Ord + Clone> Known<K> {
    /// Keeps at most this many apart, each until it was quiet for this long.
    #[must_use]
    pub fn new(most: usize, forget_ns: u64) -> Self {
        Self { most, forget_ns, keys: BTreeMap::new() }
    }

    /// Whether this key, seen now, is kept apart.
    pub fn admits(&mut self, key: &K, time_ns: u64) -> bool {
        if let Some(last) = self.keys.get_mut(key) {
            *last = time_ns;
            return true;
        }
        if self.keys.len() >= self.most {
            self.keys.retain(|_, last| time_ns.saturating_sub(*last) < self.forget_ns);
        }
        if self.keys.len() >= self.most {
            return false;
        }
        self.keys.insert(key.clone(), time_ns);
        true
    }
}
