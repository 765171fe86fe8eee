//! What several tests need: policies built from source, rows made by hand, and a place for output.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod guest;
pub mod language;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use tipstaff_runtime::{
    outcome::{AgentMetrics, Alert, Alerts, Metrics, Value},
    policy::{Compiler, Configured, Limits, LoadError, Loaded, Outcome, Pool, Running, Workshop},
    queue::Batch,
};

/// How long anything may take before a test fails. Generous: the machine may be busy, or a VM.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The file of a policy of this workspace, shipped or of the tests, built from what is there now.
pub fn build(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        for which in [&[][..], &["tests"]] {
            let script = root().join("tools/build-policies.sh");
            let status = Command::new(script).args(which).status().unwrap();
            assert!(status.success(), "the policies do not build");
        }
    });
    let built = root().join("target/policies");
    let shipped = built.join(format!("{name}.wasm"));
    if shipped.exists() { shipped } else { built.join(format!("tests/{name}.wasm")) }
}

/// A place to run policies in.
pub struct Court {
    pub compiler: Compiler,
    pub pool: Pool,
    pub outcome: Outcome,
    pub alerts: Receiver<Alert>,
    _cache: tempfile::TempDir,
}

impl Court {
    /// With two workers.
    pub fn new() -> Self {
        Self::with_workers(2)
    }

    /// With so many.
    pub fn with_workers(workers: usize) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let counts = Arc::new(AgentMetrics::default());
        let (alerts, from_policies) = Alerts::new(1000, Arc::clone(&counts));
        let outcome = Outcome::new(Metrics::new(Duration::from_mins(10)), alerts, counts);
        Self {
            compiler: Compiler::new(cache.path(), Workshop::Here).unwrap(),
            pool: Pool::new(workers, outcome.clone()).unwrap(),
            outcome,
            alerts: from_policies,
            _cache: cache,
        }
    }

    /// Loads the fixture.
    pub fn load_fixture(&self) -> Loaded {
        self.compiler.load(&build("fixture")).unwrap()
    }

    /// Runs the fixture with these settings.
    pub fn run(&self, settings: &str, limits: &Limits) -> Running {
        self.pool.start(self.configure(&self.load_fixture(), settings, limits).unwrap()).unwrap()
    }

    /// Gives a policy settings, written as the operator does.
    pub fn configure(
        &self,
        loaded: &Loaded,
        settings: &str,
        limits: &Limits,
    ) -> Result<Configured, LoadError> {
        let settings = loaded.manifest.settings(&settings.parse().unwrap()).unwrap();
        loaded.configure(settings, limits, &self.outcome)
    }

    /// Value of a counter, or number of values of a histogram.
    pub fn count(&self, name: &str, label: Option<(&str, &str)>) -> u64 {
        let families = self.outcome.metrics.families();
        let Some(family) = families.iter().find(|family| family.name == name) else { return 0 };
        let series = family.series.iter().filter(|series| {
            label.is_none_or(|(name, value)| {
                series.labels.iter().any(|label| label.0 == name && label.1 == value)
            })
        });
        series
            .map(|series| match &series.value {
                Value::Counter(count) => *count,
                Value::Gauge(_) => 0,
                Value::Histogram { buckets, .. } => buckets.iter().map(|bucket| bucket.1).sum(),
            })
            .sum()
    }
}

/// Waits until it is so, within patience.
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, is_so);
}

/// The same for as long as that.
pub fn eventually_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A row of the fixture's `exec`.
pub fn exec_row(bytes: &mut Vec<u8>, time: u64, path: &str, uid: Option<u32>, args: &str) {
    let start = bytes.len();
    bytes.extend_from_slice(&time.to_le_bytes());
    bytes.extend_from_slice(&u32::from(uid.is_none()).to_le_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    let mut texts = String::new();
    for (before, text) in [(None, path), (Some(uid.unwrap_or_default()), args)] {
        if let Some(uid) = before {
            bytes.extend_from_slice(&uid.to_le_bytes());
        }
        bytes.extend_from_slice(&u32::try_from(start + 40 + texts.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        texts.push_str(text);
    }
    bytes.resize(start + 40, 0);
    bytes.extend_from_slice(texts.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let words = u16::try_from((bytes.len() - start) / 8).unwrap();
    bytes[start + 12..start + 14].copy_from_slice(&words.to_le_bytes());
}

/// A batch of such rows, one nanosecond apart.
pub fn batch(first: u64, paths: &[&str]) -> Arc<Batch> {
    let mut bytes = Vec::new();
    for (time, path) in (first..).zip(paths) {
        exec_row(&mut bytes, time, path, Some(7), "a\0bc\0");
    }
    let events = paths.len() as u64;
    Arc::new(Batch {
        bytes: bytes.into(),
        events: vec![events],
        first_ns: first,
        last_ns: first + events - 1,
    })
}
