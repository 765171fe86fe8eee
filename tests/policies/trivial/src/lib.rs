//! As little as a policy can do with six numbers of an event: what the benchmarks call.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Event, On, Policy};

#[derive(Event)]
#[event(kind = "getppid")]
struct Getppid {
    pid: u32,
    tid: u32,
    ns_pid: u32,
    uid: u32,
    cgroup: u64,
    cgroup_v1: u64,
}

struct Trivial(Counter);

impl Policy for Trivial {
    fn configure(_: &[(String, String)]) -> Result<Self, String> {
        Ok(Self(Counter::new("trivial_total", &[])))
    }
}

impl On<Getppid> for Trivial {
    fn on(&mut self, _time_ns: u64, event: Getppid) {
        let Getppid { pid, tid, ns_pid, uid, cgroup, cgroup_v1 } = event;
        let ids = u64::from(pid ^ tid ^ ns_pid ^ uid) ^ cgroup ^ cgroup_v1;
        self.0.add(1 + (ids & 1));
    }
}

tipstaff::export!(Trivial: Getppid);
