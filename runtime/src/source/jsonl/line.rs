//! A line's values become a record.

use std::net::IpAddr;

use serde_json::{Map, Value};
use tipstaff_events::aggregate::BUCKETS;

use super::{GAP, Problem};
use crate::{
    kind::{Class, Field, From, Kind, Kinds},
    nearest,
    queue::Cause,
    source::{
        Given, GivenValue, Lost,
        encode::{Encoder, Unfit},
    },
};

pub(super) fn named<'k>(name: &str, kinds: &'k Kinds) -> Result<&'k Kind, Problem> {
    kinds.named(name).map(|kind| &**kind).ok_or_else(|| {
        let names = kinds.iter().map(|kind| kind.name.as_ref()).chain([GAP]);
        Problem::UnknownKind { kind: name.into(), hint: nearest::hint(name, names) }
    })
}

/// Makes a record of the fields that are left in `object`.
pub(super) fn record(
    kind: &Kind,
    object: &mut Map<String, Value>,
    time: u64,
) -> Result<(Vec<u8>, Given), Problem> {
    let cut = match object.remove("cut") {
        None => Vec::new(),
        Some(value) => strings("cut", &value)?,
    };
    let mut encoder = Encoder::new(kind);
    let mut given = Given::default();
    let time_field = find(kind, "time")?;
    set(&mut encoder, time_field, |encoder, field| encoder.number(field, time.into()))?;
    for name in &cut {
        find(kind, name)?;
    }
    for (name, value) in object.iter() {
        let exact = name.strip_suffix("_hex").filter(|_| kind.field(name).is_none());
        let field = find(kind, exact.unwrap_or(name))?;
        let has_exact = exact.is_none() && object.contains_key(&format!("{name}_hex"));
        if value.is_null() || has_exact {
            continue;
        }
        let is_cut = cut.iter().any(|cut| *cut == field.name);
        let value = Parsed::new(field, name, value, exact.is_some(), is_cut)?;
        match (field.from, value) {
            (From::Table(enriched), Parsed::Number(number)) => {
                let number = u64::try_from(number).map_err(|_| unfit(name, Unfit::Number))?;
                given.set(enriched, GivenValue::Number(number));
            }
            (From::Table(enriched), Parsed::Bytes(bytes)) => {
                given.set(enriched, GivenValue::Bytes(bytes));
            }
            (From::Table(_), Parsed::Address(_)) => return Err(unfit(name, Unfit::Type)),
            (From::Record { .. }, value) => {
                set(&mut encoder, field, |encoder, field| match value {
                    Parsed::Number(number) => encoder.number(field, number),
                    Parsed::Address(address) => encoder.address(field, address),
                    Parsed::Bytes(bytes) => encoder.bytes(field, &bytes, is_cut),
                })?;
            }
        }
    }
    Ok((encoder.finish(), given))
}

fn set(
    encoder: &mut Encoder,
    field: &Field,
    put: impl FnOnce(&mut Encoder, &Field) -> Result<(), Unfit>,
) -> Result<(), Problem> {
    put(encoder, field).map_err(|reason| unfit(&field.name, reason))
}

fn unfit(field: &str, unfit: Unfit) -> Problem {
    Problem::Unfit { field: field.into(), unfit }
}

fn find<'k>(kind: &'k Kind, name: &str) -> Result<&'k Field, Problem> {
    kind.field(name).ok_or_else(|| Problem::UnknownField {
        kind: kind.name.to_string(),
        field: name.into(),
        hint: nearest::hint(name, kind.fields.iter().map(|field| field.name.as_ref())),
    })
}

/// A value as the field's class wants it.
enum Parsed {
    Number(i128),
    Address([u8; 16]),
    Bytes(Vec<u8>),
}

impl Parsed {
    fn new(
        field: &Field,
        name: &str,
        value: &Value,
        exact: bool,
        is_cut: bool,
    ) -> Result<Self, Problem> {
        let wrong = |expected: &str| wrong(name, expected, value);
        match (field.class(), exact) {
            (Class::Unsigned(_) | Class::Signed(_), false) => {
                integer(value).map(Self::Number).ok_or_else(|| wrong("an integer"))
            }
            (Class::Name(names), false) => {
                let index = match value {
                    Value::String(text) => names.iter().position(|name| name == text),
                    _ => integer(value)
                        .and_then(|index| usize::try_from(index).ok())
                        .filter(|i| *i < names.len()),
                };
                let index = index.and_then(|index| i128::try_from(index).ok());
                index.map(Self::Number).ok_or_else(|| {
                    let hint =
                        value.as_str().map(|text| nearest::hint(text, names.iter().copied()));
                    wrong(&format!("one of {}{}", names.join(", "), hint.unwrap_or_default()))
                })
            }
            (Class::Address, false) => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                let address = address.map(|address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                });
                address
                    .map(Self::Address)
                    .ok_or_else(|| wrong("an address such as \"127.0.0.1\" or \"::1\""))
            }
            (Class::Text, _) => {
                let text = value.as_str().ok_or_else(|| wrong("a string"))?;
                let bytes = if exact {
                    hex(text).ok_or_else(|| wrong("hexadecimal digits"))?
                } else {
                    text.into()
                };
                Ok(Self::Bytes(bytes))
            }
            (Class::List, _) => {
                let mut list = Vec::new();
                for entry in strings(name, value)? {
                    if exact {
                        list.extend(
                            hex(&entry).ok_or_else(|| wrong("a list of hexadecimal digits"))?,
                        );
                    } else {
                        list.extend(entry.bytes());
                    }
                    list.push(0);
                }
                if is_cut {
                    // What was cut does not end where an entry ends.
                    list.pop();
                }
                Ok(Self::Bytes(list))
            }
            (Class::Histogram, false) => {
                let numbers = value.as_array().filter(|numbers| numbers.len() <= BUCKETS);
                let numbers = numbers.and_then(|numbers| {
                    numbers.iter().map(Value::as_u64).collect::<Option<Vec<_>>>()
                });
                let mut numbers = numbers
                    .ok_or_else(|| wrong(&format!("an array of at most {BUCKETS} numbers")))?;
                numbers.resize(BUCKETS, 0);
                Ok(Self::Bytes(numbers.into_iter().flat_map(u64::to_le_bytes).collect()))
            }
            (
                Class::Unsigned(_)
                | Class::Signed(_)
                | Class::Name(_)
                | Class::Address
                | Class::Histogram,
                true,
            ) => Err(wrong("`_hex` only behind the name of a text")),
        }
    }
}

pub(super) fn lost(object: &Map<String, Value>, kinds: &Kinds, time: u64) -> Result<Lost, Problem> {
    const KEYS: &[&str] = &["event", "lost", "cause", "first_ns", "last_ns"];
    if let Some(unknown) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(Problem::UnknownField {
            kind: GAP.into(),
            field: unknown.clone(),
            hint: nearest::hint(unknown, KEYS.iter().copied()),
        });
    }
    let get = |key| object.get(key).unwrap_or(&Value::Null);
    let event =
        get("event").as_str().ok_or_else(|| wrong("event", "the name of a kind", get("event")))?;
    let time_of = |key| object.get(key).map_or(Ok(time), |value| unsigned(key, value));
    let cause = match object.get("cause") {
        None => Cause::RingFull,
        Some(value) => {
            let found = Cause::ALL.iter().find(|(_, name)| value.as_str() == Some(name));
            let names: Vec<_> = Cause::ALL.iter().map(|(_, name)| *name).collect();
            found.ok_or_else(|| wrong("cause", &format!("one of {}", names.join(", ")), value))?.0
        }
    };
    Ok(Lost {
        kind: named(event, kinds)?.id,
        count: unsigned("lost", get("lost"))?,
        first_ns: time_of("first_ns")?,
        last_ns: time_of("last_ns")?,
        cause,
    })
}

fn wrong(field: &str, expected: &str, found: &Value) -> Problem {
    Problem::Value { field: field.into(), expected: expected.into(), found: found.to_string() }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

pub(super) fn unsigned(name: &str, value: &Value) -> Result<u64, Problem> {
    value.as_u64().ok_or_else(|| wrong(name, "an integer that is not negative", value))
}

pub(super) fn wall_time(value: &Value) -> Result<u64, Problem> {
    let time: Option<jiff::Timestamp> = value.as_str().and_then(|text| text.parse().ok());
    time.and_then(|time| u64::try_from(time.as_nanosecond()).ok())
        .ok_or_else(|| wrong("time", "a time such as \"2026-01-31T03:00:00Z\"", value))
}

fn strings(name: &str, value: &Value) -> Result<Vec<String>, Problem> {
    let list = value.as_array().and_then(|list| {
        list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    list.ok_or_else(|| wrong(name, "a list of strings", value))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
