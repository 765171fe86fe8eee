//! Making records from values: what a probe does in the kernel, for events from a file.

use std::mem::offset_of;

use tipstaff_events::{
    Type,
    wire::{Header, Text},
};

use crate::{
    kind::{Field, From, Kind, Repr},
    record,
};

/// A value that does not fit its field, or a record that would be too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A number outside of the field's range.
    #[error("the number does not fit the field")]
    Number,
    /// More bytes than the field, or the record, can hold.
    #[error("the text is too long: a record holds 64 KiB in all, a text 32 KiB less one byte")]
    Length,
    /// Another type than the field's.
    #[error("the value has another type than the field")]
    Type,
}

/// A record in the making.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    absent: u32,
}

impl Encoder {
    /// A record of this kind in which no own field has a value.
    #[must_use]
    pub fn new(kind: &Kind) -> Self {
        let mut bytes = vec![0; usize::from(kind.size).max(size_of::<Header>())];
        bytes[offset_of!(Header, kind)..][..2].copy_from_slice(&kind.id.to_ne_bytes());
        Self { bytes, absent: kind.fields.iter().fold(0, |all, field| all | field.absent) }
    }

    /// Sets a number, or the index of a name.
    pub fn number(&mut self, field: &Field, value: i128) -> Result<(), Unfit> {
        let From::Record { offset, repr } = field.from else { return Err(Unfit::Type) };
        let (size, signed) = match repr {
            Repr::Wire(Type::U8 | Type::Name(_)) => (1, false),
            Repr::Wire(Type::U16) => (2, false),
            Repr::Wire(Type::U32) => (4, false),
            Repr::Wire(Type::U64) => (8, false),
            Repr::Wire(Type::I32) => (4, true),
            Repr::Wire(Type::I64) => (8, true),
            Repr::Int { size, signed } => (usize::from(size), signed),
            _ => return Err(Unfit::Type),
        };
        let bits = size * 8;
        let fits = if signed {
            (-(1i128 << (bits - 1))..1i128 << (bits - 1)).contains(&value)
        } else {
            (0..1i128 << bits).contains(&value)
        };
        if !fits {
            return Err(Unfit::Number);
        }
        let all = value.to_ne_bytes();
        let low = if cfg!(target_endian = "little") { &all[..size] } else { &all[16 - size..] };
        self.put(usize::from(offset), low);
        self.present(field);
        Ok(())
    }

    /// Sets an address.
    pub fn address(&mut self, field: &Field, value: [u8; 16]) -> Result<(), Unfit> {
        let From::Record { offset, repr: Repr::Wire(Type::Address) } = field.from else {
            return Err(Unfit::Type);
        };
        self.put(usize::from(offset), &value);
        self.present(field);
        Ok(())
    }

    /// Sets a text, or a list whose entries each end with a NUL.
    pub fn bytes(&mut self, field: &Field, value: &[u8], cut: bool) -> Result<(), Unfit> {
        let From::Record { offset, repr } = field.from else { return Err(Unfit::Type) };
        let at = usize::from(offset);
        match repr {
            Repr::Wire(Type::Text | Type::List | Type::Histogram) => {
                let start = self.append(value)?;
                let text = Text::new(start, text_length(value)?, cut);
                self.put(at, &text.offset.to_ne_bytes());
                self.put(at + 2, &text.length.to_ne_bytes());
            }
            Repr::Wire(Type::Comm) => self.put_chars(at, 16, value)?,
            Repr::Chars(size) => self.put_chars(at, usize::from(size), value)?,
            Repr::DataLoc { base, relative } => {
                let start = usize::from(self.append(value)?);
                let from = if relative { at + 4 } else { usize::from(base) };
                let offset = u32::try_from(start - from).map_err(|_| Unfit::Length)?;
                let text = Text::new(0, text_length(value)?, cut);
                self.put(at, &(u32::from(text.length) << 16 | offset).to_ne_bytes());
            }
            Repr::Wire(_) | Repr::Int { .. } => return Err(Unfit::Type),
        }
        self.present(field);
        Ok(())
    }

    /// The record.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let absent = self.absent.to_ne_bytes();
        self.put(offset_of!(Header, absent), &absent);
        debug_assert!(record::kind(&self.bytes).is_ok());
        self.bytes
    }

    fn present(&mut self, field: &Field) {
        self.absent &= !field.absent;
    }

    fn append(&mut self, value: &[u8]) -> Result<u16, Unfit> {
        let start = u16::try_from(self.bytes.len()).map_err(|_| Unfit::Length)?;
        self.bytes.extend_from_slice(value);
        if self.bytes.len() > usize::from(u16::MAX) + 1 { Err(Unfit::Length) } else { Ok(start) }
    }

    fn put_chars(&mut self, at: usize, size: usize, value: &[u8]) -> Result<(), Unfit> {
        if value.len() > size {
            return Err(Unfit::Length);
        }
        self.put(at, value);
        Ok(())
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }
}

/// The length of a text, which must leave the flag free.
fn text_length(value: &[u8]) -> Result<u16, Unfit> {
    u16::try_from(value.len()).ok().filter(|length| length & Text::CUT == 0).ok_or(Unfit::Length)
}
