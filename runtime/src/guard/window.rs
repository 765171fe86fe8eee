//! How often something happened within the last minute.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_mins(1);

/// The times within the last minute, of which no more are kept than are allowed.
#[derive(Debug, Default)]
pub struct Window {
    times: VecDeque<Instant>,
}

impl Window {
    /// Whether one more would be within `most` per minute.
    pub fn has_room(&mut self, most: u32, now: Instant) -> bool {
        while self.times.front().is_some_and(|time| now.saturating_duration_since(*time) >= MINUTE)
        {
            self.times.pop_front();
        }
        self.times.len() < usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Notes one.
    pub fn note(&mut self, now: Instant) {
        self.times.push_back(now);
    }

    /// Notes one if that is within `most` per minute; whether it is.
    pub fn take(&mut self, most: u32, now: Instant) -> bool {
        let has_room = self.has_room(most, now);
        if has_room {
            self.note(now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_so_many() {
        let (mut window, start) = (Window::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let taken =
            |window: &mut Window, seconds| (0..10).filter(|_| window.take(3, at(seconds))).count();
        assert_eq!((taken(&mut window, 0), taken(&mut window, 59)), (3, 0));
        assert!(window.take(3, at(60)));
        assert_eq!(taken(&mut window, 61), 2, "what is a minute ago does not count");
        assert_eq!(taken(&mut window, 119), 0);
        assert!(!Window::default().take(0, start));
    }
}
