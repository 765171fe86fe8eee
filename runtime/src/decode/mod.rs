//! A row becomes something to print: a JSON object, or a line for eyes.
//!
//! Who prints events asks for them as a policy does, with every field in its natural type
//! ([`subscription`]), and so takes the same way from the probe to the queue.

mod json;
mod text;

use std::{net::IpAddr, sync::Arc};

use crate::{
    batch::Row,
    kind::{Class, Enriched, From, Kind, Kinds},
    manifest::{Ask, AskType, Subscription},
    plan::{Column, Plan},
    project::FLAG_LATE,
    queue::Gap,
};

/// Asks for these fields of a kind, and for the wall-clock time.
pub fn subscription<'a>(kind: &Kind, names: impl IntoIterator<Item = &'a str>) -> Subscription {
    // The monotonic time is in every row's header.
    let mut fields = vec![Ask { name: "wall_time".into(), ty: AskType::U64, optional: true }];
    for name in names {
        let Some(field) = kind.field(name).filter(|_| !matches!(name, "time" | "wall_time")) else {
            continue;
        };
        let ty = match field.class() {
            Class::Unsigned(1) | Class::Name(_) => AskType::U8,
            Class::Unsigned(2) => AskType::U16,
            Class::Unsigned(4) => AskType::U32,
            Class::Unsigned(_) => AskType::U64,
            Class::Signed(8) => AskType::I64,
            Class::Signed(_) => AskType::I32,
            Class::Address => AskType::Address,
            Class::Text | Class::List | Class::Histogram => AskType::Bytes,
        };
        let optional = field.absent != 0 || matches!(field.from, From::Table(_));
        fields.push(Ask { name: name.into(), ty, optional });
    }
    Subscription::new(kind.name.to_string(), fields)
}

/// Names of the fields that are in a kind's records: what is printed unless told otherwise.
pub fn own_fields(kind: &Kind) -> impl Iterator<Item = &str> {
    kind.fields
        .iter()
        .filter(|field| matches!(field.from, From::Record { .. }))
        .map(|field| field.name.as_ref())
}

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// An event.
    Event(Event<'a>),
    /// Events of this kind were lost.
    Gap(&'a str, Gap),
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Name of the kind.
    pub kind: &'a str,
    /// Monotonic time.
    pub time: u64,
    /// Wall-clock time, where it is known.
    pub wall: Option<u64>,
    /// Whether it came after later ones.
    pub late: bool,
    /// The fields that have a value, in the order in which they were asked for.
    pub fields: Vec<Said<'a>>,
}

/// What an event says of a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Said<'a> {
    /// Name of the field.
    pub name: &'a str,
    /// Unit of a number.
    pub unit: &'a str,
    /// The value.
    pub value: Value<'a>,
    /// Whether the kernel's value was longer.
    pub cut: bool,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Unsigned, or a name's number that has no name.
    Unsigned(u64),
    /// Signed.
    Signed(i64),
    /// One of several names.
    Name(&'static str),
    /// An address; IPv4 as such.
    Address(IpAddr),
    /// A text.
    Text(&'a [u8]),
    /// Several texts.
    List(Vec<&'a [u8]>),
    /// How many were in each range.
    Histogram(Vec<u64>),
}

/// Decodes the rows of a plan that was made by [`crate::plan::bind_to_decode`].
#[derive(Debug)]
pub struct Decoder {
    /// By subscription.
    shapes: Vec<Option<Shape>>,
}

#[derive(Debug)]
struct Shape {
    kind: Arc<Kind>,
    columns: Vec<(Column, String)>,
    cuts_at: Option<usize>,
}

impl Decoder {
    /// For the rows of this plan.
    #[must_use]
    pub fn new(plan: &Plan, kinds: &Kinds) -> Self {
        let shape = |bound: &crate::plan::Bound| {
            let kind = Arc::clone(kinds.get(bound.kind)?);
            let unit = |name: &str| {
                kind.field(name).map(|field| field.unit.to_string()).unwrap_or_default()
            };
            let columns =
                bound.columns.iter().map(|column| (column.clone(), unit(&column.name))).collect();
            Some(Shape { kind, columns, cuts_at: bound.projection.cuts_at() })
        };
        Self {
            shapes: plan
                .subscriptions
                .iter()
                .map(|bound| bound.as_deref().and_then(shape))
                .collect(),
        }
    }

    /// Name of the kind of a subscription.
    #[must_use]
    pub fn kind(&self, subscription: u8) -> Option<&str> {
        Some(&self.shapes.get(usize::from(subscription))?.as_ref()?.kind.name)
    }

    /// What a row of this batch says; `None` if it is none of this plan's rows.
    #[must_use]
    pub fn decode<'a>(&'a self, batch: &'a [u8], row: Row<'a>) -> Option<Decoded<'a>> {
        let shape = self.shapes.get(usize::from(row.subscription()))?.as_ref()?;
        if let Some(gap) = row.gap() {
            return Some(Decoded::Gap(&shape.kind.name, gap));
        }
        let cuts = match shape.cuts_at {
            Some(at) => u64::from_le_bytes(*row.bytes.get(at..)?.first_chunk()?),
            None => 0,
        };
        let mut event = Event {
            kind: &shape.kind.name,
            time: row.time(),
            wall: None,
            late: row.flags() & FLAG_LATE != 0,
            fields: Vec::with_capacity(shape.columns.len()),
        };
        for (number, (column, unit)) in shape.columns.iter().enumerate() {
            if column.absent & row.absent() != 0 {
                continue;
            }
            let Some(class) = column.class else { continue };
            let cut = cuts & 1 << number != 0;
            let value = value(column, class, batch, row, cut)?;
            match value {
                Value::Unsigned(wall) if is_wall_time(column) => event.wall = Some(wall),
                value => event.fields.push(Said { name: &column.name, unit, value, cut }),
            }
        }
        Some(Decoded::Event(event))
    }
}

fn is_wall_time(column: &Column) -> bool {
    Enriched::ALL.iter().any(|entry| entry.0 == Enriched::WallTime && entry.1 == column.name)
}

fn value<'a>(
    column: &Column,
    class: Class,
    batch: &'a [u8],
    row: Row<'a>,
    cut: bool,
) -> Option<Value<'a>> {
    let field = row.bytes.get(column.offset..column.offset + column.ty.size())?;
    let mut low = [0; 8];
    let size = field.len().min(8);
    low[..size].copy_from_slice(&field[..size]);
    let number = u64::from_le_bytes(low);
    Some(match class {
        Class::Unsigned(_) => Value::Unsigned(number),
        Class::Signed(_) => {
            let unused = 64 - 8 * u32::try_from(size).ok()?;
            Value::Signed((number << unused).cast_signed() >> unused)
        }
        Class::Name(names) => {
            let name = usize::try_from(number).ok().and_then(|index| names.get(index));
            name.map_or(Value::Unsigned(number), |name| Value::Name(name))
        }
        Class::Address => {
            Value::Address(IpAddr::from(<[u8; 16]>::try_from(field).ok()?).to_canonical())
        }
        Class::Text | Class::List | Class::Histogram => {
            let start = usize::try_from(number & u64::from(u32::MAX)).ok()?;
            let length = usize::try_from(number >> 32).ok()?;
            let bytes = batch.get(start..start.checked_add(length)?)?;
            match class {
                Class::Histogram => {
                    let (numbers, _) = bytes.as_chunks();
                    Value::Histogram(
                        numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
                    )
                }
                Class::List => Value::List(entries(bytes, cut)),
                _ => Value::Text(bytes),
            }
        }
    })
}

/// The entries of a list; the last one of a list that was cut may be a part of one, or empty.
fn entries(list: &[u8], cut: bool) -> Vec<&[u8]> {
    let whole = if cut { list } else { list.strip_suffix(b"\0").unwrap_or(list) };
    if list.is_empty() { Vec::new() } else { whole.split(|&byte| byte == 0).collect() }
}

#[cfg(test)]
mod tests;
