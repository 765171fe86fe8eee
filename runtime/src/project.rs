//! A record becomes a row.
//!
//! The row's template (header, constant absent bits, zeros) is appended to the batch, then 8-byte
//! moves fill it in place, neighbours merged; what they cannot do is left to a list of small
//! steps, and texts come last. This form was the fastest of seven that were measured: 5 to 7 ns
//! for six scalars, where a list of sized copies took 10 and a row made aside and copied 9.

use crate::{
    enrich::Lookup,
    kind::{Enriched, Repr},
    record::{self, Malformed, Span, Subject},
};

/// Flag of a row: a text was longer than what it holds.
pub const FLAG_CUT: u8 = 1;
/// Flag of a row: a number was too large for its type, which holds its greatest value.
pub const FLAG_CLIPPED: u8 = 2;
/// Flag of a row: it is older than one that was delivered before.
pub const FLAG_LATE: u8 = 4;
/// Flag of a row: bytes of a text that are not UTF-8 became U+FFFD.
pub const FLAG_REPLACED: u8 = 8;
/// Flag of a row: it is not an event but a gap.
pub const FLAG_GAP: u8 = 0x80;

/// Size of what every row begins with.
pub const ROW_HEADER: usize = 16;
/// Offset of the mask of optional fields without a value.
pub const ROW_ABSENT: usize = 8;
/// Offset of the row's length in words of 8 bytes.
pub const ROW_WORDS: usize = 12;
/// Offset of the index of the subscription.
pub const ROW_INDEX: usize = 14;
/// Offset of the flags.
pub const ROW_FLAGS: usize = 15;
/// Longest row: its length has 16 bits.
const MOST_ROW: usize = (u16::MAX as usize) * 8;

/// How the rows of one subscription are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Number of the kind.
    pub(crate) kind: u16,
    /// Least length of a record.
    pub(crate) record_size: usize,
    /// The fixed part of a row.
    pub(crate) template: Vec<u8>,
    pub(crate) moves: Vec<Move>,
    pub(crate) shorts: Vec<Short>,
    pub(crate) numbers: Vec<Number>,
    /// Bit of the record's `absent`, and the bit of the row's.
    pub(crate) absent: Vec<(u32, u32)>,
    /// All bits of the record's `absent` that matter.
    pub(crate) absent_mask: u32,
    pub(crate) looked_up: Vec<LookedUp>,
    pub(crate) texts: Vec<TextStep>,
    /// Whether rows are made by moves and copies alone.
    pub(crate) is_plain: bool,
    /// Whether anything is looked up.
    pub(crate) looks_up: bool,
    /// Where a mask of cut texts goes, for who decodes rows.
    pub(crate) cuts_at: Option<usize>,
}

/// 8 bytes of the record go to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub from: u16,
    pub to: u16,
}

/// 4, 2 or 1 bytes of the record go to the row: what is left beside 8-byte moves, and what is
/// widened by the zeros that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    pub from: u16,
    pub to: u16,
    pub size: u8,
}

/// A number that is widened with its sign, or narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub from: u16,
    pub to: u16,
    pub size: u8,
    pub signed: bool,
    pub store: Store,
}

/// How a number is stored in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Store {
    pub size: u8,
    pub signed: bool,
    /// Bit of the row's `absent`, for an optional field; 0 for a required one.
    pub absent: u32,
}

/// A number from a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LookedUp {
    pub field: Enriched,
    pub to: u16,
    pub store: Store,
}

/// A text, its bytes behind the fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextStep {
    pub from: TextFrom,
    pub to: u16,
    /// Whether invalid bytes are replaced.
    pub utf8: bool,
    /// Bit of the row's `absent`, for an optional field; 0 for a required one.
    pub absent: u32,
    /// Bit of the record's `absent`; 0 if it always has a value.
    pub missing: u32,
    /// Bit of the mask of cut texts.
    pub cut: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFrom {
    Record { at: u16, repr: Repr },
    Name { at: u16, names: &'static [&'static str] },
    Table(Enriched),
}

/// What the slow steps say about the row that they made.
#[derive(Default)]
struct Marks {
    absent: u32,
    flags: u8,
    cuts: u64,
}

impl Projection {
    /// Number of the kind that this is made for.
    #[must_use]
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// Size of a row without texts.
    #[must_use]
    pub fn fixed_size(&self) -> usize {
        self.template.len()
    }

    /// Where in a row the mask of cut texts is, if there is one: 8 bytes, bit n for the n-th column.
    #[must_use]
    pub fn cuts_at(&self) -> Option<usize> {
        self.cuts_at
    }

    /// Moves the texts of a row whose place in its batch has changed.
    pub fn shift_texts(&self, row: &mut [u8], from: u32, to: u32) {
        for step in &self.texts {
            let at = usize::from(step.to);
            let Some(place) = row.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) else {
                continue;
            };
            let offset = u32::from_le_bytes(*place);
            // An absent text points nowhere; others are behind their row's fixed part.
            if offset != 0 {
                *place = (offset.wrapping_sub(from).wrapping_add(to)).to_le_bytes();
            }
        }
    }

    /// Appends the row of this record, or nothing if the record is malformed.
    #[inline]
    pub fn append(
        &self,
        record: &[u8],
        lookup: &mut Lookup<'_>,
        rows: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        if record.len() < self.record_size {
            return Err(Malformed);
        }
        let start = rows.len();
        rows.extend_from_slice(&self.template);
        let row = &mut rows[start..];
        for step in &self.moves {
            let (from, to) = (usize::from(step.from), usize::from(step.to));
            row[to..to + 8].copy_from_slice(&record[from..from + 8]);
        }
        for step in &self.shorts {
            let (from, to) = (usize::from(step.from), usize::from(step.to));
            match step.size {
                4 => row[to..to + 4].copy_from_slice(&record[from..from + 4]),
                2 => row[to..to + 2].copy_from_slice(&record[from..from + 2]),
                _ => row[to] = record[from],
            }
        }
        let absent = record::absent(record)?;
        if absent & self.absent_mask == 0 && self.is_plain {
            return Ok(());
        }
        self.finish(record, absent, lookup, rows, start).inspect_err(|_| rows.truncate(start))
    }

    fn finish(
        &self,
        record: &[u8],
        absent: u32,
        lookup: &mut Lookup<'_>,
        rows: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), Malformed> {
        let mut marks = Marks::default();
        if absent & self.absent_mask != 0 {
            for &(_, bit) in self.absent.iter().filter(|(missing, _)| absent & missing != 0) {
                marks.absent |= bit;
            }
        }
        let row = &mut rows[start..];
        for step in &self.numbers {
            let value = record::number(record, usize::from(step.from), step.size, step.signed)?;
            step.store.put(value, row, usize::from(step.to), &mut marks);
        }
        if !(self.looked_up.is_empty() && self.texts.is_empty()) {
            let subject = if self.looks_up { record::subject(record)? } else { Subject::default() };
            for step in &self.looked_up {
                match lookup.number(step.field, &subject) {
                    Some(value) => step.store.put(value, row, usize::from(step.to), &mut marks),
                    None => marks.absent |= step.store.absent,
                }
            }
            for step in &self.texts {
                step.append(record, absent, &subject, lookup, rows, start, &mut marks)?;
            }
            let padding = rows.len().wrapping_neg() % 8;
            rows.extend_from_slice(&[0; 8][..padding]);
        }
        let words = u16::try_from((rows.len() - start) / 8).map_err(|_| Malformed)?;
        let row = &mut rows[start..];
        row[ROW_WORDS..ROW_WORDS + 2].copy_from_slice(&words.to_le_bytes());
        row[ROW_FLAGS] |= marks.flags;
        for (byte, bits) in row[ROW_ABSENT..].iter_mut().zip(marks.absent.to_le_bytes()) {
            *byte |= bits;
        }
        if marks.cuts != 0
            && let Some(at) = self.cuts_at
        {
            row[at..at + 8].copy_from_slice(&marks.cuts.to_le_bytes());
        }
        Ok(())
    }
}

impl Store {
    #[inline]
    fn put(self, value: u64, row: &mut [u8], at: usize, marks: &mut Marks) {
        let bits = u32::from(self.size) * 8;
        let (least, greatest) = if self.signed {
            ((i64::MIN >> (64 - bits)).cast_unsigned(), (i64::MAX >> (64 - bits)).cast_unsigned())
        } else {
            (0, u64::MAX >> (64 - bits))
        };
        let (below, above) = if self.signed {
            (
                value.cast_signed() < least.cast_signed(),
                value.cast_signed() > greatest.cast_signed(),
            )
        } else {
            (false, value > greatest)
        };
        let value = if below || above {
            if self.absent != 0 {
                marks.absent |= self.absent;
                return;
            }
            marks.flags |= FLAG_CLIPPED;
            if below { least } else { greatest }
        } else {
            value
        };
        let bytes = value.to_le_bytes();
        let size = usize::from(self.size);
        row[at..at + size].copy_from_slice(&bytes[..size]);
    }
}

impl TextStep {
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of a loop, apart so that it can be read"
    )]
    #[inline]
    fn append(
        &self,
        record: &[u8],
        absent: u32,
        subject: &Subject,
        lookup: &mut Lookup<'_>,
        rows: &mut Vec<u8>,
        start: usize,
        marks: &mut Marks,
    ) -> Result<(), Malformed> {
        let span = match self.from {
            _ if absent & self.missing != 0 => None,
            TextFrom::Record { at, repr } => record::span(record, usize::from(at), repr)?,
            TextFrom::Name { at, names } => {
                let [value] = record::bytes_at(record, usize::from(at))?;
                Some(Span { bytes: record::name(names, u64::from(value))?.as_bytes(), cut: false })
            }
            TextFrom::Table(field) => {
                lookup.text(field, subject).map(|bytes| Span { bytes, cut: false })
            }
        };
        let Some(mut span) = span else {
            marks.absent |= self.absent;
            return Ok(());
        };
        // Replacing a byte may make three of it.
        let room = MOST_ROW.saturating_sub(rows.len() - start + 8) / 3;
        if span.bytes.len() > room {
            span = Span { bytes: &span.bytes[..room], cut: true };
        }
        let offset = rows.len();
        if !self.utf8 {
            rows.extend_from_slice(span.bytes);
        } else if let Ok(text) = std::str::from_utf8(span.bytes) {
            rows.extend_from_slice(text.as_bytes());
        } else {
            marks.flags |= push_lossy(rows, span);
        }
        if span.cut {
            marks.flags |= FLAG_CUT;
            marks.cuts |= self.cut;
        }
        let place = usize::from(self.to) + start;
        let length = rows.len() - offset;
        for (at, value) in [(place, offset), (place + 4, length)] {
            let value = u32::try_from(value).map_err(|_| Malformed)?;
            rows[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }
}

/// Appends a text with U+FFFD for what is not UTF-8; a character that was cut in two is left out.
#[cold]
fn push_lossy(rows: &mut Vec<u8>, span: Span<'_>) -> u8 {
    let mut flags = 0;
    let mut chunks = span.bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        rows.extend_from_slice(chunk.valid().as_bytes());
        let invalid = chunk.invalid();
        let halved = span.cut
            && chunks.peek().is_none()
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if !invalid.is_empty() && !halved {
            rows.extend_from_slice("\u{fffd}".as_bytes());
            flags = FLAG_REPLACED;
        }
    }
    flags
}
