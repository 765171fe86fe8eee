//! What an author writes, and how calls of the agent reach it.

use std::{cell::RefCell, thread::LocalKey};

use crate::{
    field::Column,
    log, metrics,
    row::{Fixed, Flags, Gap, Row, Rows},
};

/// A policy: its state, made from the operator's settings.
pub trait Policy: Sized + 'static {
    /// Makes an instance. `settings` are key and value as TOML; see
    /// [`Settings`](crate::Settings) for reading them.
    ///
    /// # Errors
    /// A message for the operator, who has to change a setting.
    fn configure(settings: &[(String, String)]) -> Result<Self, String>;

    /// Events were lost, and what was counted meanwhile is too low.
    fn lost(&mut self, gap: Gap) {
        let _ = gap;
    }
}

/// What a policy does upon an event.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is exported for `{E}` but does not say what to do upon one",
    label = "write `impl On<{E}> for {Self}`"
)]
pub trait On<E>: Policy {
    /// An event happened. `time_ns` is on the kernel's monotonic clock.
    fn on(&mut self, time_ns: u64, event: E);
}

/// A policy that is called at regular times: `tick = "1s"` in [`export!`](macro@crate::export).
pub trait OnTick: Policy {
    /// The time has come, also a last time when the agent stops. Nanoseconds on the kernel's
    /// monotonic clock.
    fn on_tick(&mut self, now_ns: u64);
}

/// A policy that hands its state to its successor; see [`export_hand_over!`](crate::export_hand_over).
pub trait HandOver: Policy {
    /// The state, in a form of the policy's own.
    fn save(&mut self) -> Vec<u8>;

    /// Takes the state of another generation, after `configure`.
    ///
    /// # Errors
    /// A message for the operator, upon which the new generation is not used.
    fn restore(&mut self, state: &[u8]) -> Result<(), String>;
}

/// An event as an author wants to see it. Made by `#[derive(Event)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "write `#[derive(Event)]` and `#[event(kind = \"...\")]` on it"
)]
pub trait Event<'a>: Sized {
    /// Name of its kind.
    const KIND: &'static str;
    /// Whether the policy runs without it.
    const OPTIONAL: bool;
    /// Which events of the kind, as a TOML string; `None`: all.
    const WHERE: Option<&'static str> = None;
    /// Time between two rows of the same keys, of an aggregated kind.
    const EVERY: Option<&'static str> = None;
    /// Whether its rows are delivered at once.
    const URGENT: bool = false;
    /// Of how many events or processes one is taken; `None`: all are.
    const SAMPLE: Option<&'static str> = None;
    /// Whether [`Self::SAMPLE`] counts processes and not events.
    const BY_PROCESS: bool = false;
    /// Its fields.
    const FIELDS: &'static [Column];
    /// Reads it from a row of its subscription, cut to the fixed part.
    fn read(row: Fixed<'a>, flags: Flags) -> Self;
}

/// Where the instance of an exported policy lives.
pub type Cell<P> = LocalKey<RefCell<Option<P>>>;

/// A policy for which [`export!`](macro@crate::export) was called.
pub trait Exported: Sized + 'static {
    /// Where its instance lives.
    fn cell() -> &'static Cell<Self>;
}

/// Calls `configure`.
///
/// # Errors
/// Those of `configure`.
pub fn configure<P: Policy>(
    cell: &'static Cell<P>,
    settings: &[(String, String)],
) -> Result<(), String> {
    // Without this the operator sees only "unreachable".
    std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
    let policy = P::configure(settings)?;
    cell.set(Some(policy));
    metrics::flush();
    Ok(())
}

/// Calls `act` with the instance, and tells the agent what it counted.
#[inline]
pub fn with<P, R>(cell: &'static Cell<P>, act: impl FnOnce(&mut P) -> R) -> R {
    let result =
        cell.with_borrow_mut(|policy| act(policy.as_mut().expect("configure is called first")));
    metrics::flush();
    result
}

/// Hands the rows of a batch to `event`, and gaps to the policy.
#[inline]
pub fn batch<P: Policy>(
    cell: &'static Cell<P>,
    rows: &[u8],
    kinds: &[&'static str],
    mut event: impl FnMut(&mut P, Row<'_>),
) {
    with(cell, |policy| {
        for row in Rows::new(rows) {
            if row.is_event() {
                event(policy, row);
            } else if let Some(gap) = row.gap(kinds) {
                policy.lost(gap);
            }
        }
    });
}
