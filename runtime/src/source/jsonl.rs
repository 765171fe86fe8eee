//! Events from a file of JSON Lines, as `tipstaff events --format json` prints them.
//!
//! Each line is an object with `kind`, and the fields of that kind by name. Everything else may be
//! left out: a field that is not there has no value, and an event without a time comes 1 ms after
//! the one before it.
//!
//! | key | meaning |
//! |---|---|
//! | `kind` | name of the kind; `gap`: events that were lost (`event`, `lost`, `cause`, `first_ns`, `last_ns`) |
//! | `time_ns` | time on the monotonic clock; if only `time` is there: that |
//! | `time` | wall-clock time, RFC 3339 |
//! | `NAME_hex` | the exact bytes of `NAME` (a list of them for a list), which goes before `NAME` |
//! | `cut` | names of the fields whose kernel value was longer |
//! | `late` | is ignored: it says something about the way in which the event was read |
//!
//! The lines are made into records, and values of enriched fields travel beside them, so that such
//! events take the same way as those from the kernel.

use std::{
    fs, io,
    net::IpAddr,
    ops::Range,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value};

use super::{
    Drained, Given, GivenValue, Item, Lost, Source,
    encode::{Encoder, Unfit},
};
use crate::{
    kind::{Class, Enriched, Field, From, Kind, Kinds},
    nearest,
    queue::Cause,
};

/// Time of the first event, if it says none: not 0, so that a gap before it has room.
const FIRST_NS: u64 = 1_000_000_000;
/// Time from an event to the next one, if that says none.
const STEP_NS: u64 = 1_000_000;
/// The kind of lines that tell of lost events.
pub const GAP: &str = "gap";

/// A file that cannot be read, or a line in it that is no event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no event of this agent.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is not an object, or `kind` is missing.
    #[error(
        "expected an object with `kind`, such as {{\"kind\": \"exec\", \"path\": \"/bin/true\"}}"
    )]
    NoKind,
    /// A kind that does not exist here.
    #[error("there is no event `{kind}` here{hint}")]
    UnknownKind {
        /// Its name.
        kind: String,
        /// The nearest name.
        hint: String,
    },
    /// A field that the kind does not have.
    #[error("event `{kind}` has no field `{field}`{hint}")]
    UnknownField {
        /// The kind.
        kind: String,
        /// Its name.
        field: String,
        /// The nearest name.
        hint: String,
    },
    /// A value that the field cannot have.
    #[error("field `{field}`: expected {expected}, found {found}")]
    Value {
        /// The field.
        field: String,
        /// What can stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A value that does not fit the record.
    #[error("field `{field}`: {unfit}")]
    Unfit {
        /// The field.
        field: String,
        /// Why.
        unfit: Unfit,
    },
}

/// Events from a file.
#[derive(Debug)]
pub struct Jsonl {
    bytes: Vec<u8>,
    events: Vec<Event>,
    next: usize,
}

#[derive(Debug)]
enum Event {
    Record(Range<usize>, Given),
    Lost(Lost),
}

impl Jsonl {
    /// Reads a whole file. Fails with the first line that is no event, before any is handed out.
    pub fn open(path: &Path, kinds: &Kinds) -> Result<Self, Error> {
        let text =
            fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(&path.display().to_string(), &text, kinds)
    }

    /// Reads the lines of `text`; `file` names it in errors.
    pub fn parse(file: &str, text: &str, kinds: &Kinds) -> Result<Self, Error> {
        let mut source = Self { bytes: Vec::new(), events: Vec::new(), next: 0 };
        let mut time = FIRST_NS - STEP_NS;
        for (line, text) in (1..).zip(text.lines()) {
            if !text.trim().is_empty() {
                time = source.push(text, kinds, time + STEP_NS).map_err(|problem| Error::Line {
                    file: file.into(),
                    line,
                    problem,
                })?;
            }
        }
        Ok(source)
    }

    /// Number of events and gaps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds a line; gives the event's time.
    fn push(&mut self, line: &str, kinds: &Kinds, default_ns: u64) -> Result<u64, Problem> {
        let Value::Object(mut object) = serde_json::from_str(line)? else {
            return Err(Problem::NoKind);
        };
        let Some(Value::String(name)) = object.remove("kind") else { return Err(Problem::NoKind) };
        let wall = object.remove("time").map(|value| wall_time(&value)).transpose()?;
        let time = match object.remove("time_ns") {
            Some(value) => unsigned("time_ns", &value)?,
            None => wall.unwrap_or(default_ns),
        };
        object.remove("late");
        if name == GAP {
            self.events.push(Event::Lost(lost(&object, kinds, time)?));
            return Ok(time);
        }
        let kind = named(&name, kinds)?;
        let (record, mut given) = record(kind, &mut object, time)?;
        if let Some(wall) = wall {
            given.set(Enriched::WallTime, GivenValue::Number(wall));
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&record);
        self.events.push(Event::Record(start..self.bytes.len(), given));
        Ok(time)
    }
}

impl Source for Jsonl {
    fn drain(&mut self, most: usize, each: &mut impl FnMut(Item<'_>)) -> Drained {
        let end = self.events.len().min(self.next + most);
        for event in &self.events[self.next..end] {
            each(match event {
                Event::Record(range, given) if given.is_empty() => {
                    Item::Record(&self.bytes[range.clone()])
                }
                Event::Record(range, given) => Item::Enriched(&self.bytes[range.clone()], given),
                Event::Lost(lost) => Item::Lost(*lost),
            });
        }
        let items = end - self.next;
        self.next = end;
        let ended = end == self.events.len();
        Drained { items, all: ended, ended }
    }

    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration) {
        let timeout = Timespec::try_from(timeout).ok();
        // Interrupted is as good as woken: the caller looks again.
        let _ = poll(&mut [PollFd::from_borrowed_fd(waker, PollFlags::IN)], timeout.as_ref());
    }

    fn losses(&mut self, _each: &mut impl FnMut(u16, Cause, u64)) {
        // They stand in the file, each in its place.
    }

    fn is_live(&self) -> bool {
        false
    }
}

fn named<'k>(name: &str, kinds: &'k Kinds) -> Result<&'k Kind, Problem> {
    kinds.named(name).map(|kind| &**kind).ok_or_else(|| {
        let names = kinds.iter().map(|kind| kind.name.as_ref()).chain([GAP]);
        Problem::UnknownKind { kind: name.into(), hint: nearest::hint(name, names) }
    })
}

/// Makes a record of the fields that are left in `object`.
fn record(
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
            (Class::Unsigned(_) | Class::Signed(_) | Class::Name(_) | Class::Address, true) => {
                Err(wrong("`_hex` only behind the name of a text"))
            }
        }
    }
}

fn lost(object: &Map<String, Value>, kinds: &Kinds, time: u64) -> Result<Lost, Problem> {
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

fn unsigned(name: &str, value: &Value) -> Result<u64, Problem> {
    value.as_u64().ok_or_else(|| wrong(name, "an integer that is not negative", value))
}

fn wall_time(value: &Value) -> Result<u64, Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> String {
        Jsonl::parse("case.jsonl", &format!("\n{line}\n"), &Kinds::built_in())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_error_names_file_line_and_what_was_meant() {
        for (line, expected) in [
            (r#"{"kind": "exce"}"#, "there is no event `exce` here; the nearest is `exec`"),
            (
                r#"{"kind": "exec", "paths": "/x"}"#,
                "event `exec` has no field `paths`; the nearest is `path`",
            ),
            (r#"{"kind": "exec", "ppid": "x"}"#, "field `ppid`: expected an integer, found \"x\""),
            (
                r#"{"kind": "exec", "ppid": 4294967296}"#,
                "field `ppid`: the number does not fit the field",
            ),
            (
                r#"{"kind": "open", "via": "compact"}"#,
                "field `via`: expected one of syscall, compat, io_uring; the nearest is `compat`, found \"compact\"",
            ),
            (
                r#"{"kind": "exec", "cut": ["pth"]}"#,
                "event `exec` has no field `pth`; the nearest is `path`",
            ),
            (
                r#"{"kind": "exec", "path_hex": "2"}"#,
                "field `path_hex`: expected hexadecimal digits, found \"2\"",
            ),
            (
                r#"{"kind": "gap", "event": "exec"}"#,
                "field `lost`: expected an integer that is not negative, found null",
            ),
            (
                "[1]",
                "expected an object with `kind`, such as {\"kind\": \"exec\", \"path\": \"/bin/true\"}",
            ),
        ] {
            assert_eq!(message(line), format!("case.jsonl:2: {expected}"));
        }
        assert!(message("{").starts_with("case.jsonl:2: not JSON: "));
    }

    #[test]
    fn an_event_without_a_time_comes_a_millisecond_after_the_one_before_it() {
        let text = "{\"kind\":\"exit\"}\n{\"kind\":\"exit\",\"time_ns\":5000000000}\n{\"kind\":\"exit\"}\n";
        let mut source = Jsonl::parse("t", text, &Kinds::built_in()).unwrap();
        let mut times = Vec::new();
        let drained = source.drain(10, &mut |item| {
            let Item::Record(record) = item else { panic!("{item:?}") };
            times.push(crate::record::time(record).unwrap());
        });
        assert_eq!(times, [FIRST_NS, 5_000_000_000, 5_001_000_000]);
        assert_eq!(drained, Drained { items: 3, all: true, ended: true });
    }
}
