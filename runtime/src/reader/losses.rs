//! Counters of lost events become losses in a span of time.

use crate::{queue::Cause, source::Lost};

/// The totals that were read last. Few kinds lose events, so a list will do.
#[derive(Debug, Default)]
pub(super) struct Totals {
    totals: Vec<(u16, Cause, u64)>,
    read_ns: u64,
}

impl Totals {
    /// What was lost since the previous reading.
    pub(super) fn difference(
        &mut self,
        kind: u16,
        cause: Cause,
        total: u64,
        now: u64,
    ) -> Option<Lost> {
        let known = self.totals.iter_mut().find(|(k, c, _)| (*k, *c) == (kind, cause));
        let before = if let Some((.., known)) = known {
            std::mem::replace(known, total)
        } else {
            self.totals.push((kind, cause, total));
            0
        };
        let count = total.saturating_sub(before);
        (count > 0).then_some(Lost {
            kind,
            count,
            first_ns: self.read_ns.min(now),
            last_ns: now,
            cause,
        })
    }

    /// Notes when all totals were read.
    pub(super) fn read_at(&mut self, now: u64) {
        self.read_ns = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_lies_between_two_readings() {
        let mut totals = Totals::default();
        totals.read_at(100);
        let lost = |count, first_ns, last_ns| {
            Some(Lost { kind: 2, count, first_ns, last_ns, cause: Cause::RingFull })
        };
        assert_eq!(totals.difference(2, Cause::RingFull, 5, 200), lost(5, 100, 200));
        totals.read_at(200);
        assert_eq!(totals.difference(2, Cause::RingFull, 5, 300), None);
        totals.read_at(300);
        assert_eq!(totals.difference(2, Cause::RingFull, 7, 400), lost(2, 300, 400));
        assert_eq!(totals.difference(2, Cause::MapFull, 1, 400).map(|lost| lost.count), Some(1));
    }
}
