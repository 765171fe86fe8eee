//! Metrics under the rules of Prometheus.
//!
//! A metric belongs to the policy and goes on counting when its instance is replaced. Names,
//! label names and types must be the same wherever a metric is made: the agent ends an instance
//! that breaks this.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use crate::{bindings::tipstaff::policy::metrics, owned};

/// Says what a metric means: a text for a reader, and its unit in Prometheus' words (`seconds`,
/// `bytes`), or nothing. To be called in `configure`, before the metric is made.
pub fn describe(name: &str, text: &str, unit: &str) {
    metrics::describe(name, text, unit);
}

/// A number that only grows. Its name ends in `_total`.
///
/// What is added reaches the agent when the call ends (`on`, `on_tick`, ...): calling it for each
/// event would cost more than the rest of a small policy. What was added in a call that fails is
/// lost with the instance, as are the events that the agent then reports as lost.
#[derive(Debug)]
pub struct Counter(Rc<Pending>);

#[derive(Debug)]
struct Pending {
    counter: metrics::Counter,
    added: Cell<u64>,
}

thread_local! {
    /// Counters that something was added to since the last flush.
    static TOUCHED: RefCell<Vec<Rc<Pending>>> = const { RefCell::new(Vec::new()) };
}

impl Counter {
    /// The series with these labels.
    #[must_use]
    pub fn new(name: &str, labels: &[(&str, &str)]) -> Self {
        let counter = metrics::Counter::new(name, &owned(labels));
        Self(Rc::new(Pending { counter, added: Cell::new(0) }))
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        let added = self.0.added.get();
        if added == 0 && n > 0 {
            TOUCHED.with_borrow_mut(|touched| touched.push(Rc::clone(&self.0)));
        }
        self.0.added.set(added.saturating_add(n));
    }
}

/// Tells the agent what was added to counters. The calls of the agent end with it.
pub(crate) fn flush() {
    TOUCHED.with_borrow_mut(|touched| {
        for pending in touched.drain(..) {
            pending.counter.add(pending.added.take());
        }
    });
}

/// A number that goes up and down.
#[derive(Debug)]
pub struct Gauge(metrics::Gauge);

impl Gauge {
    /// The series with these labels.
    #[must_use]
    pub fn new(name: &str, labels: &[(&str, &str)]) -> Self {
        Self(metrics::Gauge::new(name, &owned(labels)))
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds `delta`, which may be negative.
    pub fn add(&self, delta: f64) {
        self.0.add(delta);
    }
}

/// How values are distributed.
#[derive(Debug)]
pub struct Histogram(metrics::Histogram);

impl Histogram {
    /// The series with these labels. `upper_bounds` ascend.
    #[must_use]
    pub fn new(name: &str, labels: &[(&str, &str)], upper_bounds: &[f64]) -> Self {
        Self(metrics::Histogram::new(name, &owned(labels), upper_bounds))
    }

    /// Counts `value`.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }
}

/// Series that are kept at hand before all are let go. The agent keeps counting them.
const KEPT: usize = 1024;

/// A counter with labels whose values are only known when an event comes.
///
/// ```no_run
/// # use tipstaff::Counters;
/// let execs = Counters::new("exec_total", ["exe", "parent"]);
/// execs.add(["/bin/true", "/bin/sh"], 1);
/// ```
#[derive(Debug)]
pub struct Counters<const N: usize> {
    name: String,
    labels: [&'static str; N],
    // A tree, because its cost does not depend on keys that an attacker chose.
    kept: RefCell<BTreeMap<Vec<u8>, Counter>>,
    key: RefCell<Vec<u8>>,
}

impl<const N: usize> Counters<N> {
    /// The counter of this name, with these label names.
    #[must_use]
    pub fn new(name: &str, labels: [&'static str; N]) -> Self {
        Self { name: name.to_owned(), labels, kept: RefCell::default(), key: RefCell::default() }
    }

    /// Adds `n` to the series with these label values.
    pub fn add(&self, values: [&str; N], n: u64) {
        let mut key = self.key.borrow_mut();
        key.clear();
        for value in values {
            // The length first, so that no value can pass for two.
            key.extend_from_slice(&value.len().to_le_bytes());
            key.extend_from_slice(value.as_bytes());
        }
        let mut kept = self.kept.borrow_mut();
        if let Some(counter) = kept.get(key.as_slice()) {
            counter.add(n);
            return;
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        let labels: Vec<(&str, &str)> = self.labels.into_iter().zip(values).collect();
        let counter = Counter::new(&self.name, &labels);
        counter.add(n);
        kept.insert(key.clone(), counter);
    }
}
