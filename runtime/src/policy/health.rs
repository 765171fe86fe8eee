//! What becomes of a policy whose instances are lost.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// An instance that is lost is restarted after this time, then after twice as long, and so on.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// So many instances lost within [`WINDOW`] put a policy into quarantine.
const FAILURES: usize = 5;
/// See [`FAILURES`].
pub const WINDOW: Duration = Duration::from_mins(1);

/// The instances that one generation lost lately.
#[derive(Debug, Default)]
pub struct Health {
    failures: VecDeque<Instant>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start another instance after this time.
    Restart(Duration),
    /// Start no more: so many were lost.
    Quarantine(usize),
}

impl Health {
    /// An instance was lost, or could not be started.
    pub fn failed(&mut self, now: Instant) -> Verdict {
        while self.failures.front().is_some_and(|&first| now.duration_since(first) > WINDOW) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        match self.failures.len() {
            failures if failures >= FAILURES => Verdict::Quarantine(failures),
            failures => Verdict::Restart(FIRST_BACK_OFF * (1 << (failures - 1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_until_the_quarantine_and_forgets_after_a_minute() {
        let (mut health, start) = (Health::default(), Instant::now());
        let millis = |millis| Verdict::Restart(Duration::from_millis(millis));
        let mut failed = |seconds| health.failed(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 3].map(&mut failed), [100, 200, 400, 800].map(millis));
        assert_eq!(failed(61), millis(800), "the first one is forgotten");
        assert_eq!(failed(61), Verdict::Quarantine(5));
    }
}
