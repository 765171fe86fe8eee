//! Reading a record: bytes that a probe wrote, never trusted to be whole.

use tipstaff_events::{
    Type,
    catalogue::{TcpClose, tcp_close},
    sample::Sample,
    wire::{Header, Text},
};

use crate::kind::Repr;

/// A record that is shorter than its kind says, or that points outside of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is shorter than its kind says, or points outside of itself")]
pub struct Malformed;

/// What enriched fields are looked up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject {
    /// Time of the event.
    pub time: u64,
    /// The event's process.
    pub pid: u32,
    /// Its start since boot, where the event may come after its end; 0: it has its pid at that time.
    pub start: u64,
    /// Its real user.
    pub uid: u32,
    /// Its cgroup in the v2 hierarchy.
    pub cgroup: u64,
    /// Its cgroup in the v1 memory hierarchy; 0 where there is none.
    pub cgroup_v1: u64,
    /// By how much the kernel has thinned its kind.
    pub sample: Sample,
}

/// A text in a record, and whether the kernel's value was longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether the kernel's value was longer.
    pub cut: bool,
}

/// Reads `N` bytes at `at`.
#[inline]
pub fn bytes_at<const N: usize>(record: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    record.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Malformed)
}

/// Number of the record's kind.
#[inline]
pub fn kind(record: &[u8]) -> Result<u16, Malformed> {
    bytes_at(record, std::mem::offset_of!(Header, kind)).map(u16::from_ne_bytes)
}

/// Time of the event.
#[inline]
pub fn time(record: &[u8]) -> Result<u64, Malformed> {
    bytes_at(record, std::mem::offset_of!(Header, time)).map(u64::from_ne_bytes)
}

/// The bits of own fields that have no value in this record.
#[inline]
pub fn absent(record: &[u8]) -> Result<u32, Malformed> {
    bytes_at(record, std::mem::offset_of!(Header, absent)).map(u32::from_ne_bytes)
}

/// By how much the kernel has thinned the kind of the record.
#[inline]
pub fn sample(record: &[u8]) -> Result<Sample, Malformed> {
    let number = bytes_at(record, std::mem::offset_of!(Header, sample)).map(u16::from_ne_bytes)?;
    Ok(Sample::from_number(number))
}

/// The event's process.
#[inline]
pub fn pid(record: &[u8]) -> Result<u32, Malformed> {
    bytes_at(record, std::mem::offset_of!(Header, pid)).map(u32::from_ne_bytes)
}

/// What enriched fields are looked up by.
pub fn subject(record: &[u8]) -> Result<Subject, Malformed> {
    use std::mem::offset_of;
    Ok(Subject {
        time: time(record)?,
        pid: pid(record)?,
        start: match kind(record)? {
            tcp_close::KIND => {
                bytes_at(record, offset_of!(TcpClose, start)).map(u64::from_ne_bytes)?
            }
            _ => 0,
        },
        uid: bytes_at(record, offset_of!(Header, uid)).map(u32::from_ne_bytes)?,
        cgroup: bytes_at(record, offset_of!(Header, cgroup)).map(u64::from_ne_bytes)?,
        cgroup_v1: bytes_at(record, offset_of!(Header, cgroup_v1)).map(u64::from_ne_bytes)?,
        sample: sample(record)?,
    })
}

/// An integer of 1, 2, 4 or 8 bytes, widened; a negative one in two's complement.
#[inline]
pub fn number(record: &[u8], at: usize, size: u8, signed: bool) -> Result<u64, Malformed> {
    Ok(match (size, signed) {
        (1, false) => u64::from(bytes_at::<1>(record, at)?[0]),
        (2, false) => u64::from(u16::from_ne_bytes(bytes_at(record, at)?)),
        (4, false) => u64::from(u32::from_ne_bytes(bytes_at(record, at)?)),
        (1, true) => i64::from(i8::from_ne_bytes(bytes_at(record, at)?)).cast_unsigned(),
        (2, true) => i64::from(i16::from_ne_bytes(bytes_at(record, at)?)).cast_unsigned(),
        (4, true) => i64::from(i32::from_ne_bytes(bytes_at(record, at)?)).cast_unsigned(),
        _ => u64::from_ne_bytes(bytes_at(record, at)?),
    })
}

/// The bytes of a text, a list, or anything else whose class is text. `None`: the record has no
/// value.
#[inline]
pub fn span(record: &[u8], at: usize, repr: Repr) -> Result<Option<Span<'_>>, Malformed> {
    match repr {
        Repr::Wire(Type::Text | Type::List | Type::Histogram) => {
            let raw: [u8; 4] = bytes_at(record, at)?;
            let text = Text {
                offset: u16::from_ne_bytes([raw[0], raw[1]]),
                length: u16::from_ne_bytes([raw[2], raw[3]]),
            };
            if text.offset == 0 {
                // The header is there: nothing was collected.
                return if text.is_empty() { Ok(None) } else { Err(Malformed) };
            }
            let start = usize::from(text.offset);
            let bytes = record.get(start..start + usize::from(text.len())).ok_or(Malformed)?;
            Ok(Some(Span { bytes, cut: text.is_cut() }))
        }
        Repr::Wire(Type::Comm) => comm(record, at).map(Some),
        Repr::Chars(size) => until_nul(record, at, usize::from(size), false).map(Some),
        Repr::DataLoc { base, relative } => {
            let raw = u32::from_ne_bytes(bytes_at(record, at)?);
            if raw == 0 {
                // The field itself is there: it could not be read.
                return Ok(None);
            }
            let (offset, length) = halves(raw);
            // The flag of a text that was cut is in its length.
            let text = Text { offset, length };
            let from = if relative { at + 4 } else { usize::from(base) };
            let (start, length) = (from + usize::from(text.offset), usize::from(text.len()));
            until_nul(record, start, length, text.is_cut()).map(Some)
        }
        Repr::Wire(_) | Repr::Int { .. } => Err(Malformed),
    }
}

/// The bytes before the first NUL of 16, all at once.
#[inline]
fn comm(record: &[u8], at: usize) -> Result<Span<'_>, Malformed> {
    const ONES: u128 = u128::MAX / 0xff;
    let array: &[u8; 16] = record.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
    let bytes = u128::from_le_bytes(*array);
    // The highest bit of each zero byte, and perhaps of bytes above the first zero one.
    let zeros = bytes.wrapping_sub(ONES) & !bytes & (ONES << 7);
    let length = (zeros.trailing_zeros() / 8) as usize;
    Ok(Span { bytes: &array[..length], cut: false })
}

/// Offset and length in a `__data_loc` field, 16 bits each.
#[inline]
fn halves(raw: u32) -> (u16, u16) {
    let [a, b, c, d] = raw.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// The bytes before the first NUL of an array. A string that ends in what is there is whole, also
/// where the array was `cut`.
#[inline]
fn until_nul(record: &[u8], at: usize, size: usize, cut: bool) -> Result<Span<'_>, Malformed> {
    let array = record.get(at..at + size).ok_or(Malformed)?;
    Ok(match memchr::memchr(0, array) {
        Some(length) => Span { bytes: &array[..length], cut: false },
        None => Span { bytes: array, cut },
    })
}

/// Name of a value that stands for one.
#[inline]
pub fn name(names: &'static [&'static str], value: u64) -> Result<&'static str, Malformed> {
    usize::try_from(value).ok().and_then(|index| names.get(index)).copied().ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_with_text(offset: u16, length: u16) -> Vec<u8> {
        let mut record = vec![0; 64];
        record.extend(offset.to_ne_bytes());
        record.extend(length.to_ne_bytes());
        record.extend(b"\0\0\0\0/bin/true");
        record
    }

    #[test]
    fn a_text_points_behind_the_fixed_part() {
        let text = Repr::Wire(Type::Text);
        let record = record_with_text(72, 9);
        assert_eq!(span(&record, 64, text), Ok(Some(Span { bytes: b"/bin/true", cut: false })));
        let record = record_with_text(72, 4 | Text::CUT);
        assert_eq!(span(&record, 64, text), Ok(Some(Span { bytes: b"/bin", cut: true })));
    }

    #[test]
    fn a_text_that_was_not_collected_has_no_value() {
        assert_eq!(span(&record_with_text(0, 0), 64, Repr::Wire(Type::Text)), Ok(None));
    }

    #[test]
    fn a_text_outside_of_the_record_is_malformed() {
        for (offset, length) in [(72, 10), (82, 1), (65535, 32767), (0, 5)] {
            let record = record_with_text(offset, length);
            assert_eq!(
                span(&record, 64, Repr::Wire(Type::Text)),
                Err(Malformed),
                "{offset}+{length}"
            );
        }
    }

    #[test]
    fn a_command_name_ends_at_its_first_nul_or_is_full() {
        for name in ["", "a", "sh\x01\u{80}", "fifteen-letters", "sixteen-letters-"] {
            let mut record = [0; 20];
            record[2..2 + name.len()].copy_from_slice(name.as_bytes());
            if name.len() < 14 {
                record[2 + name.len() + 1..18].fill(1);
            }
            let found = span(&record, 2, Repr::Wire(Type::Comm)).unwrap().unwrap();
            assert_eq!(found.bytes, name.as_bytes());
        }
    }

    #[test]
    fn a_data_loc_counts_from_the_tracepoint_or_from_itself() {
        let mut record = vec![0; 72];
        record.extend(b"eth0\0");
        record[64..68].copy_from_slice(&(5 << 16 | 8u32).to_ne_bytes());
        let absolute = Repr::DataLoc { base: 64, relative: false };
        assert_eq!(span(&record, 64, absolute).unwrap().unwrap().bytes, b"eth0");
        record[64..68].copy_from_slice(&(5 << 16 | 4u32).to_ne_bytes());
        let relative = Repr::DataLoc { base: 64, relative: true };
        assert_eq!(span(&record, 64, relative).unwrap().unwrap().bytes, b"eth0");
    }

    #[test]
    fn a_data_loc_that_was_cut_says_so_and_one_that_was_not_read_has_no_value() {
        let location = Repr::DataLoc { base: 64, relative: false };
        let place = |length: u16| u32::from(length | Text::CUT) << 16 | 8;
        let mut record = vec![0; 72];
        record.extend(b"eth0\0");
        assert_eq!(span(&record, 64, location), Ok(None));
        record[64..68].copy_from_slice(&place(3).to_ne_bytes());
        assert_eq!(span(&record, 64, location), Ok(Some(Span { bytes: b"eth", cut: true })));
        record[64..68].copy_from_slice(&place(5).to_ne_bytes());
        assert_eq!(span(&record, 64, location), Ok(Some(Span { bytes: b"eth0", cut: false })));
        record[64..68].copy_from_slice(&place(0).to_ne_bytes());
        assert_eq!(span(&record, 64, location), Ok(Some(Span { bytes: b"", cut: true })));
        record[64..68].copy_from_slice(&place(6).to_ne_bytes());
        assert_eq!(span(&record, 64, location), Err(Malformed));
    }

    #[test]
    fn signed_numbers_are_widened_with_their_sign() {
        let record = [0xfe, 0xff, 0xff, 0xff];
        assert_eq!(number(&record, 0, 4, true), Ok((-2i64).cast_unsigned()));
        assert_eq!(number(&record, 0, 4, false), Ok(0xffff_fffe));
        assert_eq!(number(&record, 2, 4, false), Err(Malformed));
    }
}
