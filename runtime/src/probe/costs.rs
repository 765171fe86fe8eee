//! How long the kernel runs our programs. Measuring costs it some tens of nanoseconds for each run of
//! any program of the machine, and so is on only while somebody asks.

use std::{collections::BTreeMap, os::fd::OwnedFd, time::Duration};

use aya::sys::{Stats, enable_stats};

use super::{Probes, losses::Losses};

/// Measured while this is there.
pub(super) struct Costs {
    /// The kernel measures while it is open. `None` before Linux 5.8, where it cannot be asked to.
    _measuring: Option<OwnedFd>,
    /// What was read before, by program.
    before: BTreeMap<u64, u64>,
}

/// How long programs ran, with the kinds that each is for.
pub type RunTimes = Vec<(Vec<u16>, Duration)>;

impl Costs {
    fn begin() -> Self {
        let measuring = enable_stats(Stats::RunTime)
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "the kernel does not measure how long programs run: only the agent's own time counts for `cpu_percent` in [agent]"
                );
            })
            .ok();
        Self { _measuring: measuring, before: BTreeMap::new() }
    }

    /// How long each ran since the last call, or since it was loaded.
    fn read(&mut self, losses: &Losses) -> RunTimes {
        let before = std::mem::take(&mut self.before);
        let since = losses.run_times().into_iter().map(|program| {
            let known = before.get(&program.key).copied().unwrap_or(0);
            self.before.insert(program.key, program.nanoseconds);
            (program.kinds, Duration::from_nanos(program.nanoseconds.saturating_sub(known)))
        });
        since.collect()
    }
}

impl Probes {
    /// Has the kernel measure how long our programs run, or not any more.
    pub fn measure(&mut self, on: bool) {
        match (on, &self.costs) {
            (true, None) => self.costs = Some(Costs::begin()),
            (false, Some(_)) => self.costs = None,
            _ => {}
        }
    }

    /// How long each program ran since the last call, guards' included; nothing where that is not
    /// measured.
    pub fn run_times(&mut self) -> RunTimes {
        let losses = &self.kernel.losses;
        self.costs.as_mut().map_or_else(Vec::new, |costs| costs.read(losses))
    }
}
