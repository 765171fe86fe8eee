//! Records that this process makes itself.

use std::mem::offset_of;

use tipstaff_events::wire::{Header, MAX_TEXT, Text};

/// Bytes of a header.
pub(crate) const HEADER: usize = size_of::<Header>();

/// Records of one kind, one behind the other. Their time is set when they are handed out.
pub(crate) struct Records {
    kind: u16,
    bytes: Vec<u8>,
    /// Where each one ends.
    ends: Vec<usize>,
}

impl Records {
    pub(crate) fn new(kind: u16) -> Self {
        Self { kind, bytes: Vec::new(), ends: Vec::new() }
    }

    /// The kind of all.
    pub(crate) fn kind(&self) -> u16 {
        self.kind
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Begins a record of this size with this header.
    pub(crate) fn begin(&mut self, header: &[u8; HEADER], size: usize) -> Record<'_> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(header);
        self.bytes.resize(start + size, 0);
        let mut record = Record { records: self, start };
        let kind = record.records.kind;
        record.set(offset_of!(Header, kind), &kind.to_ne_bytes());
        record.set(offset_of!(Header, absent), &[0; 4]);
        record
    }

    /// Hands out every record, with this time.
    pub(crate) fn each(&mut self, time: u64, mut each: impl FnMut(&[u8])) {
        let mut start = 0;
        for &end in &self.ends {
            let record = &mut self.bytes[start..end];
            record[offset_of!(Header, time)..][..8].copy_from_slice(&time.to_ne_bytes());
            each(record);
            start = end;
        }
    }
}

/// A record in the making, kept when it is dropped.
pub(crate) struct Record<'a> {
    records: &'a mut Records,
    start: usize,
}

impl Record<'_> {
    /// Sets bytes of the fixed part.
    pub(crate) fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.records.bytes[self.start + offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Says that these fields have no value.
    pub(crate) fn set_absent(&mut self, fields: u32) {
        self.set(offset_of!(Header, absent), &fields.to_ne_bytes());
    }

    /// Appends the bytes of a text whose place is at `offset`: as many as the kernel's programs would, the
    /// rest is cut. Where the record has no room left there are none.
    pub(crate) fn push(&mut self, offset: usize, bytes: impl IntoIterator<Item = u8>) {
        let begin = self.records.bytes.len();
        let mut bytes = bytes.into_iter();
        self.records.bytes.extend(bytes.by_ref().take(MAX_TEXT));
        let is_cut = bytes.next().is_some();
        let length = self.records.bytes.len() - begin;
        let small = |value| u16::try_from(value).ok();
        let text = if let (Some(place), Some(length)) = (small(begin - self.start), small(length)) {
            Text::new(place, length, is_cut)
        } else {
            self.records.bytes.truncate(begin);
            Text::new(0, 0, true)
        };
        self.set(offset, &text.offset.to_ne_bytes());
        self.set(offset + 2, &text.length.to_ne_bytes());
    }

    /// Appends the numbers of a histogram.
    pub(crate) fn push_histogram(&mut self, offset: usize, buckets: &[u64]) {
        self.push(offset, buckets.iter().flat_map(|bucket| bucket.to_le_bytes()));
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.records.ends.push(self.records.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text whose place is at the end of the header.
    fn text(record: &[u8]) -> (Text, &[u8]) {
        let number =
            |at: usize| u16::from_ne_bytes(*record[HEADER + at..].first_chunk::<2>().unwrap());
        let text = Text { offset: number(0), length: number(2) };
        (text, &record[text.offset.into()..][..text.len().into()])
    }

    #[test]
    fn what_is_longer_than_a_text_of_the_kernel_is_cut() {
        let mut records = Records::new(1);
        for length in [0, 1, MAX_TEXT, MAX_TEXT + 1, 0x8000, 0x1_0000, 200_000] {
            let mut record = records.begin(&[0; HEADER], HEADER + 4);
            record.push(HEADER, std::iter::repeat_n(b'x', length));
            drop(record);
            let mut found = Vec::new();
            records.each(0, |record| {
                let (text, bytes) = text(record);
                found.push((bytes.len(), text.is_cut()));
            });
            assert_eq!(found.pop(), Some((length.min(MAX_TEXT), length > MAX_TEXT)));
        }
    }

    #[test]
    fn a_record_without_room_for_a_text_says_that_it_was_cut() {
        let mut records = Records::new(1);
        let mut record = records.begin(&[0; HEADER], HEADER + 4);
        for _ in 0..20 {
            record.push(HEADER, [b'x'; MAX_TEXT]);
        }
        drop(record);
        records.each(0, |record| {
            let (text, _) = text(record);
            assert!(text.is_empty() && text.is_cut());
            assert!(record.len() < 0x1_0000 + MAX_TEXT, "{}", record.len());
        });
    }
}
