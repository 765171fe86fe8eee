//! What the reader counts becomes metrics and log lines, some times a second and never per event.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;

use crate::{
    intake::Intake,
    kind::Kinds,
    outcome::{AgentMetrics, CauseLabels, KindLabels, LossLabels},
    queue::Cause,
    source::Lost,
};

/// Losses are logged this often at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    metrics: Arc<AgentMetrics>,
    kinds: Kinds,
    lost: BTreeMap<(u16, Cause), u64>,
    told: Option<Instant>,
}

impl Publisher {
    pub(super) fn new(metrics: Arc<AgentMetrics>, kinds: Kinds) -> Self {
        Self { metrics, kinds, lost: BTreeMap::new(), told: None }
    }

    /// Brings the counters up to date.
    pub(super) fn publish(&mut self, intake: &mut Intake) {
        for kind in self.kinds.iter() {
            let total = intake.events(kind.id);
            if total > 0 {
                let labels = KindLabels { kind: kind.name.to_string() };
                raise(&self.metrics.events.get_or_create_owned(&labels), total);
            }
        }
        for (field, reason, total) in intake.tables().misses().iter() {
            if total > 0 {
                let labels = CauseLabels { cause: format!("{field}: {reason}") };
                raise(&self.metrics.enrichment_misses.get_or_create_owned(&labels), total);
            }
        }
        raise(&self.metrics.records_malformed, intake.malformed());
        raise(&self.metrics.rows_late, intake.late());
        let processes = &intake.tables().processes;
        self.metrics.processes.set(i64::try_from(processes.len()).unwrap_or(i64::MAX));
        raise(&self.metrics.processes_evicted, processes.evicted());
        if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            self.tell_losses();
        }
    }

    /// Counts a loss; it is logged with the next ones.
    pub(super) fn count_loss(&mut self, lost: &Lost) {
        *self.lost.entry((lost.kind, lost.cause)).or_default() += lost.count;
        let labels = LossLabels { kind: self.name(lost.kind), cause: name(lost.cause).to_owned() };
        self.metrics.events_lost.get_or_create_owned(&labels).inc_by(lost.count);
    }

    /// Logs what was lost since the last time.
    pub(super) fn tell_losses(&mut self) {
        if self.lost.is_empty() {
            return;
        }
        for ((kind, cause), count) in std::mem::take(&mut self.lost) {
            tracing::warn!(kind = self.name(kind), cause = name(cause), count, "events were lost");
        }
        self.told = Some(Instant::now());
    }

    fn name(&self, kind: u16) -> String {
        self.kinds.get(kind).map_or_else(|| kind.to_string(), |kind| kind.name.to_string())
    }
}

/// Raises a counter to a total.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn name(cause: Cause) -> &'static str {
    Cause::ALL.iter().find(|(other, _)| *other == cause).map_or("", |(_, name)| name)
}
