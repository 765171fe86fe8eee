//! A policy that counts, and hands its count over when it is replaced, well or badly.
#![forbid(unsafe_code)]

use tipstaff::{
    Counter, Counters, Event, Gap, Gauge, HandOver, On, OnTick, Policy, Settings, state,
};

#[derive(Event)]
#[event(kind = "open")]
struct Open {
    /// In tests: the number of the event.
    cgroup: u64,
}

#[derive(Settings)]
struct Script {
    /// A name for this generation.
    #[setting(default = "")]
    generation: String,
    /// What the hand-over does.
    #[setting(default = "")]
    upon: String,
}

struct Heir {
    script: Script,
    events: Counters<1>,
    sum: Counter,
    lost: Counter,
    held: Gauge,
    kept: Gauge,
    /// Events that this generation and those before it saw.
    count: u64,
}

impl Policy for Heir {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let script = Script::read(settings)?;
        if let Some(name) = script.upon.strip_prefix("gauge ") {
            Gauge::new(name, &[]).set(1.0);
        }
        Ok(Self {
            script,
            events: Counters::new("events_total", ["generation"]),
            sum: Counter::new("sum_total", &[]),
            lost: Counter::new("lost_total", &[]),
            held: Gauge::new("held", &[]),
            kept: Gauge::new("kept", &[]),
            count: 0,
        })
    }

    fn lost(&mut self, gap: Gap) {
        self.lost.add(gap.lost);
    }
}

impl On<Open> for Heir {
    fn on(&mut self, _time_ns: u64, open: Open) {
        assert!(self.script.upon != "panic", "as told");
        self.count += 1;
        self.events.add([&self.script.generation], 1);
        if self.script.upon == "keep" {
            state::add("events", 1, None).expect("there is room");
            assert!(open.cgroup != 5, "as told");
        }
        self.sum.add(open.cgroup);
    }
}

impl OnTick for Heir {
    fn on_tick(&mut self, _now_ns: u64) {
        self.kept.set(f64::from(u32::try_from(state::count("events")).unwrap_or(u32::MAX)));
        self.held.set(f64::from(u32::try_from(self.count).unwrap_or(u32::MAX)));
    }
}

impl HandOver for Heir {
    fn save(&mut self) -> Vec<u8> {
        match self.script.upon.as_str() {
            "panic in save" => panic!("as told"),
            "loop in save" => loop {
                std::hint::black_box(());
            },
            "save too much" => vec![0; 2 << 20],
            _ => self.count.to_le_bytes().to_vec(),
        }
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.count = 1_000_000;
        match self.script.upon.as_str() {
            "panic in restore" => panic!("as told"),
            "refuse" => return Err("not this\u{1b}[31m".to_owned()),
            _ => {}
        }
        let count = state.try_into().map_err(|_| "expected 8 bytes".to_owned())?;
        self.count = u64::from_le_bytes(count);
        Ok(())
    }
}

tipstaff::export_hand_over!(Heir);
tipstaff::export!(Heir: Open; settings = Script; tick = "1h");
