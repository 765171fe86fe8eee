//! What was denied, rule by rule, across tables.

use std::{collections::HashMap, io};

use tipstaff_events::guard::{BY_DEFAULT, Count};

use super::maps::Maps;
use crate::guard::{Operations, Ports, Prefix, Protocol, Rule, Table, Verdict};

/// What denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// The rule of this index in the table in force.
    Rule(usize),
    /// The default of the table in force.
    Default,
    /// Rules and defaults of tables before that the table in force does not have.
    Former,
}

/// How often it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleCount {
    /// What.
    pub by: Counted,
    /// Operations that it denied.
    pub denied: u64,
    /// Operations that it would have denied, in audit.
    pub would_deny: u64,
    /// Events of these that somebody wanted and that were not made, for there were too many.
    pub suppressed: u64,
}

/// What tables before have counted.
#[derive(Default)]
pub(super) struct Carried {
    /// By rules that are in the table in force, by index.
    rules: HashMap<usize, Sum>,
    default: Sum,
    former: Sum,
    /// What stands in the map still.
    left: Vec<Left>,
}

/// A count of a table that is not in force any more.
struct Left {
    generation: u64,
    rule: usize,
    /// What it counts for.
    by: Counted,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    denied: u64,
    would_deny: u64,
    suppressed: u64,
}

impl Sum {
    fn of(count: &Count) -> Self {
        let Count { denied, would_deny, suppressed, second: _, records: _ } = *count;
        Self { denied, would_deny, suppressed }
    }

    fn and(self, other: Self) -> Self {
        Self {
            denied: self.denied + other.denied,
            would_deny: self.would_deny + other.would_deny,
            suppressed: self.suppressed + other.suppressed,
        }
    }

    fn named(self, by: Counted) -> RuleCount {
        let Self { denied, would_deny, suppressed } = self;
        RuleCount { by, denied, would_deny, suppressed }
    }
}

/// What makes a rule the same one in another table: neither its reason nor its time to live.
type Same = (Verdict, Operations, Protocol, Prefix, Ports);

fn same(rule: &Rule) -> Same {
    (rule.verdict, rule.operations, rule.protocol, rule.prefix, rule.ports)
}

impl Carried {
    /// Counts of the old table are from now on those of the same rules of the new one.
    pub(super) fn retire(&mut self, generation: u64, old: &Table, new: &Table) {
        let mut places: HashMap<Same, usize> = HashMap::new();
        for (index, rule) in new.rules.iter().enumerate() {
            places.entry(same(rule)).or_insert(index);
        }
        let mut before = std::mem::take(&mut self.rules);
        for (rule, described) in old.rules.iter().enumerate().filter(|(_, rule)| denies(rule)) {
            let by =
                places.get(&same(described)).map_or(Counted::Former, |&place| Counted::Rule(place));
            if let Some(sum) = before.remove(&rule) {
                self.add(by, sum);
            }
            self.left.push(Left { generation, rule, by });
        }
        let mut by = Counted::Default;
        if old.default != new.default {
            by = Counted::Former;
            let sum = std::mem::take(&mut self.default);
            self.add(by, sum);
        }
        self.left.push(Left { generation, rule: BY_DEFAULT.into(), by });
    }

    /// Takes over what was retired and no program uses, so that its part of the map is clear for the
    /// next table. After an error nothing is lost: the rest stays where it is, and is counted there.
    pub(super) fn collect(&mut self, maps: &Maps) -> io::Result<()> {
        while let Some(&Left { generation, rule, by }) = self.left.last() {
            let sum = take(maps, generation, rule)?;
            self.left.pop();
            self.add(by, sum);
        }
        Ok(())
    }

    fn add(&mut self, by: Counted, sum: Sum) {
        if sum == Sum::default() {
            return;
        }
        let to = match by {
            Counted::Rule(rule) => self.rules.entry(rule).or_default(),
            Counted::Default => &mut self.default,
            Counted::Former => &mut self.former,
        };
        *to = to.and(sum);
    }

    pub(super) fn counts(
        &self,
        maps: &Maps,
        generation: u64,
        table: Option<&Table>,
    ) -> io::Result<Vec<RuleCount>> {
        let mut left: HashMap<Counted, Sum> = HashMap::new();
        for &Left { generation, rule, by } in &self.left {
            let sum = left.entry(by).or_default();
            *sum = sum.and(read(maps, generation, rule)?);
        }
        let mut left = |by| left.remove(&by).unwrap_or_default();
        let mut counts = Vec::new();
        if let Some(table) = table {
            for (index, rule) in table.rules.iter().enumerate() {
                let by = Counted::Rule(index);
                let carried = self.rules.get(&index).copied().unwrap_or_default().and(left(by));
                let now =
                    if denies(rule) { read(maps, generation, index)? } else { Sum::default() };
                counts.push(carried.and(now).named(by));
            }
            let now = read(maps, generation, BY_DEFAULT.into())?;
            let sum = self.default.and(left(Counted::Default)).and(now);
            counts.push(sum.named(Counted::Default));
        }
        counts.push(self.former.and(left(Counted::Former)).named(Counted::Former));
        Ok(counts)
    }
}

/// Nothing is counted of what is allowed.
fn denies(rule: &Rule) -> bool {
    rule.verdict == Verdict::Deny
}

fn read(maps: &Maps, generation: u64, rule: usize) -> io::Result<Sum> {
    maps.count(generation, place(rule)).map(|count| Sum::of(&count))
}

/// Reads, and clears; after an error it is as it was.
fn take(maps: &Maps, generation: u64, rule: usize) -> io::Result<Sum> {
    let count = maps.count(generation, place(rule))?;
    if count != Count::default() {
        maps.clear(generation, place(rule))?;
    }
    Ok(Sum::of(&count))
}

/// A table has no more rules than indices.
fn place(rule: usize) -> u16 {
    u16::try_from(rule).unwrap_or(BY_DEFAULT)
}
