//! How much there was lately: sums over a sliding window of the events' own time.

use std::time::Duration;

/// A sum over the last `N` parts of a time. It slides by one part at a time: what it covers is
/// between `N - 1` and `N` parts long, the newest of which has just begun.
///
/// ```
/// use std::time::Duration;
/// use tipstaff::Window;
///
/// const SECOND: u64 = 1_000_000_000;
/// let mut failed = Window::<60>::new(Duration::from_secs(60));
/// failed.add(100 * SECOND, 2);
/// failed.add(130 * SECOND, 1);
/// assert_eq!(failed.sum(130 * SECOND), 3);
/// assert_eq!(failed.sum(160 * SECOND), 1);
/// ```
///
/// Times are those of events (`time_ns` of `on`) or of `on_tick`. An event that comes late counts in
/// its own part of the time, or not at all if the window has passed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window<const N: usize> {
    part_ns: u64,
    /// Number of the newest part, counted from the beginning of time.
    newest: u64,
    parts: [u64; N],
}

impl<const N: usize> Window<N> {
    /// An empty window of this length, at least `N` nanoseconds.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        const { assert!(N > 0, "a window needs a part") };
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { part_ns: (length / N as u64).max(1), newest: 0, parts: [0; N] }
    }

    /// Adds `n` at that time.
    pub fn add(&mut self, time_ns: u64, n: u64) {
        let part = time_ns / self.part_ns;
        self.slide(part);
        if self.newest - part < N as u64 {
            let sum = &mut self.parts[place::<N>(part)];
            *sum = sum.saturating_add(n);
        }
    }

    /// The sum at that time.
    #[must_use]
    pub fn sum(&mut self, now_ns: u64) -> u64 {
        self.slide(now_ns / self.part_ns);
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// How much there was per second, at that time.
    #[must_use]
    pub fn per_second(&mut self, now_ns: u64) -> f64 {
        let sum = self.sum(now_ns);
        let covered = (N as u64 - 1) * self.part_ns + now_ns % self.part_ns + 1;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate need not be exact to the last digit"
        )]
        let rate = sum as f64 * 1e9 / covered as f64;
        rate
    }

    /// Whether nothing is in it at that time: then it may be forgotten.
    #[must_use]
    pub fn is_empty(&mut self, now_ns: u64) -> bool {
        self.sum(now_ns) == 0
    }

    /// Its contents, for [`state`](crate::state) or [`HandOver`](crate::HandOver).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.part_ns, self.newest].into_iter().chain(self.parts);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    /// A window with these contents. `None` if they are of one that was made otherwise.
    #[must_use]
    pub fn from_bytes(length: Duration, bytes: &[u8]) -> Option<Self> {
        let mut window = Self::new(length);
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let (&[part_ns, newest], parts) = numbers.split_first_chunk()?;
        if u64::from_le_bytes(part_ns) != window.part_ns || parts.len() != N {
            return None;
        }
        window.newest = u64::from_le_bytes(newest);
        for (part, bytes) in window.parts.iter_mut().zip(parts) {
            *part = u64::from_le_bytes(*bytes);
        }
        Some(window)
    }

    /// Makes this part the newest, if it is newer.
    fn slide(&mut self, part: u64) {
        if part > self.newest {
            let passed = (part - self.newest).min(N as u64);
            for gone in 0..passed {
                self.parts[place::<N>(part - gone)] = 0;
            }
            self.newest = part;
        }
    }
}

/// Where a part is kept.
fn place<const N: usize>(part: u64) -> usize {
    // The remainder is below `N`.
    usize::try_from(part % N as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_the_last_parts_and_no_more() {
        let mut window = Window::<4>::new(Duration::from_nanos(40));
        for time in [100, 109, 110, 125, 139] {
            window.add(time, 1);
        }
        assert_eq!(window.sum(139), 5);
        assert_eq!(window.sum(140), 3);
        assert_eq!(window.sum(150), 2);
        assert_eq!((window.sum(160), window.sum(170)), (1, 0));
        assert!(window.is_empty(170));
    }

    #[test]
    fn a_late_event_counts_where_it_belongs_or_not_at_all() {
        let mut window = Window::<4>::new(Duration::from_nanos(40));
        window.add(139, 1);
        window.add(100, 2);
        assert_eq!(window.sum(139), 3);
        window.add(99, 4);
        assert_eq!(window.sum(139), 3, "its part has passed");
        assert_eq!(window.sum(140), 1);
    }

    #[test]
    fn after_a_long_silence_it_is_empty() {
        let mut window = Window::<4>::new(Duration::from_nanos(40));
        window.add(10, u64::MAX);
        window.add(11, 1);
        assert_eq!(window.sum(11), u64::MAX, "it does not wrap");
        assert_eq!(window.sum(u64::MAX), 0);
    }

    #[test]
    fn the_rate_is_that_of_what_is_covered() {
        let mut window = Window::<10>::new(Duration::from_secs(10));
        for tenth in 0..1000 {
            window.add(tenth * 100_000_000, 1);
        }
        let rate = window.per_second(99_999_999_999);
        assert!((rate - 10.0).abs() < 0.001, "{rate}");
    }

    #[test]
    fn it_can_be_kept_and_taken_up_again() {
        let length = Duration::from_secs(1);
        let mut window = Window::<4>::new(length);
        window.add(5_000_000_000, 7);
        let bytes = window.to_bytes();
        let mut same = Window::<4>::from_bytes(length, &bytes).unwrap();
        assert_eq!((&same, same.clone().sum(5_000_000_001)), (&window, 7));
        same.add(5_000_000_001, 1);
        assert!(Window::<4>::from_bytes(Duration::from_secs(2), &bytes).is_none());
        assert!(Window::<5>::from_bytes(length, &bytes).is_none());
        assert!(Window::<4>::from_bytes(length, &bytes[1..]).is_none());
    }
}
