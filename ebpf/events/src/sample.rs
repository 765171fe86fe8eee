//! Sampling: one event of many, or all events of one process of many. The same function decides in
//! the kernel and on the host, and a record says by how much the kernel has thinned its kind.
#![expect(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "eBPF: one function with few registers; the parts of a number are meant"
)]

use core::fmt;

/// Bits of a sample's number that hold how many there are for each one that is taken.
const EVERY: u16 = 0x7fff;
/// Bit: whole processes are taken.
const BY_PROCESS: u16 = 0x8000;

/// Most events, or processes, of which one is taken.
pub const MOST: u16 = EVERY;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// Events: each is taken or left by its turn.
    Event,
    /// Processes: all events of one are taken, or none, and everybody takes the same ones.
    Process,
}

/// One in how many, and of what. As a number it is [`crate::wire::Header::sample`]; 0: all are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sample(u16);

impl Sample {
    /// Everything.
    pub const ALL: Self = Self(0);

    /// One in `every`, [`MOST`] at most.
    #[must_use]
    pub const fn new(every: u16, by: By) -> Self {
        match (every, by) {
            (0 | 1, _) => Self::ALL,
            (_, By::Event) => Self(every & EVERY),
            (_, By::Process) => Self(every & EVERY | BY_PROCESS),
        }
    }

    /// As a record holds it.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        Self(number)
    }

    /// For a record.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// How many there are for each one that is taken.
    #[inline(always)]
    #[must_use]
    pub const fn every(self) -> u16 {
        let every = self.0 & EVERY;
        if every == 0 { 1 } else { every }
    }

    /// What is counted.
    #[must_use]
    pub const fn by(self) -> By {
        if self.0 & BY_PROCESS == 0 { By::Event } else { By::Process }
    }

    /// Whether an event of this process is taken, before which there were `turn` others.
    #[inline(always)]
    #[must_use]
    pub const fn takes(self, pid: u32, turn: u64) -> bool {
        let every = self.every() as u64;
        if self.0 & BY_PROCESS == 0 {
            // The middle one, so that few events are not counted as many.
            turn % every == every / 2
        } else {
            hash(pid).is_multiple_of(every)
        }
    }

    /// What is still to be done where that much was done before: the sample to take of what is left,
    /// and for how many of those each one then stands.
    #[must_use]
    pub const fn after(self, before: Self) -> (Self, u32) {
        let (every, done) = (self.every(), before.every());
        match (self.by(), before.by()) {
            (By::Event, By::Event) if done > 1 => {
                let rest = if every < done { 1 } else { every / done };
                (Self::new(rest, By::Event), rest as u32)
            }
            // Those that both take are taken: one in their least common multiple.
            (By::Process, By::Process) => {
                let common = every as u32 * done as u32 / divisor(every, done) as u32;
                (self, common / done as u32)
            }
            _ => (self, every as u32),
        }
    }
}

/// A sample of which the agent takes only a part, to save its own time: one in a power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thinned {
    asked: Sample,
    power: u8,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is taken.
    Yes,
    /// It is left out, as nobody asked for it.
    No,
    /// It is left out, although it was asked for.
    Spared,
}

impl Thinned {
    /// One in 2 to the `power` of what this sample takes; of fewer where [`MOST`] would be exceeded.
    #[must_use]
    pub const fn new(asked: Sample, power: u8) -> Self {
        let mut power = power;
        while power > 0 && (power > 14 || (asked.every() as u32) << power > MOST as u32) {
            power -= 1;
        }
        Self { asked, power }
    }

    /// As a filter holds it.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self { asked: Sample::from_number(number as u16), power: (number >> 16) as u8 & 15 }
    }

    /// For a filter; 0: all are taken.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.asked.number() as u32 | (self.power as u32) << 16
    }

    /// The sample that was asked for.
    #[must_use]
    pub const fn asked(self) -> Sample {
        self.asked
    }

    /// What is taken in the end, as records tell it.
    #[inline(always)]
    #[must_use]
    pub const fn sample(self) -> Sample {
        let every = (self.asked.every() as u32) << self.power;
        Sample(every as u16 & EVERY | self.asked.0 & BY_PROCESS)
    }

    /// What becomes of an event of this process, before which there were `turn` others.
    #[inline(always)]
    #[must_use]
    pub const fn takes(self, pid: u32, turn: u64) -> Taken {
        if !self.asked.takes(pid, turn) {
            return Taken::No;
        }
        // How many the sample took before, or which of the processes that it takes this is.
        let every = self.asked.every() as u64;
        let mask = (1 << self.power) - 1;
        let is_taken = if self.asked.0 & BY_PROCESS == 0 {
            (turn / every) & mask == mask.div_ceil(2)
        } else {
            (hash(pid) / every) & mask == 0
        };
        if is_taken { Taken::Yes } else { Taken::Spared }
    }
}

/// As manifests write it.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "event",
            Self::Process => "process",
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.every(), self.by()) {
            (1, _) => f.write_str("all events"),
            (every, By::Event) => write!(f, "1 event in {every}"),
            (every, By::Process) => write!(f, "the events of 1 process in {every}"),
        }
    }
}

/// The greatest common divisor.
#[must_use]
pub const fn divisor(mut one: u16, mut other: u16) -> u16 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// Neighbouring pids belong together too often.
#[inline(always)]
const fn hash(pid: u32) -> u64 {
    (pid as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn one_in_so_many_is_taken() {
        assert!(Sample::ALL.takes(7, 3) && Sample::new(1, By::Process).takes(7, 3));
        let sample = Sample::new(10, By::Event);
        assert_eq!((0..1000).filter(|turn| sample.takes(7, *turn)).count(), 100);
        assert!(!sample.takes(7, 0), "the first one stands for itself only");
    }

    #[test]
    fn what_the_kernel_has_left_out_is_not_left_out_again() {
        let by_event = |every| Sample::new(every, By::Event);
        let by_process = |every| Sample::new(every, By::Process);
        assert_eq!(by_event(20).after(Sample::ALL), (by_event(20), 20));
        assert_eq!(by_event(20).after(by_event(10)), (by_event(2), 2));
        assert_eq!(by_event(10).after(by_event(10)), (Sample::ALL, 1));
        assert_eq!(by_event(5).after(by_event(10)), (Sample::ALL, 1));
        assert_eq!(by_event(5).after(by_process(10)), (by_event(5), 5));
        assert_eq!(by_process(8).after(by_process(4)), (by_process(8), 2));
        assert_eq!(by_process(8).after(by_process(8)), (by_process(8), 1));
        assert_eq!(by_process(6).after(by_process(4)), (by_process(6), 3));
    }

    #[test]
    fn what_is_spared_of_a_sample_is_what_it_would_have_taken() {
        for (asked, power) in [
            (Sample::ALL, 3),
            (Sample::new(10, By::Event), 2),
            (Sample::new(3, By::Process), 4),
            (Sample::new(5, By::Event), 0),
        ] {
            let thinned = Thinned::from_number(Thinned::new(asked, power).number());
            let (mut taken, mut spared) = (0_u64, 0_u64);
            for turn in 0..96_000 {
                let pid = u32::try_from(turn).unwrap() / 10;
                match thinned.takes(pid, turn) {
                    Taken::Yes => taken += 1,
                    Taken::Spared => spared += 1,
                    Taken::No => {}
                }
                assert_eq!(thinned.takes(pid, turn) != Taken::No, asked.takes(pid, turn));
                if asked.by() == By::Process {
                    let is_taken = thinned.takes(pid, turn) == Taken::Yes;
                    assert_eq!(is_taken, thinned.sample().takes(pid, turn), "{pid}");
                }
            }
            assert_eq!(thinned.sample().every(), asked.every() << power);
            let part = (taken + spared) >> power;
            assert!(taken.abs_diff(part) <= part / 20, "{asked} {power}: {taken} of {spared}");
        }
    }

    #[test]
    fn no_sample_is_thinned_beyond_what_a_record_can_tell() {
        assert_eq!(Thinned::new(Sample::new(3_000, By::Event), 9).sample().every(), 24_000);
        assert_eq!(Thinned::new(Sample::ALL, 200).sample().every(), 16_384);
        assert_eq!(Thinned::new(Sample::new(MOST, By::Event), 1).sample().every(), MOST);
        assert_eq!(Thinned::default().number(), 0);
    }

    #[test]
    fn everybody_takes_the_same_processes() {
        let of = |every| {
            let sample = Sample::new(every, By::Process);
            (1..100_000).filter(|pid| sample.takes(*pid, 0)).collect::<Vec<u32>>()
        };
        let (fours, eights) = (of(4), of(8));
        assert!(eights.iter().all(|pid| fours.contains(pid)));
        assert!((24_000..26_000).contains(&fours.len()), "{}", fours.len());
    }
}
