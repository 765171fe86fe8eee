//! As `tally`, and urgent. The numbers
//! are summed up, so that one lost and another one doubled do not cancel out.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Event, Gap, On, Policy};

#[derive(Event)]
#[event(kind = "unlink", urgent)]
struct Unlink<'a> {
    path_given: &'a str,
}

struct Tally {
    events: Counter,
    sum: Counter,
    lost: Counter,
}

impl Policy for Tally {
    fn configure(_: &[(String, String)]) -> Result<Self, String> {
        Ok(Self {
            events: Counter::new("tally_events_total", &[]),
            sum: Counter::new("tally_sum_total", &[]),
            lost: Counter::new("tally_lost_total", &[]),
        })
    }

    fn lost(&mut self, gap: Gap) {
        self.lost.add(gap.lost);
    }
}

impl On<Unlink<'_>> for Tally {
    fn on(&mut self, _time_ns: u64, unlink: Unlink<'_>) {
        // Behind the pid of whoever makes the load.
        let path = unlink.path_given.strip_prefix("/tally/");
        let number = path.and_then(|path| path.rsplit('/').next());
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            self.events.add(1);
            self.sum.add(number);
        }
    }
}

tipstaff::export!(Tally: Unlink<'_>);
