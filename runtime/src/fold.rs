//! Rows of aggregated kinds: those that agree in every key that a subscription asks for become one.
//!
//! The kernel tells apart what any subscription asks for, and always processes; a tick brings one
//! record for each. Here what this subscription did not ask for is added up, over as many ticks as it
//! wants. Enriched fields are keys like any other, so rows can be asked for by executable or by cgroup.

use std::{collections::HashMap, ops::Range};

use tipstaff_events::Role;

use crate::{
    enrich::Lookup,
    manifest::AskType,
    plan::{Bound, Column},
    project::{FLAG_CLIPPED, ROW_ABSENT, ROW_FLAGS, ROW_WORDS},
    record::Malformed,
};

/// How the rows of one subscription are added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// Places of the keys in a row, and whether they point at bytes.
    keys: Vec<(Range<usize>, bool)>,
    values: Vec<Value>,
    /// Bits of the keys in the row's mask of absent fields.
    absent_keys: u32,
    /// Time between two rows of the same keys.
    every_ns: u64,
}

/// A number, or several, that are put together with those of another row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value {
    offset: usize,
    role: Role,
    absent: u32,
    is_histogram: bool,
}

impl Fold {
    /// For rows with these columns, each with its role.
    #[must_use]
    pub fn new(columns: &[Column], roles: &[Role], every_ns: u64) -> Self {
        let mut fold = Self { keys: Vec::new(), values: Vec::new(), absent_keys: 0, every_ns };
        for (column, &role) in columns.iter().zip(roles) {
            let points = matches!(column.ty, AskType::Text | AskType::Bytes);
            if role == Role::Key {
                fold.keys.push((column.offset..column.offset + column.ty.size(), points));
                fold.absent_keys |= column.absent;
            } else {
                let (offset, absent) = (column.offset, column.absent);
                fold.values.push(Value { offset, role, absent, is_histogram: points });
            }
        }
        fold
    }

    /// Time between two rows of the same keys.
    #[must_use]
    pub fn every_ns(&self) -> u64 {
        self.every_ns
    }

    /// What makes this row the same as another.
    fn key(&self, row: usize, rows: &[u8], key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(&(absent(rows, row) & self.absent_keys).to_le_bytes());
        for (place, points) in &self.keys {
            if *points {
                let bytes = text(rows, row + place.start);
                key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                key.extend_from_slice(&rows[bytes]);
            } else {
                key.extend_from_slice(&rows[row + place.start..row + place.end]);
            }
        }
    }

    /// Puts what the row at `from` says into the one at `to`.
    fn put(&self, from: usize, to: usize, rows: &mut [u8]) {
        rows[to + ROW_FLAGS] |= rows[from + ROW_FLAGS];
        for value in &self.values {
            if absent(rows, from) & value.absent != 0 {
                continue;
            }
            if absent(rows, to) & value.absent != 0 {
                Self::take_over(value, from, to, rows);
                continue;
            }
            if value.is_histogram {
                let (other, own) = (text(rows, from + value.offset), text(rows, to + value.offset));
                for (other, own) in other.step_by(8).zip(own.step_by(8)) {
                    combine(value.role, other, own, to, rows);
                }
            } else {
                combine(value.role, from + value.offset, to + value.offset, to, rows);
            }
        }
    }

    /// A number that the row lacked so far.
    fn take_over(value: &Value, from: usize, to: usize, rows: &mut [u8]) {
        let (other, own) = (from + value.offset, to + value.offset);
        rows.copy_within(other..other + 8, own);
        let mask = absent(rows, to) & !value.absent;
        rows[to + ROW_ABSENT..to + ROW_ABSENT + 4].copy_from_slice(&mask.to_le_bytes());
    }

    /// Whether the row at `from` has a histogram that the one at `to` lacks: it has the room for it.
    fn has_more(&self, from: usize, to: usize, rows: &[u8]) -> bool {
        self.values.iter().filter(|value| value.is_histogram).any(|value| {
            let length = |row| text(rows, row + value.offset).len();
            length(from) > length(to)
        })
    }
}

/// Puts the number at `other` and the one at `own` together.
fn combine(role: Role, other: usize, own: usize, to: usize, rows: &mut [u8]) {
    let number = |at: usize| {
        rows.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
    };
    let (other, before) = (number(other), number(own));
    let result = match role {
        Role::Key => before,
        Role::Sum => before.checked_add(other).unwrap_or_else(|| {
            rows[to + ROW_FLAGS] |= FLAG_CLIPPED;
            u64::MAX
        }),
        Role::Least => before.min(other),
        Role::Greatest => before.max(other),
    };
    rows[own..own + 8].copy_from_slice(&result.to_le_bytes());
}

fn absent(rows: &[u8], row: usize) -> u32 {
    rows[row + ROW_ABSENT..].first_chunk().map_or(0, |mask| u32::from_le_bytes(*mask))
}

/// Where the bytes are that a text at `at` points at.
fn text(rows: &[u8], at: usize) -> Range<usize> {
    let number = |at: usize| {
        let bytes = rows[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    };
    let start = number(at);
    start..start + number(at + 4)
}

/// Most bytes of rows of one subscription: what is there is then handed over before its time. A policy
/// may ask for rows once a day by keys that come and go, and this memory is not in its limits.
const MOST_BYTES: usize = 4 << 20;

/// The rows of one subscription that are being added up.
#[derive(Debug, Default)]
pub struct Groups {
    rows: Vec<u8>,
    /// Where each row is in `rows`, in the order in which they came.
    starts: Vec<usize>,
    /// Index in `starts` by what makes a row the same as another.
    index: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    key: Vec<u8>,
    /// Time of the newest row.
    time: u64,
    /// When rows were handed over last.
    began: u64,
    /// The last tick that the source told of; 0: it tells of none.
    tick: u64,
}

impl Groups {
    /// For records after this time.
    #[must_use]
    pub fn new(began: u64) -> Self {
        Self { began, ..Self::default() }
    }

    /// Adds the row of a record of this time.
    pub fn add(
        &mut self,
        bound: &Bound,
        fold: &Fold,
        record: &[u8],
        time: u64,
        lookup: &mut Lookup<'_>,
    ) -> Result<(), Malformed> {
        let row = self.rows.len();
        bound.projection.append(record, lookup, &mut self.rows)?;
        self.time = self.time.max(time);
        fold.key(row, &self.rows, &mut self.key);
        if let Some(&found) = self.index.get(self.key.as_slice()) {
            let known = self.starts[found];
            if fold.has_more(row, known, &self.rows) {
                fold.put(known, row, &mut self.rows);
                self.starts[found] = row;
            } else {
                fold.put(row, known, &mut self.rows);
                self.rows.truncate(row);
            }
        } else {
            self.index.insert(self.key.as_slice().into(), self.starts.len());
            self.starts.push(row);
        }
        Ok(())
    }

    /// Time of what is being added up, if there is anything.
    #[must_use]
    pub fn time(&self) -> Option<u64> {
        (!self.starts.is_empty()).then_some(self.time)
    }

    /// Whether rows have to be handed over before a record of this time is added. A source that tells of
    /// no ticks shows them by the times of its records.
    #[must_use]
    pub fn is_due_before(&self, fold: &Fold, time: u64) -> bool {
        let is_over = self.tick == 0 && !self.starts.is_empty() && self.time < time;
        is_over && self.is_due(fold, time, time - self.time) || self.rows.len() > MOST_BYTES
    }

    /// Whether rows are due at the end of a tick of this time.
    #[must_use]
    pub fn is_due_at(&mut self, fold: &Fold, time: u64) -> bool {
        let before = std::mem::replace(&mut self.tick, time).max(self.began);
        self.is_due(fold, time, time.saturating_sub(before))
    }

    /// Ticks are a little early or late: the one that is nearest is taken.
    fn is_due(&self, fold: &Fold, time: u64, since_last_tick: u64) -> bool {
        time.saturating_sub(self.began).saturating_add(since_last_tick / 2) >= fold.every_ns
    }

    /// Hands out the rows, each with its place in the bytes that its texts' places count from, and
    /// forgets them.
    pub fn take(&mut self, now: u64, mut each: impl FnMut(&[u8], usize, u64)) {
        for &start in &self.starts {
            let words = self.rows[start + ROW_WORDS..].first_chunk();
            let words = words.map_or(0, |words| u16::from_le_bytes(*words));
            let end = start + usize::from(words) * 8;
            self.rows[start..start + 8].copy_from_slice(&self.time.to_le_bytes());
            each(&self.rows[start..end], start, self.time);
        }
        self.rows.clear();
        self.starts.clear();
        self.index.clear();
        self.began = now;
    }
}

#[cfg(test)]
mod tests;
