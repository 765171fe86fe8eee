//! Records that this process makes itself.

use std::mem::offset_of;

use tipstaff_events::wire::{Header, Text};

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

    /// Appends the bytes of a text whose place is at `offset`.
    pub(crate) fn push(&mut self, offset: usize, bytes: impl IntoIterator<Item = u8>) {
        let begin = self.records.bytes.len();
        self.records.bytes.extend(bytes);
        let length = self.records.bytes.len() - begin;
        let small = |value| u16::try_from(value).expect("records that are made here are short");
        let text = Text::new(small(begin - self.start), small(length), false);
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
