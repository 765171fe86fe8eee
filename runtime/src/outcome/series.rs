//! One series and the handles that write to it: an atomic operation each, no lock, no clock.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use super::table::Table;

/// A series is idle after so many sweeps in which nobody wrote to it.
pub(super) const IDLE_SWEEPS: u8 = 10;

/// Upper bounds of a histogram's buckets where the policy gives none; a last one without bound follows.
pub(super) const DEFAULT_BOUNDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0];

/// Name and value of one label.
pub(super) type Label = (String, String);

/// The value of one series at one moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// How often, or how much, so far.
    Counter(u64),
    /// How much now.
    Gauge(f64),
    /// How often within each bucket.
    Histogram {
        /// Sum of all observed values.
        sum: f64,
        /// Upper bound (the last one is infinite) and number of values in this bucket alone.
        buckets: Vec<(f64, u64)>,
    },
}

/// The label of a series that stands for those that there was no room for.
pub(super) const OVERFLOW: &str = "overflow";

#[derive(Debug)]
pub(super) struct Series {
    /// What the table finds it by: the values of its labels.
    pub key: String,
    /// Its labels, as they are shown.
    pub labels: Vec<Label>,
    cell: Cell,
    /// Sweeps since the last write; [`IDLE_SWEEPS`]: taken out of its table.
    quiet: AtomicU8,
}

#[derive(Debug)]
pub(super) enum Cell {
    Counter(AtomicU64),
    /// Bits of an f64.
    Gauge(AtomicU64),
    Histogram {
        bounds: Arc<[f64]>,
        counts: Box<[AtomicU64]>,
        /// Bits of an f64.
        sum: AtomicU64,
    },
}

impl Cell {
    pub fn histogram(bounds: &Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self::Histogram { bounds: Arc::clone(bounds), counts, sum: AtomicU64::new(0) }
    }

    fn value(&self) -> Value {
        match self {
            Self::Counter(count) => Value::Counter(count.load(Ordering::Relaxed)),
            Self::Gauge(bits) => Value::Gauge(f64::from_bits(bits.load(Ordering::Relaxed))),
            Self::Histogram { bounds, counts, sum } => Value::Histogram {
                sum: f64::from_bits(sum.load(Ordering::Relaxed)),
                buckets: bounds
                    .iter()
                    .copied()
                    .chain([f64::INFINITY])
                    .zip(counts.iter().map(|count| count.load(Ordering::Relaxed)))
                    .collect(),
            },
        }
    }
}

impl Series {
    pub fn new(key: String, labels: Vec<Label>, cell: Cell) -> Self {
        Self { key, labels, cell, quiet: AtomicU8::new(0) }
    }

    pub fn value(&self) -> Value {
        self.cell.value()
    }

    /// Counts a sweep; returns whether the series has expired. Under the lock of its table only.
    pub fn sweep(&self) -> bool {
        let more = |quiet| (quiet < IDLE_SWEEPS).then(|| quiet + 1);
        let before = self.quiet.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.unwrap_or(IDLE_SWEEPS) >= IDLE_SWEEPS - 1
    }

    /// Makes an expired series live again. Under the lock of its table only.
    pub fn revive(&self) {
        self.quiet.store(0, Ordering::Relaxed);
    }

    /// Says that it is being written to; `false` if it has expired. A series that expires at this
    /// moment either sees this or is seen here, never neither: then it would count unseen for ever.
    fn touch(&self) -> bool {
        match self.quiet.load(Ordering::Relaxed) {
            0 => true,
            IDLE_SWEEPS => false,
            quiet => {
                self.quiet.compare_exchange(quiet, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            }
        }
    }

    /// Takes over what was counted in the series that this one replaces.
    pub fn absorb(&self, older: &Self) {
        match (&self.cell, &older.cell) {
            (Cell::Counter(mine), Cell::Counter(theirs)) => {
                add(mine, theirs.load(Ordering::Relaxed));
            }
            // A gauge says how much now: the newer one knows better.
            (Cell::Gauge(_), Cell::Gauge(_)) => {}
            (
                Cell::Histogram { counts, sum, .. },
                Cell::Histogram { counts: older_counts, sum: older_sum, .. },
            ) => {
                for (mine, theirs) in counts.iter().zip(older_counts) {
                    add(mine, theirs.load(Ordering::Relaxed));
                }
                add_f64(sum, f64::from_bits(older_sum.load(Ordering::Relaxed)));
            }
            _ => unreachable!("series of one family have one type"),
        }
    }
}

/// Adds without wrapping: a counter never goes back, whatever a guest adds.
fn add(counter: &AtomicU64, n: u64) {
    let sum = |value: u64| Some(value.saturating_add(n));
    let _always_some = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
}

fn add_f64(bits: &AtomicU64, n: f64) {
    let sum = |bits| Some((f64::from_bits(bits) + n).to_bits());
    let _always_some = bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
}

/// A series and the way back to its table, for when it has expired in between.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub table: Arc<Table>,
    pub family: Arc<str>,
    pub series: Arc<Series>,
}

impl Handle {
    /// Whether it stands for series that there was no room for.
    fn overflows(&self) -> bool {
        matches!(&*self.series.labels, [(name, _)] if name == OVERFLOW)
    }

    fn write(&self, to: impl Fn(&Cell)) {
        if self.series.touch() {
            to(&self.series.cell);
        } else {
            to(&self.table.revive(&self.family, &self.series).cell);
        }
    }
}

/// Handle on a counter's series. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Counter(pub(super) Handle);

impl Counter {
    /// Whether it stands for series that there was no room for.
    #[must_use]
    pub fn overflows(&self) -> bool {
        self.0.overflows()
    }

    /// Adds `n`; stays at the largest number rather than to start again.
    pub fn add(&self, n: u64) {
        self.0.write(|cell| {
            if let Cell::Counter(count) = cell {
                add(count, n);
            }
        });
    }
}

/// Handle on a gauge's series. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gauge(pub(super) Handle);

impl Gauge {
    /// Whether it stands for series that there was no room for.
    #[must_use]
    pub fn overflows(&self) -> bool {
        self.0.overflows()
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.write(|cell| {
            if let Cell::Gauge(bits) = cell {
                bits.store(value.to_bits(), Ordering::Relaxed);
            }
        });
    }

    /// Adds to the value.
    pub fn add(&self, n: f64) {
        self.0.write(|cell| {
            if let Cell::Gauge(bits) = cell {
                add_f64(bits, n);
            }
        });
    }
}

/// Handle on a histogram's series. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Histogram(pub(super) Handle);

impl Histogram {
    /// Whether it stands for series that there was no room for.
    #[must_use]
    pub fn overflows(&self) -> bool {
        self.0.overflows()
    }

    /// Counts a value. One that is not finite is ignored: it would spoil the sum for ever.
    pub fn observe(&self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.0.write(|cell| {
            if let Cell::Histogram { bounds, counts, sum } = cell {
                add(&counts[bounds.partition_point(|&bound| bound < value)], 1);
                add_f64(sum, value);
            }
        });
    }
}
