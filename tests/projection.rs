//! Rows are what the record says, whatever is asked for and in whatever order: compared with a
//! plain evaluation, field by field.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::Index};
use tipstaff_events::{Role, Type};
use tipstaff_runtime::{
    enrich::{Lookup, Tables},
    kind::{Class, Field, From, Kind, Kinds, Repr, RingName},
    manifest::{Ask, AskType, Subscription},
    plan::{Plan, bind},
    record,
    source::encode::Encoder,
};

const FLAG_CLIPPED: u8 = 2;

/// A kind as a tracepoint from the configuration makes it.
fn tracepoint() -> Kind {
    let field = |name: &'static str, offset, repr| Field {
        name: name.into(),
        unit: "".into(),
        doc: "".into(),
        from: From::Record { offset, repr },
        wanted: 0,
        absent: 0,
        role: Role::Key,
    };
    Kind {
        id: 64,
        name: "tp".into(),
        doc: "".into(),
        ring: RingName::Bulk,
        size: 64 + 40,
        fields: vec![
            field("small", 72, Repr::Int { size: 1, signed: true }),
            field("short", 74, Repr::Int { size: 2, signed: false }),
            field("chars", 76, Repr::Chars(12)),
            field("loc", 88, Repr::DataLoc { base: 64, relative: false }),
            field("relative", 92, Repr::DataLoc { base: 64, relative: true }),
            field("long", 96, Repr::Int { size: 8, signed: true }),
        ],
    }
}

fn kinds() -> Kinds {
    Kinds::with(vec![tracepoint()])
}

/// The types that a field can be asked for as.
fn types(field: &Field) -> &'static [AskType] {
    use AskType::*;
    match field.class() {
        // What adds up must not be clipped before.
        Class::Unsigned(_) if field.role != Role::Key => &[U64],
        Class::Histogram => &[Bytes],
        Class::Unsigned(_) => &[U8, U16, U32, U64],
        Class::Signed(_) => &[I32, I64],
        Class::Address => &[Address],
        Class::Text | Class::List => &[Text, Bytes],
        Class::Name(_) => &[Text, Bytes, U8, U16, U32, U64],
    }
}

/// Any value for any field: which part of it counts depends on the field.
#[derive(Debug, Clone)]
struct Any {
    present: bool,
    number: u64,
    bytes: Vec<u8>,
    cut: bool,
}

fn any_value() -> impl Strategy<Value = Any> {
    let bytes = prop_oneof![
        "[a-z/]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
        Just("żółw/π".as_bytes().to_vec()),
    ];
    let number = prop_oneof![any::<u64>(), 0..300u64, any::<u8>().prop_map(u64::from)];
    (prop::bool::weighted(0.8), number, bytes, prop::bool::weighted(0.2))
        .prop_map(|(present, number, bytes, cut)| Any { present, number, bytes, cut })
}

fn encode(kind: &Kind, values: &[Any]) -> Vec<u8> {
    let mut encoder = Encoder::new(kind);
    for (field, value) in kind.fields.iter().zip(values.iter().cycle()) {
        let From::Record { repr, .. } = field.from else { continue };
        // What always has a value is always given one.
        if !value.present && field.absent != 0 {
            continue;
        }
        match field.class() {
            Class::Unsigned(8) => encoder.number(field, value.number.into()),
            Class::Unsigned(size) => {
                encoder.number(field, i128::from(value.number) & ((1 << (size * 8)) - 1))
            }
            Class::Signed(size) => {
                let shift = 64 - u32::from(size) * 8;
                encoder.number(field, i128::from((value.number << shift).cast_signed() >> shift))
            }
            Class::Name(names) => {
                encoder.number(field, i128::from(value.number) % names.len() as i128)
            }
            Class::Address => {
                let mut address = [0; 16];
                address[..8].copy_from_slice(&value.number.to_ne_bytes());
                encoder.address(field, address)
            }
            Class::Text | Class::List | Class::Histogram => {
                let text: &[u8] = &value.bytes;
                let text: Vec<u8> = match repr {
                    Repr::Wire(Type::Text | Type::List | Type::Histogram) => text.to_vec(),
                    _ => text.iter().copied().filter(|&byte| byte != 0).take(12).collect(),
                };
                encoder.bytes(field, &text, value.cut)
            }
        }
        .unwrap();
    }
    encoder.finish()
}

/// What a row should say about a field.
#[derive(Debug, PartialEq)]
enum Said {
    Absent,
    Bytes(Vec<u8>),
    Clipped(Vec<u8>),
}

fn expected(field: &Field, ask: &Ask, bytes: &[u8]) -> Said {
    let From::Record { offset, repr } = field.from else {
        unreachable!("only fields of records are asked for")
    };
    let at = usize::from(offset);
    let empty = || Said::Bytes(Vec::new());
    let is_text = matches!(ask.ty, AskType::Text | AskType::Bytes);
    if record::absent(bytes).unwrap() & field.absent != 0 {
        return match (ask.optional, is_text) {
            (true, _) => Said::Absent,
            (false, true) => empty(),
            (false, false) => Said::Bytes(vec![0; ask.ty.size()]),
        };
    }
    let (size, signed) = match field.class() {
        Class::Text | Class::List | Class::Histogram => {
            return match record::span(bytes, at, repr).unwrap() {
                None if ask.optional => Said::Absent,
                None => empty(),
                Some(span) if ask.ty == AskType::Bytes => Said::Bytes(span.bytes.to_vec()),
                Some(span) => {
                    let mut text = String::from_utf8_lossy(span.bytes).into_owned();
                    let ends_halved = span.bytes.utf8_chunks().last().is_some_and(|last| {
                        std::str::from_utf8(last.invalid())
                            .is_err_and(|error| error.error_len().is_none())
                    });
                    if span.cut && ends_halved {
                        text.pop();
                    }
                    Said::Bytes(text.into_bytes())
                }
            };
        }
        Class::Address => return Said::Bytes(bytes[at..at + 16].to_vec()),
        Class::Name(names) if is_text => {
            return Said::Bytes(names[usize::from(bytes[at])].as_bytes().to_vec());
        }
        Class::Name(_) => (1, false),
        Class::Unsigned(size) => (size, false),
        Class::Signed(size) => (size, true),
    };
    let value = record::number(bytes, at, size, signed).unwrap();
    let wide = if signed { i128::from(value.cast_signed()) } else { i128::from(value) };
    let bits = ask.ty.size() * 8;
    let (least, greatest) = if signed {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    let clamped = wide.clamp(least, greatest).to_le_bytes()[..ask.ty.size()].to_vec();
    match (clamped, wide < least || wide > greatest, ask.optional) {
        (_, true, true) => Said::Absent,
        (clamped, true, false) => Said::Clipped(clamped),
        (clamped, false, _) => Said::Bytes(clamped),
    }
}

fn project(plan: &Plan, record: &[u8], before: usize) -> Vec<u8> {
    let mut tables = Tables::new(None);
    let mut rows = vec![0xee; before];
    let bound = plan.bound().next().unwrap();
    bound.projection.append(record, &mut Lookup::new(&mut tables, None), &mut rows).unwrap();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_row_says_what_the_record_says(
        kind in any::<Index>(),
        asks in prop::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 0..20),
        values in prop::collection::vec(any_value(), 1..30),
        before in (0..3usize).prop_map(|words| words * 8),
    ) {
        let kinds = kinds();
        let all: Vec<_> = kinds.iter().collect();
        let kind = kind.get(&all);
        let own: Vec<_> = kind.fields.iter().filter(|field| matches!(field.from, From::Record { .. })).collect();
        let fields: Vec<Ask> = asks
            .iter()
            .map(|(field, ty, optional)| {
                let field = field.get(&own);
                Ask { name: field.name.to_string(), ty: *ty.get(types(field)), optional: *optional }
            })
            .collect();
        let subscription = Subscription::new(kind.name.to_string(), fields);
        let plan = bind("test", std::slice::from_ref(&subscription), &kinds, &[]).unwrap();
        let record = encode(kind, &values);
        let rows = project(&plan, &record, before);
        let row = &rows[before..];

        prop_assert_eq!(&row[..8], &record[..8]);
        prop_assert_eq!(usize::from(u16::from_le_bytes([row[12], row[13]])) * 8, row.len());
        prop_assert!(row.len().is_multiple_of(8));
        let absent = u32::from_le_bytes(row[8..12].try_into().unwrap());
        let mut clipped = false;
        let mut used = (0..16).collect::<BTreeSet<_>>();
        for (column, ask) in plan.bound().next().unwrap().columns.iter().zip(&subscription.fields) {
            let field = kind.field(&ask.name).unwrap();
            prop_assert!(column.offset.is_multiple_of(ask.ty.align()));
            let raw = &row[column.offset..column.offset + ask.ty.size()];
            prop_assert!((column.offset..column.offset + ask.ty.size()).all(|byte| used.insert(byte)));
            let found = if matches!(ask.ty, AskType::Text | AskType::Bytes) {
                let offset = u32::from_le_bytes(raw[..4].try_into().unwrap()) as usize;
                let length = u32::from_le_bytes(raw[4..].try_into().unwrap()) as usize;
                rows[offset..offset + length].to_vec()
            } else {
                raw.to_vec()
            };
            let is_absent = absent & column.absent != 0;
            match expected(field, ask, &record) {
                Said::Absent => prop_assert!(is_absent, "{} should be absent", ask.name),
                Said::Bytes(bytes) => prop_assert_eq!((is_absent, found), (false, bytes), "{}", ask.name),
                Said::Clipped(bytes) => {
                    clipped = true;
                    prop_assert_eq!((is_absent, found), (false, bytes), "{}", ask.name);
                }
            }
        }
        prop_assert_eq!(row[15] & FLAG_CLIPPED != 0, clipped);
        let fixed = plan.bound().next().unwrap().projection.fixed_size();
        for byte in (0..fixed).filter(|byte| !used.contains(byte)) {
            prop_assert_eq!(row[byte], 0, "padding at {}", byte);
        }
    }

    #[test]
    fn a_malformed_record_leaves_the_batch_as_it_was(
        kind in any::<Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let kinds = kinds();
        let all: Vec<_> = kinds.iter().collect();
        let kind = kind.get(&all);
        let fields = kind
            .fields
            .iter()
            .map(|field| Ask { name: field.name.to_string(), ty: types(field)[0], optional: false })
            .collect();
        let subscription = Subscription::new(kind.name.to_string(), fields);
        let plan = bind("test", &[subscription], &kinds, &[]).unwrap();
        let mut tables = Tables::new(None);
        let mut rows = vec![7; 8];
        let made = plan.bound().next().unwrap().projection.append(
            &bytes,
            &mut Lookup::new(&mut tables, None),
            &mut rows,
        );
        if made.is_ok() {
            prop_assert!(rows.len() > 8 && bytes.len() >= usize::from(kind.size));
        } else {
            prop_assert_eq!(rows, vec![7; 8]);
        }
    }
}
