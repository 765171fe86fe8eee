//! Gaps as rows.

use crate::queue::Gap;

/// Length of the row of a gap, in bytes: header, u64 lost, u64 last ns, u32 cause, padding.
const ROW: usize = 40;
/// Flag of a row: not an event.
const NOT_AN_EVENT: u8 = 0x80;

/// A batch of nothing but gaps.
pub fn rows(gaps: &[Gap]) -> Vec<u8> {
    let mut rows = Vec::with_capacity(gaps.len() * ROW);
    for gap in gaps {
        rows.extend_from_slice(&gap.first_ns.to_le_bytes());
        rows.extend_from_slice(&0u32.to_le_bytes());
        rows.extend_from_slice(&[(ROW / 8).to_le_bytes()[0], 0, gap.subscription, NOT_AN_EVENT]);
        rows.extend_from_slice(&gap.lost.to_le_bytes());
        rows.extend_from_slice(&gap.last_ns.to_le_bytes());
        rows.extend_from_slice(&(gap.cause as u32).to_le_bytes());
        rows.extend_from_slice(&0u32.to_le_bytes());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Cause;

    #[test]
    fn a_gap_is_laid_out_as_the_contract_says() {
        let gap =
            Gap { subscription: 3, lost: 9, first_ns: 5, last_ns: 8, cause: Cause::QueueFull };
        let row = rows(&[gap, gap]);
        assert_eq!(row.len(), 80);
        assert_eq!(row[..16], [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 3, 0x80]);
        assert_eq!(
            row[16..40],
            [9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(row[..40], row[40..]);
    }
}
