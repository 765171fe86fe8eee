//! What is fuzzed: each target takes any bytes, and must neither panic nor run on.

use std::{path::Path, time::Duration};

use tipstaff_runtime::{
    batch,
    decode::{Decoded, Decoder, own_fields, subscription},
    dns::message,
    enrich::{Lookup, Tables},
    guard::{Operation, Protocol, Table},
    kind::{Kind, Kinds},
    manifest::Manifest,
    plan,
    policy::{LoadError, Refusal, inspect_bytes},
    predicate::{Predicate, filter},
    probe::btf::Btf,
    source::jsonl::Jsonl,
};

/// A target.
pub type Target = fn(&[u8]);

/// Each target by its name, which is that of its folder in `corpus` and of its file in `fuzz_targets`.
pub const TARGETS: &[(&str, Target)] = &[
    ("manifest", manifest),
    ("settings", settings),
    ("record", record),
    ("predicate", predicate),
    ("events", events),
    ("btf", btf),
    ("inspect", inspect),
    ("table", table),
    ("dns", dns),
];

/// The target of that name.
pub fn target(name: &str) -> Target {
    TARGETS.iter().find(|target| target.0 == name).expect("a target").1
}

/// What a policy says of itself.
fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Manifest>() {
        Ok(manifest) => {
            // What is accepted can be shown and planned.
            let known = Kinds::built_in();
            let _ = plan::bind(&manifest.name, &manifest.subscriptions, &known, &[]);
            assert!(manifest.name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A manifest, a line of dashes, and what the operator gives it.
fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((manifest, given)) = text.split_once("\n---\n") else { return };
    let (Ok(manifest), Ok(given)) = (manifest.parse::<Manifest>(), given.parse::<toml::Table>())
    else {
        return;
    };
    match manifest.settings(&given) {
        Ok(values) => {
            assert_eq!(values.len(), manifest.settings.len());
            for (name, value) in values {
                let line = format!("value = {value}");
                assert!(line.parse::<toml::Table>().is_ok(), "{name}: {value} is no TOML");
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

/// The kind whose number is the first byte, and the rest.
fn kind<'a, 'b>(kinds: &'a Kinds, bytes: &'b [u8]) -> Option<(&'a Kind, &'b [u8])> {
    let (&number, rest) = bytes.split_first()?;
    let all: Vec<_> = kinds.iter().collect();
    Some((all[usize::from(number) % all.len()], rest))
}

/// A record becomes a row, and the row is printed.
fn record(bytes: &[u8]) {
    let kinds = Kinds::built_in();
    let Some((kind, record)) = kind(&kinds, bytes) else { return };
    let wanted = subscription(kind, own_fields(kind));
    let plan = plan::bind_to_decode("fuzz", &[wanted], &kinds);
    let Ok(plan) = plan else { panic!("every field can be decoded") };
    let mut tables = Tables::new(None);
    let mut rows = vec![0; 8];
    let bound = plan.bound().next().expect("one subscription");
    let made = bound.projection.append(record, &mut Lookup::new(&mut tables, None), &mut rows);
    if made.is_err() {
        assert_eq!(rows, [0; 8], "nothing is left of a malformed record");
        return;
    }
    assert!(rows.len() >= 8 + 16 && rows.len().is_multiple_of(8));
    let mut again = Vec::new();
    let made = bound.projection.append(record, &mut Lookup::new(&mut tables, None), &mut again);
    assert!(made.is_ok());
    let decoder = Decoder::new(&plan, &kinds);
    let all: Vec<_> = batch::rows(&again).collect();
    assert_eq!(all.len(), 1, "one row");
    if let Some(decoded @ Decoded::Event(_)) = decoder.decode(&again, all[0]) {
        let (mut json, mut text) = (String::new(), String::new());
        decoded.write_json(&mut json, Some(0));
        decoded.write_text(&mut text, true, Some(0));
        let value = serde_json::from_str::<serde_json::Value>(&json);
        assert!(value.is_ok(), "no JSON: {json}");
        assert!(json.trim_end().chars().all(|char| !char.is_control()), "{json:?}");
    }
}

/// A kind, the length of a condition in two bytes, the condition, and a record that it is tested on.
fn predicate(bytes: &[u8]) {
    let kinds = Kinds::built_in();
    let Some((kind, rest)) = kind(&kinds, bytes) else { return };
    let Some((length, rest)) = rest.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (text, record) = rest.split_at(length);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let predicate = match Predicate::parse(text, kind) {
        Ok(predicate) => predicate,
        Err(error) => return drop(error.to_string()),
    };
    let mut tables = Tables::new(None);
    let _ = (predicate.is_pushed_whole(), predicate.is_never());
    let Ok(holds) = predicate.holds(record, &mut Lookup::new(&mut tables, None)) else { return };
    let passes = filter([&predicate]).is_none_or(|filter| {
        filter.passes(|at| {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(record.get(at..).unwrap_or_default()) {
                *to = *from;
            }
            u64::from_ne_bytes(word)
        })
    });
    assert!(passes || !holds, "`{text}` holds, and the kernel would keep it back");
    assert!(!(holds && predicate.is_never()), "`{text}` never holds, and did");
}

/// Lines of a file of events.
fn events(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Jsonl::parse("events.jsonl", text, &Kinds::built_in()) {
        Ok(events) => assert!(events.len() <= text.lines().count()),
        Err(error) => drop(error.to_string()),
    }
}

/// Types of a kernel.
fn btf(bytes: &[u8]) {
    let Some(btf) = Btf::parse(bytes.to_vec()) else { return };
    for structure in ["outer", "a", "loop"] {
        for member in ["a", "b", "c", "none"] {
            let _ = (
                btf.member_offset(structure, member),
                btf.has_member_within(structure, member),
                btf.enumerator(structure, member),
            );
        }
        let _ = btf.size(structure);
    }
    let _ = (btf.enumerator("colour", "GREEN"), btf.tracepoint("thing"));
}

/// A file that someone takes for a policy.
fn inspect(bytes: &[u8]) {
    let result = inspect_bytes(Path::new("fuzz.wasm"), bytes, |path, _| {
        // What has no section is compiled, which is the compiler child's business.
        Err(LoadError { path: path.to_owned(), reason: Refusal::Empty })
    });
    match result {
        Ok(inspection) => assert_eq!(inspection.size, bytes.len()),
        Err(error) => drop(error.to_string()),
    }
}

/// A policy's table of rules.
fn table(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => return drop(error.to_string()),
    };
    // What is shown is what was meant.
    assert_eq!(table.to_string().parse().as_ref(), Ok(&table));
    let address = [192, 0, 2, 1].into();
    let (verdict, by) =
        table.decide(Duration::ZERO, Operation::Connect, Protocol::Tcp, address, 443);
    let _ = (verdict, table.reason(by));
}

/// The length of a query in two bytes, the query, and an answer: messages of DNS.
fn dns(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (asked, answered) = rest.split_at(length);
    let Ok(question) = message::query(asked) else { return };
    assert!(question.name.bytes().all(|byte| byte.is_ascii_graphic()), "{question:?}");
    let _ = message::answers(answered, message::id(asked), &question);
    if let Ok(answer) = message::answer(answered, &question) {
        assert!(answer.addresses.is_empty() || answer.ttl.is_some(), "{answer:?}");
    }
}
