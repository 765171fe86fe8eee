//! What a policy may use.

use std::time::Duration;

/// Limits of one policy. Each is counted where it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Processor time of one call. Wall time is limited to ten times this, for a machine that is
    /// so busy that the call does not run.
    pub cpu_per_call: Duration,
    /// Processor time of all calls, in percent of one core. A second's worth may be saved.
    pub cpu_percent: u32,
    /// All linear memories together, in bytes; at least 2 MiB.
    pub memory: usize,
    /// All tables together, in elements.
    pub table_elements: usize,
    /// Series of metrics.
    pub series: usize,
    /// Handles of metrics that the guest holds at once.
    pub handles: usize,
    /// Alerts per minute.
    pub alerts_per_minute: u32,
    /// Alerts at once after a quiet time.
    pub alerts_burst: u32,
    /// Log lines per minute.
    pub log_lines_per_minute: u32,
    /// Log lines at once after a quiet time.
    pub log_lines_burst: u32,
    /// Rows that wait for the policy, in bytes.
    pub queue: usize,
    /// State that is handed to another generation, in bytes.
    pub state: usize,
}

/// Rust guests begin with 17 pages, so that less could not start.
pub const MIN_MEMORY: usize = 2 << 20;

/// Bytes that a guest may pass to the host in one call, strings and lists together. Without it a
/// list of strings that overlap becomes gigabytes in the host.
pub(super) const HOST_CALL_BYTES: usize = 1 << 20;

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
            memory: 64 << 20,
            table_elements: 100_000,
            series: 1_000,
            handles: 10_000,
            alerts_per_minute: 600,
            alerts_burst: 100,
            log_lines_per_minute: 600,
            log_lines_burst: 100,
            queue: 8 << 20,
            state: 1 << 20,
        }
    }
}
