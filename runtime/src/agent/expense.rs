//! What the agent uses of the processors: its own threads, and its programs in the kernel. Where that is
//! more than `cpu_percent` in `[agent]`, fewer events are taken ([`super::thrift`]), and that is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
    time::{Duration, Instant},
};

use tipstaff_events::catalogue::{AgentBudget, agent_budget};

use super::thrift::{Step, Thrift};
use crate::{
    clock,
    kind::Kinds,
    outcome::{AgentMetrics, KindLabels},
    plan::Union,
    probe::Probes,
    source::records::{HEADER, Records},
};

/// What is used is looked at this often.
const WINDOW: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Expense {
    /// What may be used, in percent of a core.
    percent: Option<u32>,
    thrift: Thrift,
    began: Option<Began>,
    /// Whether it was said that there is nothing to be left out.
    is_helpless: bool,
}

/// How it stood when a window began.
struct Began {
    at: Instant,
    cpu: Duration,
    /// Events taken so far, by kind.
    events: BTreeMap<u16, u64>,
}

impl Expense {
    /// What the configuration says.
    pub fn set(&mut self, percent: Option<u32>, probes: &mut Probes, counts: &AgentMetrics) {
        if self.percent != percent {
            let Self { percent: before, .. } = self;
            *before = percent;
            self.began = None;
            self.is_helpless = false;
        }
        if percent.is_none() {
            self.thrift = Thrift::default();
            counts.budget_sample.clear();
            counts.agent_cpu_share.set(0.0);
        }
        probes.measure(percent.is_some());
    }

    /// Whether there is anything to look at.
    pub fn is_due(&self) -> bool {
        let is_over = |began: &Began| began.at.elapsed() >= WINDOW;
        self.percent.is_some()
            && (!self.thrift.powers().is_empty() || self.began.as_ref().is_none_or(is_over))
    }

    /// Has the probes leave out what is to be left out of these kinds.
    pub fn thin(&self, union: &mut Union, thinnable: &BTreeSet<u16>) {
        for (&kind, &power) in
            self.thrift.powers().iter().filter(|(kind, _)| thinnable.contains(kind))
        {
            union.thin(kind, power);
        }
    }

    /// Looks at what was used, if a window is over. Whether what is left out has changed; `thinnable`:
    /// of which kinds something may be.
    pub fn look(
        &mut self,
        thinnable: &BTreeSet<u16>,
        probes: &mut Probes,
        kinds: &Kinds,
        counts: &AgentMetrics,
    ) -> bool {
        let Some(percent) = self.percent else { return false };
        let mut has_changed = false;
        for kind in self.thrift.keep(thinnable) {
            has_changed = true;
            let kind = name(kinds, kind);
            counts.budget_sample.remove(&KindLabels { kind: kind.clone() });
            tracing::info!(kind, "no events of this kind are left out any more");
        }
        if self.began.as_ref().is_some_and(|began| began.at.elapsed() < WINDOW) {
            return has_changed;
        }
        let events = kinds.iter().map(|kind| {
            let labels = KindLabels { kind: kind.name.to_string() };
            (kind.id, counts.events.get(&labels).map_or(0, |counter| counter.get()))
        });
        let now = Began { at: Instant::now(), cpu: clock::process_cpu(), events: events.collect() };
        let run_times = probes.run_times();
        let Some(began) = self.began.replace(now) else { return has_changed };
        let Some(now) = &self.began else { return has_changed };
        let took = (now.at - began.at).as_secs_f64();
        let own = now.cpu.saturating_sub(began.cpu).as_secs_f64() / took;
        let programs: f64 = run_times.iter().map(|(_, time)| time.as_secs_f64() / took).sum();
        let (used, allowed) = (own + programs, f64::from(percent) / 100.0);
        counts.agent_cpu_share.set(used);

        let taken = |kind: &u16| {
            let of = |events: &BTreeMap<u16, u64>| events.get(kind).copied().unwrap_or(0);
            count(of(&now.events).saturating_sub(of(&began.events)))
        };
        // What a program does for an event that is left out costs as well.
        let made = |kind: &u16| taken(kind) * f64::from(1_u32 << self.thrift.power(*kind));
        let all: f64 = now.events.keys().map(taken).sum();
        let mut costs: BTreeMap<u16, f64> = BTreeMap::new();
        for &kind in thinnable {
            let of_programs = run_times.iter().filter(|(kinds, _)| kinds.contains(&kind));
            let in_kernel: f64 = of_programs
                .map(|(kinds, time)| {
                    part(made(&kind), kinds.iter().map(made).sum()) * time.as_secs_f64()
                })
                .sum();
            costs.insert(kind, own * part(taken(&kind), all) + in_kernel / took);
        }
        match self.thrift.judge(used, allowed, &costs) {
            Step::Take(kind, power) => {
                has_changed = true;
                self.is_helpless = false;
                tell(probes, counts, &name(kinds, kind), power, used, allowed);
            }
            Step::Helpless if !self.is_helpless => {
                self.is_helpless = true;
                tracing::warn!(
                    used = percents(used),
                    allowed = percents(allowed),
                    "the agent uses more processor time than `cpu_percent` in [agent], and there are no events that it may leave out"
                );
            }
            Step::Stay | Step::Helpless => {}
        }
        has_changed
    }
}

/// Tells that of a kind one event in 2 to the `power` is taken from now on.
fn tell(probes: &Probes, counts: &AgentMetrics, kind: &str, power: u8, used: f64, allowed: f64) {
    let every = 1_u32 << power;
    let labels = KindLabels { kind: kind.to_owned() };
    counts.budget_sample.get_or_create(&labels).set(every.into());
    tracing::warn!(
        kind,
        every,
        used = percents(used),
        allowed = percents(allowed),
        "of so many events of this kind one is taken from now on, because of `cpu_percent` in [agent]"
    );
    let mut records = Records::new(agent_budget::KIND);
    let mut record = records.begin(&[0; HEADER], size_of::<AgentBudget>());
    record.set(offset_of!(AgentBudget, every), &every.to_ne_bytes());
    record.set(offset_of!(AgentBudget, used), &permille(used).to_ne_bytes());
    record.set(offset_of!(AgentBudget, allowed), &permille(allowed).to_ne_bytes());
    record.push(offset_of!(AgentBudget, event), kind.bytes());
    drop(record);
    probes.handover().put(records);
}

fn name(kinds: &Kinds, kind: u16) -> String {
    kinds.get(kind).map_or_else(|| kind.to_string(), |kind| kind.name.to_string())
}

/// The part of a whole, of which there may be nothing.
fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "events of some seconds")]
fn count(events: u64) -> f64 {
    events as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
fn permille(share: f64) -> u32 {
    (share * 1000.0).round() as u32
}

/// For the log.
fn percents(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
