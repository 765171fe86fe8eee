//! Asks for more of the kind that `tally` counts.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Event, On, Policy};

#[derive(Event)]
#[event(kind = "unlink")]
struct Unlink<'a> {
    path: &'a str,
    path_given: &'a [u8],
    comm: &'a str,
    uid: u32,
    cgroup: u64,
    result: i32,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

struct TallyMore(Counter);

impl Policy for TallyMore {
    fn configure(_: &[(String, String)]) -> Result<Self, String> {
        Ok(Self(Counter::new("tally_more_total", &[])))
    }
}

impl On<Unlink<'_>> for TallyMore {
    fn on(&mut self, _time_ns: u64, unlink: Unlink<'_>) {
        let whole = unlink.path.as_bytes() == unlink.path_given
            && unlink.comm == "tally-load"
            && unlink.uid == 0
            && unlink.cgroup != 0
            && unlink.result < 0
            && unlink.exe.is_some();
        if whole {
            self.0.add(1);
        }
    }
}

tipstaff::export!(TallyMore: Unlink<'_>);
