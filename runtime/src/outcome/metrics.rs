//! The registry of the policies' metrics. They belong to the policy's name: a counter goes on when
//! an instance restarts or a generation is replaced.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    MetricError,
    rules::{MAX_HELP, canonical, check_bounds, family_name, same},
    series::{Counter, DEFAULT_BOUNDS, Gauge, Handle, Histogram, IDLE_SWEEPS, Label},
    table::{FamilySnapshot, MetricKind, Schema, Table},
};
use crate::escape;

/// What a policy calls a metric. A name alone will do: `"shells".into()`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Describe<'a> {
    /// `[a-zA-Z_][a-zA-Z0-9_]*`. A `_total` and the unit at its end are not repeated in the output.
    pub name: &'a str,
    /// Unit (`seconds`, `bytes`); empty where there is none.
    pub unit: &'a str,
    /// What it says; may be empty.
    pub help: &'a str,
}

impl<'a> From<&'a str> for Describe<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, unit: "", help: "" }
    }
}

/// The registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    idle: Duration,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// The table of each policy's running generation.
    running: BTreeMap<String, Arc<Table>>,
    /// Tables of generations that are about to run.
    reserved: Vec<Arc<Table>>,
}

impl Metrics {
    /// A registry in which a series with labels expires when nobody wrote to it for `idle`.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        Self(Arc::new(Shared { idle, tables: Mutex::default() }))
    }

    /// Begins a generation of a policy, with room for `max_series`. Until [`Reserved::commit`]
    /// only series that the running generation has as well are visible.
    #[must_use]
    pub fn begin(&self, policy: &str, max_series: usize) -> PolicyMetrics {
        let previous = self.0.lock().running.get(policy).map(Arc::clone);
        PolicyMetrics {
            shared: Arc::clone(&self.0),
            table: Arc::new(Table::new(policy, max_series, previous)),
        }
    }

    /// Forgets a policy that is gone.
    pub fn remove(&self, policy: &str) {
        self.0.lock().running.remove(policy);
    }

    /// How often [`Self::sweep`] must be called.
    #[must_use]
    pub fn sweep_every(&self) -> Duration {
        self.0.idle / u32::from(IDLE_SWEEPS)
    }

    /// Takes out the series that were idle for too long.
    pub fn sweep(&self) {
        for table in self.0.running() {
            table.sweep();
        }
    }

    /// All metrics as they are now, by name.
    #[must_use]
    pub fn families(&self) -> Vec<FamilySnapshot> {
        let mut families = BTreeMap::new();
        for table in self.0.running() {
            table.snapshot(&mut families);
        }
        families.into_values().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Vec<Arc<Table>> {
        self.lock().running.values().map(Arc::clone).collect()
    }

    /// Fails if a policy of another name, which runs or is about to, uses this name otherwise.
    fn check(&self, policy: &str, name: &str, schema: &Schema) -> Result<(), MetricError> {
        let Tables { running, reserved } = &*self.lock();
        for table in running.values().chain(reserved).filter(|table| table.policy() != policy) {
            for (other_name, other) in table.schemas() {
                same(name, schema, table.policy(), &other_name, &other)?;
            }
        }
        Ok(())
    }
}

/// The metrics of one generation of a policy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    shared: Arc<Shared>,
    table: Arc<Table>,
}

impl PolicyMetrics {
    /// Gives a metric a unit and a help text for when it is made with its name alone.
    pub fn describe(&self, describe: Describe<'_>) -> Result<(), MetricError> {
        family_name(MetricKind::Counter, describe.name, describe.unit)?;
        let help = escape::control(escape::prefix(describe.help, MAX_HELP));
        self.table.describe(describe.name, describe.unit, &help)
    }

    /// The counter's series with these labels.
    pub fn counter<'a>(
        &self,
        describe: impl Into<Describe<'a>>,
        labels: &[(String, String)],
    ) -> Result<Counter, MetricError> {
        self.handle(MetricKind::Counter, describe.into(), labels, &[]).map(Counter)
    }

    /// The gauge's series with these labels.
    pub fn gauge<'a>(
        &self,
        describe: impl Into<Describe<'a>>,
        labels: &[(String, String)],
    ) -> Result<Gauge, MetricError> {
        self.handle(MetricKind::Gauge, describe.into(), labels, &[]).map(Gauge)
    }

    /// The histogram's series with these labels. `bounds` are the upper bounds of its buckets; none:
    /// from a millisecond to five minutes, for seconds. Those given first count for all its series.
    pub fn histogram<'a>(
        &self,
        describe: impl Into<Describe<'a>>,
        labels: &[(String, String)],
        bounds: &[f64],
    ) -> Result<Histogram, MetricError> {
        let bounds = if bounds.is_empty() { DEFAULT_BOUNDS } else { bounds };
        self.handle(MetricKind::Histogram, describe.into(), labels, bounds).map(Histogram)
    }

    /// Keeps the names of this generation's metrics for it, until it takes over or is given up.
    /// Fails if another policy took one in the meantime.
    pub fn reserve(&self) -> Result<Reserved, MetricError> {
        let policy = self.table.policy();
        // First, so that nobody takes a name after it was looked at.
        self.shared.lock().reserved.push(Arc::clone(&self.table));
        let reserved = Reserved(self.clone());
        for (name, schema) in self.table.schemas() {
            self.shared.check(policy, &name, &schema)?;
        }
        Ok(reserved)
    }

    fn handle(
        &self,
        kind: MetricKind,
        given: Describe<'_>,
        labels: &[Label],
        bounds: &[f64],
    ) -> Result<Handle, MetricError> {
        let (unit, help) = if given.unit.is_empty() && given.help.is_empty() {
            self.table.described(given.name)
        } else {
            (
                given.unit.to_owned(),
                escape::control(escape::prefix(given.help, MAX_HELP)).into_owned(),
            )
        };
        let name = family_name(kind, given.name, &unit)?;
        let labels = canonical(name, labels)?;
        check_bounds(name, bounds)?;
        let mut schema = Schema {
            kind,
            unit,
            labels: labels.iter().map(|(name, _)| name.clone()).collect(),
            bounds: bounds.into(),
        };
        if let Some(mine) = self.table.schema(name) {
            if kind == mine.kind {
                schema.bounds = Arc::clone(&mine.bounds);
            }
            same(name, &schema, self.table.policy(), name, &mine)?;
        } else {
            self.shared.check(self.table.policy(), name, &schema)?;
            self.table.check_room(name)?;
        }
        Ok(self.table.handle(name, &schema, &help, labels))
    }
}

/// Metrics of a generation that is about to run. Dropped, its names are free again.
#[derive(Debug)]
pub struct Reserved(PolicyMetrics);

impl Reserved {
    /// Puts this generation in the place of the one that ran before, which must not be running any
    /// more.
    pub fn commit(self) {
        let PolicyMetrics { shared, table } = &self.0;
        let previous = shared.lock().running.insert(table.policy().to_owned(), Arc::clone(table));
        if let Some(previous) = previous.filter(|previous| !Arc::ptr_eq(previous, table)) {
            table.inherit(&previous);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let PolicyMetrics { shared, table } = &self.0;
        shared.lock().reserved.retain(|other| !Arc::ptr_eq(other, table));
    }
}
