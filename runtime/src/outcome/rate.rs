//! How often something may be done.

use std::time::{Duration, Instant};

/// So many per minute, and so many at once after a quiet time (token bucket).
#[derive(Debug, Clone)]
pub struct Rate {
    per_minute: u32,
    burst: u32,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    /// A rate whose bucket is full at first.
    #[must_use]
    pub fn new(per_minute: u32, burst: u32) -> Self {
        Self { per_minute, burst, tokens: f64::from(burst), filled: Instant::now() }
    }

    /// Takes over the numbers of another rate, but not what it has saved.
    pub fn limit_to(&mut self, other: &Self) {
        let Self { per_minute, burst, tokens: _, filled: _ } = *other;
        self.per_minute = per_minute;
        self.burst = burst;
        self.tokens = self.tokens.min(f64::from(burst));
    }

    /// Whether one more is allowed now.
    pub fn allow(&mut self) -> bool {
        self.allow_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> bool {
        const MINUTE: Duration = Duration::from_mins(1);
        let passed = now.saturating_duration_since(self.filled).div_duration_f64(MINUTE);
        self.filled = now;
        self.tokens =
            (self.tokens + passed * f64::from(self.per_minute)).min(f64::from(self.burst));
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_so_many_per_minute() {
        let mut rate = Rate::new(60, 5);
        let start = rate.filled;
        let passed = |rate: &mut Rate, seconds| {
            (0..100).filter(|_| rate.allow_at(start + Duration::from_secs(seconds))).count()
        };
        assert_eq!(passed(&mut rate, 0), 5);
        assert_eq!(passed(&mut rate, 1), 1);
        assert_eq!(passed(&mut rate, 4), 3);
        assert_eq!(passed(&mut rate, 3600), 5, "quiet time does not save more than the burst");
    }

    #[test]
    fn another_limit_gives_no_second_burst() {
        let mut rate = Rate::new(60, 5);
        let start = rate.filled;
        let passed = |rate: &mut Rate| (0..100).filter(|_| rate.allow_at(start)).count();
        assert_eq!(passed(&mut rate), 5);
        rate.limit_to(&Rate::new(60, 50));
        assert_eq!(passed(&mut rate), 0);
        rate.limit_to(&Rate::new(60_000, 50));
        assert!(rate.allow_at(start + Duration::from_secs(1)));
        rate.limit_to(&Rate::new(60_000, 3));
        assert_eq!((0..100).filter(|_| rate.allow_at(start + Duration::from_secs(1))).count(), 3);
    }

    #[test]
    fn a_rate_of_zero_allows_nothing() {
        assert!(!Rate::new(0, 0).allow());
    }
}
