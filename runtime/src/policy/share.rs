//! How much of a processor core a policy may use, call after call.

use std::time::{Duration, Instant};

/// What is saved while a policy is quiet: so long it may then use a core alone.
const SAVED: Duration = Duration::from_secs(1);
/// A policy that used up its share waits until it may run for this long, so that it is not woken for
/// every microsecond.
const WORTH: Duration = Duration::from_millis(1);

/// A share of one core, as a token bucket of processor time.
#[derive(Debug)]
pub struct Share {
    /// Cores; 0.2 is a fifth of one.
    cores: f64,
    /// Seconds that may be used now; below zero after a call that took more than there was.
    left: f64,
    filled: Instant,
    /// Until when the policy waits.
    until: Option<Instant>,
}

impl Share {
    /// A share of so many percent of one core, all saved.
    pub fn new(percent: u32, now: Instant) -> Self {
        let cores = f64::from(percent) / 100.0;
        Self { cores, left: cores * SAVED.as_secs_f64(), filled: now, until: None }
    }

    /// A call took this long.
    pub fn spend(&mut self, used: Duration) {
        self.left -= used.as_secs_f64();
    }

    /// Until when the policy has to wait, and how long that is if it has not been told yet.
    pub fn wait(&mut self, now: Instant) -> Option<(Instant, Option<Duration>)> {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return Some((until, None));
        }
        self.until = None;
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.left = (self.left + passed * self.cores).min(self.cores * SAVED.as_secs_f64());
        if self.left > 0.0 {
            return None;
        }
        let wait = Duration::from_secs_f64((WORTH.as_secs_f64() - self.left) / self.cores);
        self.until = Some(now + wait);
        Some((now + wait, Some(wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_always_runs_gets_its_share_and_no_more() {
        let start = Instant::now();
        let mut now = start;
        let mut share = Share::new(20, now);
        let (mut used, mut told) = (Duration::ZERO, Duration::ZERO);
        let call = Duration::from_millis(7);
        while now < start + Duration::from_secs(100) {
            if let Some((until, wait)) = share.wait(now) {
                told += wait.unwrap();
                assert_eq!(share.wait(now), Some((until, None)), "it is told once");
                now = until;
            } else {
                share.spend(call);
                used += call;
                now += call;
            }
        }
        // What was saved at first, a fifth of the time, and one call beyond.
        let fair = Duration::from_millis(200 + 20_000);
        assert!(used.abs_diff(fair) <= call + WORTH, "{used:?}");
        assert_eq!(told + used, now.duration_since(start), "all of the waiting is told");
    }

    #[test]
    fn a_quiet_time_saves_no_more_than_a_second_s_worth() {
        let start = Instant::now();
        let mut share = Share::new(50, start);
        let later = start + Duration::from_secs(1000);
        assert_eq!(share.wait(later), None);
        share.spend(Duration::from_millis(499));
        assert_eq!(share.wait(later), None);
        share.spend(Duration::from_millis(2));
        assert!(share.wait(later).is_some());
    }
}
