//! What the agent leaves out when it uses more processor time than it may, and when it takes it back.
//!
//! One step at a time: of the costliest kind it takes half as many events. The window in which a step
//! was taken says nothing yet about what it saved, so the next one is only looked at for what comes
//! after. It takes back, also by halves, what it can afford by a margin and has for some windows, so
//! that it does not go up and down.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// Of 2 to this power events one is taken at least.
const MOST_POWER: u8 = 10;
/// What is used with what is taken back may be this part of what is allowed.
const MARGIN: f64 = 0.8;
/// So many windows in a row something could be taken back before it is.
const QUIET_WINDOWS: u32 = 3;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Thrift {
    /// Of 2 to this power events of the kind one is taken.
    powers: BTreeMap<u16, u8>,
    settles: bool,
    quiet: u32,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Of this kind one event in 2 to this power is taken from now on.
    Take(u16, u8),
    /// Too much is used, and there is nothing that could be left out.
    Helpless,
}

impl Thrift {
    /// By how much each kind is thinned: a power of two.
    pub fn powers(&self) -> &BTreeMap<u16, u8> {
        &self.powers
    }

    /// Of how many events of the kind one is taken, as a power of two.
    pub fn power(&self, kind: u16) -> u8 {
        self.powers.get(&kind).copied().unwrap_or(0)
    }

    /// Forgets the kinds of which nothing may be left out any more; those are returned.
    pub fn keep(&mut self, thinnable: &BTreeSet<u16>) -> Vec<u16> {
        let gone = |kind: &&u16| !thinnable.contains(kind);
        let gone: Vec<u16> = self.powers.keys().filter(gone).copied().collect();
        for kind in &gone {
            self.powers.remove(kind);
        }
        gone
    }

    /// Looks at a window: what was used, what may be, and what part of it each kind costs of which
    /// something may be left out.
    pub fn judge(&mut self, used: f64, allowed: f64, costs: &BTreeMap<u16, f64>) -> Step {
        if mem::take(&mut self.settles) {
            return Step::Stay;
        }
        if used > allowed {
            self.quiet = 0;
            let costliest = costs
                .iter()
                .filter(|&(&kind, &cost)| cost > 0.0 && self.power(kind) < MOST_POWER)
                .max_by(|one, other| one.1.total_cmp(other.1));
            let Some((&kind, _)) = costliest else { return Step::Helpless };
            return self.step(kind, self.power(kind) + 1);
        }
        // Twice as many events cost twice as much, at most.
        let is_affordable =
            |kind: &u16| used + costs.get(kind).copied().unwrap_or(0.0) < allowed * MARGIN;
        let most_thinned = self.powers.iter().filter(|(kind, _)| is_affordable(kind));
        let Some((&kind, &power)) = most_thinned.max_by_key(|(_, power)| **power) else {
            self.quiet = 0;
            return Step::Stay;
        };
        self.quiet += 1;
        if self.quiet < QUIET_WINDOWS {
            return Step::Stay;
        }
        self.quiet = 0;
        self.step(kind, power - 1)
    }

    fn step(&mut self, kind: u16, power: u8) -> Step {
        self.settles = true;
        if power == 0 {
            self.powers.remove(&kind);
        } else {
            self.powers.insert(kind, power);
        }
        Step::Take(kind, power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: u16 = 10;
    const UNLINK: u16 = 11;

    fn costs(open: f64, unlink: f64) -> BTreeMap<u16, f64> {
        [(OPEN, open), (UNLINK, unlink)].into()
    }

    #[test]
    fn the_costliest_kind_is_thinned_step_by_step() {
        let mut thrift = Thrift::default();
        assert_eq!(thrift.judge(0.04, 0.05, &costs(0.02, 0.02)), Step::Stay);
        assert_eq!(thrift.judge(0.20, 0.05, &costs(0.15, 0.04)), Step::Take(OPEN, 1));
        assert_eq!(thrift.judge(0.20, 0.05, &costs(0.15, 0.04)), Step::Stay, "it settles");
        assert_eq!(thrift.judge(0.12, 0.05, &costs(0.03, 0.04)), Step::Take(UNLINK, 1));
        assert_eq!((thrift.power(OPEN), thrift.power(UNLINK)), (1, 1));
    }

    #[test]
    fn it_does_not_go_up_and_down() {
        let mut thrift = Thrift::default();
        assert_eq!(thrift.judge(0.20, 0.10, &costs(0.18, 0.0)), Step::Take(OPEN, 1));
        thrift.judge(0.10, 0.10, &costs(0.08, 0.0));
        for _ in 0..20 {
            // Within the budget, and twice as many events would not be.
            assert_eq!(thrift.judge(0.09, 0.10, &costs(0.07, 0.0)), Step::Stay);
        }
        assert_eq!(thrift.judge(0.02, 0.10, &costs(0.01, 0.0)), Step::Stay);
        assert_eq!(thrift.judge(0.02, 0.10, &costs(0.01, 0.0)), Step::Stay);
        assert_eq!(thrift.judge(0.02, 0.10, &costs(0.01, 0.0)), Step::Take(OPEN, 0));
        assert!(thrift.powers().is_empty());
    }

    #[test]
    fn where_nothing_may_be_left_out_it_says_so() {
        let mut thrift = Thrift::default();
        assert_eq!(thrift.judge(0.2, 0.1, &BTreeMap::new()), Step::Helpless);
        assert_eq!(thrift.judge(0.2, 0.1, &costs(0.0, 0.0)), Step::Helpless);
        let steps = (0..100).map(|_| thrift.judge(0.2, 0.1, &costs(0.1, 0.0)));
        assert_eq!(steps.filter(|step| matches!(step, Step::Take(OPEN, _))).count(), 10);
        assert_eq!(thrift.power(OPEN), MOST_POWER);
        assert_eq!(thrift.keep(&[UNLINK].into()), [OPEN]);
        assert_eq!(thrift.power(OPEN), 0);
    }
}
