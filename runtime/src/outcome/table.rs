//! The families and series of one generation of one policy.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    MetricError,
    series::{Cell, Handle, Label, OVERFLOW, Series, Value},
};

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl MetricKind {
    /// Name in messages and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// What is put behind a family's name to name its samples.
    pub(super) const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_sum", "_count"],
        }
    }
}

/// What must be the same wherever a name is used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schema {
    pub kind: MetricKind,
    /// Empty: none.
    pub unit: String,
    /// Names of the labels, sorted.
    pub labels: Vec<String>,
    /// Of a histogram.
    pub bounds: Arc<[f64]>,
}

impl Schema {
    /// How many series a time series database makes of one of ours.
    fn weight(&self) -> usize {
        match self.kind {
            MetricKind::Counter | MetricKind::Gauge => 1,
            MetricKind::Histogram => self.bounds.len() + 3,
        }
    }

    fn cell(&self) -> Cell {
        match self.kind {
            MetricKind::Counter => Cell::Counter(0.into()),
            MetricKind::Gauge => Cell::Gauge(0.into()),
            MetricKind::Histogram => Cell::histogram(&self.bounds),
        }
    }
}

/// All series of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilySnapshot {
    /// Name without unit and suffix.
    pub name: String,
    /// Type.
    pub kind: MetricKind,
    /// Unit; empty where there is none.
    pub unit: String,
    /// What it says.
    pub help: String,
    /// The series, by policy and labels.
    pub series: Vec<SeriesSnapshot>,
}

impl FamilySnapshot {
    /// The name that Prometheus shows (of a histogram's samples without `_bucket` and so on).
    #[must_use]
    pub fn exposed_name(&self) -> String {
        let Self { name, kind, unit, .. } = self;
        let joint = if unit.is_empty() { "" } else { "_" };
        let total = if *kind == MetricKind::Counter { "_total" } else { "" };
        [name, joint, unit, total].concat()
    }
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSnapshot {
    /// Name of the policy.
    pub policy: String,
    /// Its other labels.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: Value,
}

#[derive(Debug)]
struct Family {
    name: Arc<str>,
    schema: Schema,
    help: String,
    series: HashMap<String, Arc<Series>>,
    overflow: Option<Arc<Series>>,
    /// Taken over from the previous generation and not used by this one yet.
    inherited: bool,
}

impl Family {
    fn all(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.series.values().chain(&self.overflow)
    }
}

#[derive(Debug)]
pub(super) struct Table {
    policy: String,
    max_series: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    families: BTreeMap<Arc<str>, Family>,
    /// Series that count against the cap.
    weight: usize,
    /// Unit and help text of metrics that were described before they were made.
    described: BTreeMap<String, (String, String)>,
    /// The running generation's table, until this one takes over.
    previous: Option<Arc<Table>>,
}

impl Table {
    pub fn new(policy: &str, max_series: usize, previous: Option<Arc<Self>>) -> Self {
        let inner = Inner { previous, ..Inner::default() };
        Self { policy: policy.to_owned(), max_series, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Keeps unit and help text for a metric that is still to be made.
    pub fn describe(&self, name: &str, unit: &str, help: &str) -> Result<(), MetricError> {
        let mut inner = self.lock();
        if inner.described.len() >= self.max_series && !inner.described.contains_key(name) {
            return Err(self.too_many(name));
        }
        inner.described.insert(name.to_owned(), (unit.to_owned(), help.to_owned()));
        Ok(())
    }

    /// Unit and help text of a metric; both empty where there are none.
    pub fn described(&self, name: &str) -> (String, String) {
        self.lock().described.get(name).cloned().unwrap_or_default()
    }

    /// Fails if there are too many names already: each of them has an overflow series.
    pub fn check_room(&self, name: &str) -> Result<(), MetricError> {
        if self.lock().families.len() < self.max_series { Ok(()) } else { Err(self.too_many(name)) }
    }

    fn too_many(&self, metric: &str) -> MetricError {
        MetricError::TooMany {
            metric: metric.to_owned(),
            policy: self.policy.clone(),
            max: self.max_series,
        }
    }

    /// The schemas in use, by name.
    pub fn schemas(&self) -> Vec<(Arc<str>, Schema)> {
        let inner = self.lock();
        inner
            .families
            .values()
            .map(|family| (Arc::clone(&family.name), family.schema.clone()))
            .collect()
    }

    pub fn schema(&self, name: &str) -> Option<Schema> {
        self.lock()
            .families
            .get(name)
            .filter(|family| !family.inherited)
            .map(|family| family.schema.clone())
    }

    /// The series with these labels, made if it is new; the overflow series where the cap is reached.
    /// The caller has compared the schema with that of everyone else.
    pub fn handle(
        self: &Arc<Self>,
        name: &str,
        schema: &Schema,
        help: &str,
        labels: Vec<Label>,
    ) -> Handle {
        let mut inner = self.lock();
        let Inner { families, weight, previous, .. } = &mut *inner;
        if families.get(name).is_some_and(|family| family.inherited && family.schema != *schema) {
            // The previous generation had it otherwise, and this one decides.
            if let Some(old) = families.remove(name) {
                *weight -= old.schema.weight() * old.series.len();
            }
        }
        let family = families.entry(name.into()).or_insert_with_key(|name| Family {
            name: Arc::clone(name),
            schema: schema.clone(),
            help: String::new(),
            series: HashMap::new(),
            overflow: None,
            inherited: false,
        });
        family.inherited = false;
        if !help.is_empty() {
            help.clone_into(&mut family.help);
        }
        let key = key(&labels);
        let series = if let Some(series) = family.series.get(&key) {
            Arc::clone(series)
        } else if *weight + schema.weight() > self.max_series {
            Arc::clone(family.overflow.get_or_insert_with(|| overflow(schema)))
        } else {
            let series = previous
                .as_ref()
                .and_then(|previous| previous.find(name, schema, &key))
                .unwrap_or_else(|| Arc::new(Series::new(key.clone(), labels, schema.cell())));
            *weight += schema.weight();
            family.series.insert(key, Arc::clone(&series));
            series
        };
        Handle { table: Arc::clone(self), family: Arc::clone(&family.name), series }
    }

    fn find(&self, name: &str, schema: &Schema, key: &str) -> Option<Arc<Series>> {
        let inner = self.lock();
        let family = inner.families.get(name).filter(|family| family.schema == *schema)?;
        family.series.get(key).map(Arc::clone)
    }

    /// Puts a series back that had expired, or gives the overflow series where there is no room.
    pub fn revive(&self, family: &str, series: &Arc<Series>) -> Arc<Series> {
        let mut inner = self.lock();
        let Inner { families, weight, .. } = &mut *inner;
        let Some(family) = families.get_mut(family) else {
            return Arc::clone(series);
        };
        if let Some(newer) = family.series.get(&series.key) {
            // It was made again in the meantime, or revived by a write at the same moment.
            if !Arc::ptr_eq(newer, series) {
                return Arc::clone(newer);
            }
        } else if *weight + family.schema.weight() > self.max_series {
            let schema = &family.schema;
            return Arc::clone(family.overflow.get_or_insert_with(|| overflow(schema)));
        } else {
            *weight += family.schema.weight();
            family.series.insert(series.key.clone(), Arc::clone(series));
        }
        series.revive();
        Arc::clone(series)
    }

    /// Takes over what the previous generation counted. It must not be running any more.
    pub fn inherit(&self, previous: &Self) {
        let mut mine = self.lock();
        let theirs = previous.lock();
        mine.previous = None;
        let Inner { families, weight, .. } = &mut *mine;
        for (name, old) in &theirs.families {
            let Some(family) = families.get_mut(name) else {
                *weight += old.schema.weight() * old.series.len();
                families.insert(Arc::clone(name), old.inherit());
                continue;
            };
            if family.schema != old.schema {
                continue;
            }
            for (key, series) in &old.series {
                let mut is_new = false;
                let kept = family.series.entry(key.clone()).or_insert_with(|| {
                    is_new = true;
                    Arc::clone(series)
                });
                if is_new {
                    *weight += old.schema.weight();
                } else if !Arc::ptr_eq(kept, series) {
                    kept.absorb(series);
                }
            }
            match (&family.overflow, &old.overflow) {
                (Some(mine), Some(theirs)) => mine.absorb(theirs),
                (mine, theirs) => {
                    family.overflow = mine.as_ref().or(theirs.as_ref()).map(Arc::clone);
                }
            }
        }
    }

    /// Takes out series that nobody wrote to for long. One without labels stays while the policy
    /// uses its name: there is only one, and to see it at its value is to know that nothing happened.
    pub fn sweep(&self) {
        let mut inner = self.lock();
        let Inner { families, weight, .. } = &mut *inner;
        families.retain(|_, family| {
            let Family { schema, series, overflow, inherited, .. } = family;
            series.retain(|_, series| {
                let kept = (series.labels.is_empty() && !*inherited) || !series.sweep();
                if !kept {
                    *weight -= schema.weight();
                }
                kept
            });
            if *inherited {
                overflow.take_if(|series| series.sweep());
            }
            !*inherited || !series.is_empty() || overflow.is_some()
        });
    }

    /// Adds what this table holds to `families`.
    pub fn snapshot(&self, families: &mut BTreeMap<String, FamilySnapshot>) {
        for family in self.lock().families.values() {
            let Schema { kind, unit, labels: _, bounds: _ } = &family.schema;
            let into = families.entry(family.name.to_string()).or_insert_with(|| FamilySnapshot {
                name: family.name.to_string(),
                kind: *kind,
                unit: unit.clone(),
                help: family.help.clone(),
                series: Vec::new(),
            });
            if into.help.is_empty() {
                into.help.clone_from(&family.help);
            }
            let first = into.series.len();
            into.series.extend(family.all().map(|series| SeriesSnapshot {
                policy: self.policy.clone(),
                labels: series.labels.clone(),
                value: series.value(),
            }));
            into.series[first..].sort_by(|a, b| a.labels.cmp(&b.labels));
        }
    }
}

impl Family {
    fn inherit(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            schema: self.schema.clone(),
            help: self.help.clone(),
            series: self.series.clone(),
            overflow: self.overflow.clone(),
            inherited: true,
        }
    }
}

fn overflow(schema: &Schema) -> Arc<Series> {
    let labels = vec![(OVERFLOW.to_owned(), "true".to_owned())];
    Arc::new(Series::new(String::new(), labels, schema.cell()))
}

/// The values, one behind the other. No value holds the separator: control characters are escaped.
fn key(labels: &[Label]) -> String {
    labels.iter().flat_map(|(_, value)| [value, "\x1f"]).collect()
}
