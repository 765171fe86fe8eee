//! What `tipstaff new` makes: counts the shells that are run, by user. For `benches/languages.rs`.

use tipstaff::{Counters, Event, On, Policy};

#[derive(Event)]
#[event(kind = "exec")]
struct Exec<'a> {
    path: &'a str,
    uid: u32,
}

struct Shells {
    shells: Counters<1>,
}

impl Policy for Shells {
    fn configure(_: &[(String, String)]) -> Result<Self, String> {
        Ok(Self { shells: Counters::new("shells_total", ["uid"]) })
    }
}

impl On<Exec<'_>> for Shells {
    fn on(&mut self, _time_ns: u64, exec: Exec<'_>) {
        if exec.path.ends_with("sh") {
            self.shells.add([&exec.uid.to_string()], 1);
        }
    }
}

tipstaff::export!(Shells: Exec<'_>);
