//! What a policy may use.

use std::time::Duration;

/// Limits of one policy. Each is counted where it strikes, by its key in `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Processor time of one call. Wall time is limited to ten times this, for a machine that is
    /// so busy that the call does not run.
    pub cpu_per_call: Duration,
    /// Processor time of all calls, in percent of one core. A second's worth may be saved.
    pub cpu_percent: u32,
    /// Processor time until an instance is made, and again until it has taken its settings.
    pub start_up: Duration,
    /// All linear memories together, in bytes; at least 2 MiB.
    pub memory: usize,
    /// All tables together, in elements.
    pub table_elements: usize,
    /// Core instances, tables and memories that a component is made of, of each.
    pub parts: usize,
    /// Bytes that the guest may pass to the host in one call, strings and lists together. Without it
    /// a list of strings that overlap becomes gigabytes in the host.
    pub host_call: usize,
    /// Handles of metrics that the guest holds at once.
    pub handles: usize,
    /// Its file, in bytes.
    pub file: usize,
    /// What it subscribes to.
    pub subscriptions: usize,
    /// Rows of one batch, in bytes; never more than a quarter of `memory`.
    pub batch: usize,
    /// Rows that wait for the policy, in bytes.
    pub queue: usize,
    /// Series of metrics.
    pub series: usize,
    /// Alerts per minute.
    pub alerts_per_minute: u32,
    /// Alerts at once after a quiet time.
    pub alerts_burst: u32,
    /// Log lines per minute.
    pub log_lines_per_minute: u32,
    /// Log lines at once after a quiet time.
    pub log_lines_burst: u32,
    /// State that the host keeps, and state that is handed to another generation, in bytes of each.
    pub state: usize,
    /// Changes to the machine per minute.
    pub actions_per_minute: u32,
    /// Scopes in which it has a table of rules at once.
    pub tables: usize,
    /// Rules of one table.
    pub rules: usize,
    /// Text of one table, in bytes.
    pub table_text: usize,
}

/// Rust guests begin with 17 pages, so that less could not start.
pub const MIN_MEMORY: usize = 2 << 20;

/// Longest message of an alert, in bytes.
pub(super) const ALERT_MESSAGE: usize = 4096;
/// Most labels of an alert.
pub(super) const ALERT_LABELS: usize = 32;
/// Longest name or value of an alert's label, in bytes.
pub(super) const ALERT_LABEL: usize = 256;
/// Longest log line, in bytes.
pub(super) const LOG_LINE: usize = 4096;

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_per_call: Duration::from_millis(50),
            cpu_percent: 20,
            start_up: Duration::from_millis(500),
            memory: 64 << 20,
            table_elements: 100_000,
            // Python's have 20.
            parts: 100,
            host_call: 1 << 20,
            handles: 10_000,
            file: 64 << 20,
            subscriptions: 64,
            batch: 1 << 20,
            queue: 8 << 20,
            series: 1_000,
            alerts_per_minute: 600,
            alerts_burst: 100,
            log_lines_per_minute: 600,
            log_lines_burst: 100,
            state: 1 << 20,
            actions_per_minute: 60,
            tables: 16,
            rules: 10_000,
            table_text: 768 << 10,
        }
    }
}

impl Limits {
    /// Most bytes of rows in one call: the guest needs room for them.
    pub(super) fn batch(&self) -> usize {
        self.batch.min(self.memory / 4)
    }
}
