//! Where each field goes in a row, and the steps that bring it there.

use std::mem::offset_of;

use tipstaff_events::{Role, wire::Header};

use crate::{
    kind::{Class, Enriched, Field, From, Kind},
    manifest::{Ask, AskType},
    project::{
        LookedUp, Move, Number, Projection, ROW_ABSENT, ROW_HEADER, ROW_INDEX, ROW_WORDS, Short,
        Store, TextFrom, TextStep,
    },
};

/// Where an asked field is in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name of the field.
    pub name: String,
    /// Type in the row.
    pub ty: AskType,
    /// What the value is; `None` for a field that is always absent.
    pub class: Option<Class>,
    /// Offset from the start of the row.
    pub offset: usize,
    /// Bit of the row's mask of absent fields; 0 if it always has a value.
    pub absent: u32,
}

/// How a value becomes what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    /// The bytes are the same.
    Copy,
    /// Another width.
    Number {
        from: u8,
        signed: bool,
        to: u8,
    },
    Text,
    /// The name for a number.
    Name(&'static [&'static str]),
}

impl Conversion {
    pub(super) fn is_narrowing(self) -> bool {
        matches!(self, Self::Number { from, to, .. } if from > to)
    }
}

/// How a field becomes the asked type; else what it is and what can be asked for.
pub(super) fn conversion(
    field: &Field,
    ask: AskType,
) -> Result<Conversion, (&'static str, &'static str)> {
    let number = |from: u8, signed| {
        let to = u8::try_from(ask.size()).expect("sizes of numbers are small");
        if from == to { Conversion::Copy } else { Conversion::Number { from, signed, to } }
    };
    let is_unsigned = matches!(ask, AskType::U8 | AskType::U16 | AskType::U32 | AskType::U64);
    let is_text = matches!(ask, AskType::Text | AskType::Bytes);
    if field.role != Role::Key && field.class() == Class::Unsigned(8) && ask != AskType::U64 {
        return Err(("a number that adds up", "`u64`"));
    }
    match field.class() {
        Class::Unsigned(size) if is_unsigned => Ok(number(size, false)),
        Class::Unsigned(1) => Err(("an unsigned number", "`u8`")),
        Class::Unsigned(2) => Err(("an unsigned number", "`u16`")),
        Class::Unsigned(4) => Err(("an unsigned number", "`u32`")),
        Class::Unsigned(_) => Err(("an unsigned number", "`u64`")),
        Class::Signed(size) if matches!(ask, AskType::I32 | AskType::I64) => Ok(number(size, true)),
        Class::Signed(8) => Err(("a signed number", "`i64`")),
        Class::Signed(_) => Err(("a signed number", "`i32`")),
        Class::Address if ask == AskType::Address => Ok(Conversion::Copy),
        Class::Address => Err(("an address", "`address`")),
        Class::Text | Class::List if is_text => Ok(Conversion::Text),
        Class::Text => Err(("a text", "`text` or `bytes`")),
        Class::List => Err(("a list of texts", "`text` or `bytes`")),
        Class::Histogram if ask == AskType::Bytes => Ok(Conversion::Text),
        Class::Histogram => Err(("a histogram", "`bytes`")),
        Class::Name(names) if is_text => Ok(Conversion::Name(names)),
        Class::Name(_) if is_unsigned => Ok(number(1, false)),
        Class::Name(_) => Err(("one of several names", "`text`, or `u8` for its number")),
    }
}

/// Collects the fields of a subscription.
pub(super) struct Layout {
    end: usize,
    index: u8,
    columns: Vec<Column>,
    optional: u32,
    /// Bits of fields that are never there.
    absent: u32,
    /// Copies of (from, to, length), by ascending `to`.
    copies: Vec<(usize, usize, usize)>,
    projection: Projection,
}

impl Layout {
    pub(super) fn new(kind: &Kind, index: u8) -> Self {
        Self {
            end: ROW_HEADER,
            index,
            columns: Vec::new(),
            optional: 0,
            absent: 0,
            copies: vec![(offset_of!(Header, time), 0, 8)],
            projection: Projection {
                kind: kind.id,
                record_size: usize::from(kind.size).max(size_of::<Header>()),
                template: Vec::new(),
                moves: Vec::new(),
                shorts: Vec::new(),
                numbers: Vec::new(),
                absent: Vec::new(),
                absent_mask: 0,
                looked_up: Vec::new(),
                texts: Vec::new(),
                is_plain: true,
                looks_up: false,
                cuts_at: None,
            },
        }
    }

    /// Puts the next field behind the previous one.
    pub(super) fn push(&mut self, ask: &Ask, found: Option<(&Field, Conversion)>) {
        let offset = self.end.next_multiple_of(ask.ty.align());
        self.end = offset + ask.ty.size();
        let bit = if ask.optional { 1 << self.optional } else { 0 };
        self.optional += u32::from(ask.optional);
        if let Some((field, conversion)) = found {
            self.push_steps(field, conversion, ask, offset, bit);
        } else {
            self.absent |= bit;
        }
        self.columns.push(Column {
            name: ask.name.clone(),
            ty: ask.ty,
            class: found.map(|(field, _)| field.class()),
            offset,
            absent: bit,
        });
    }

    fn push_steps(
        &mut self,
        field: &Field,
        conversion: Conversion,
        ask: &Ask,
        offset: usize,
        bit: u32,
    ) {
        let to = small(offset);
        let signed = matches!(ask.ty, AskType::I32 | AskType::I64);
        let size = u8::try_from(ask.ty.size()).expect("types are small");
        let store = Store { size, signed, absent: bit };
        let text = |from| TextStep {
            from,
            to,
            utf8: ask.ty == AskType::Text,
            absent: bit,
            missing: field.absent,
            cut: 1 << self.columns.len(),
        };
        match (field.from, conversion) {
            (From::Table(enriched), Conversion::Text | Conversion::Name(_)) => {
                self.projection.texts.push(text(TextFrom::Table(enriched)));
            }
            (From::Table(enriched), Conversion::Copy | Conversion::Number { .. }) => {
                self.projection.looked_up.push(LookedUp { field: enriched, to, store });
            }
            (From::Record { offset: at, repr }, Conversion::Text) => {
                self.projection.texts.push(text(TextFrom::Record { at, repr }));
            }
            (From::Record { offset: at, .. }, Conversion::Name(names)) => {
                self.projection.texts.push(text(TextFrom::Name { at, names }));
            }
            (From::Record { offset: at, .. }, Conversion::Copy) => {
                self.copies.push((usize::from(at), offset, ask.ty.size()));
            }
            (From::Record { offset: at, .. }, Conversion::Number { from, signed: false, to })
                if from < to =>
            {
                // The template's zeros do the rest.
                self.copies.push((usize::from(at), offset, usize::from(from)));
            }
            (From::Record { offset: at, .. }, Conversion::Number { from, signed, .. }) => {
                self.projection.numbers.push(Number { from: at, to, size: from, signed, store });
            }
        }
        if bit != 0 && field.absent != 0 {
            self.projection.absent.push((field.absent, bit));
            self.projection.absent_mask |= field.absent;
        }
    }

    /// Adds a mask of the texts that were cut, one bit for each column: for who decodes rows.
    pub(super) fn push_cuts(&mut self) {
        let offset = self.end.next_multiple_of(8);
        self.end = offset + 8;
        self.projection.cuts_at = Some(offset);
    }

    pub(super) fn finish(mut self) -> (Projection, Vec<Column>) {
        let size = self.end.next_multiple_of(8);
        let mut template = vec![0; size];
        template[ROW_ABSENT..ROW_ABSENT + 4].copy_from_slice(&self.absent.to_le_bytes());
        template[ROW_WORDS..ROW_WORDS + 2].copy_from_slice(&small(size / 8).to_le_bytes());
        template[ROW_INDEX] = self.index;
        self.projection.template = template;
        let steps = coalesce(&self.copies, self.projection.record_size, size);
        self.projection.moves = steps.0;
        self.projection.shorts = steps.1;
        let looks_up = self.projection.reads().next().is_some();
        self.projection.looks_up = looks_up;
        let Projection { numbers, looked_up, texts, .. } = &self.projection;
        self.projection.is_plain = numbers.is_empty() && looked_up.is_empty() && texts.is_empty();
        (self.projection, self.columns)
    }
}

/// Makes 8-byte moves of copies, and short ones of what is left.
fn coalesce(
    copies: &[(usize, usize, usize)],
    record: usize,
    row: usize,
) -> (Vec<Move>, Vec<Short>) {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for &(from, to, length) in copies {
        match runs.last_mut() {
            Some(run) if run.0 + run.2 == from && run.1 + run.2 == to => run.2 += length,
            _ => runs.push((from, to, length)),
        }
    }
    let (mut moves, mut shorts) = (Vec::new(), Vec::new());
    for (at, &(from, to, length)) in runs.iter().enumerate() {
        let step = |offset: usize| Move { from: small(from + offset), to: small(to + offset) };
        if length >= 8 {
            moves.extend((0..length / 8).map(|word| step(word * 8)));
            if !length.is_multiple_of(8) {
                // The last move overlaps the one before it.
                moves.push(step(length - 8));
            }
        } else if from + 8 <= record
            && to + 8 <= row
            && is_covered(&runs[at + 1..], to + length, to + 8)
        {
            // It spills over what later moves write.
            moves.push(step(0));
        } else {
            let mut done = 0;
            for size in [4, 2, 1] {
                if length - done >= usize::from(size) {
                    shorts.push(Short { from: small(from + done), to: small(to + done), size });
                    done += usize::from(size);
                }
            }
        }
    }
    (moves, shorts)
}

/// Whether these runs write every byte from `start` to `end`.
fn is_covered(runs: &[(usize, usize, usize)], start: usize, end: usize) -> bool {
    let mut reached = start;
    for &(_, to, length) in runs {
        if to > reached || reached >= end {
            break;
        }
        reached = reached.max(to + length);
    }
    reached >= end
}

fn small(value: usize) -> u16 {
    u16::try_from(value).expect("rows without texts, and records, are shorter than 64 KiB")
}

impl Projection {
    /// The enriched fields that its rows hold.
    pub fn reads(&self) -> impl Iterator<Item = Enriched> {
        let texts = self.texts.iter().filter_map(|step| match step.from {
            TextFrom::Table(field) => Some(field),
            TextFrom::Record { .. } | TextFrom::Name { .. } => None,
        });
        self.looked_up.iter().map(|step| step.field).chain(texts)
    }
}
