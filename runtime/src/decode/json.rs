//! An event as a JSON object on one line, which [`crate::source::jsonl`] reads back exactly.

use std::fmt::Write as _;

use super::{Decoded, Event, Said, Value};
use crate::{
    queue::{Cause, Gap},
    source::jsonl::GAP,
};

impl Decoded<'_> {
    /// Appends the object, with its newline. `wall_offset` is wall-clock minus monotonic time, for
    /// gaps.
    pub fn write_json(&self, line: &mut String, wall_offset: Option<i64>) {
        match self {
            Self::Event(event) => event.write_json(line),
            Self::Gap(kind, gap) => write_gap(kind, gap, wall_offset, line),
        }
        line.push_str("}\n");
    }
}

impl Event<'_> {
    fn write_json(&self, line: &mut String) {
        let Self { kind, time, wall, late, fields } = self;
        begin(kind, *wall, *time, line);
        for said in fields {
            said.write_json(line);
        }
        let mut cut = fields.iter().filter(|said| said.cut).map(|said| said.name).peekable();
        if cut.peek().is_some() {
            key("cut", line);
            array(cut, line, string);
        }
        if *late {
            key("late", line);
            line.push_str("true");
        }
    }
}

fn write_gap(kind: &str, gap: &Gap, wall_offset: Option<i64>, line: &mut String) {
    let Gap { subscription: _, lost, first_ns, last_ns, cause } = gap;
    begin(GAP, wall_offset.map(|offset| first_ns.wrapping_add_signed(offset)), *first_ns, line);
    key("event", line);
    string(kind, line);
    let cause = Cause::ALL.iter().find(|(known, _)| known == cause).map_or("", |(_, name)| name);
    let _ = write!(
        line,
        ",\"lost\":{lost},\"first_ns\":{first_ns},\"last_ns\":{last_ns},\"cause\":\"{cause}\""
    );
}

fn begin(kind: &str, wall: Option<u64>, time: u64, line: &mut String) {
    line.push_str("{\"kind\":");
    string(kind, line);
    if let Some(wall) = wall.and_then(|wall| jiff::Timestamp::from_nanosecond(wall.into()).ok()) {
        let _ = write!(line, ",\"time\":\"{wall:.9}\"");
    }
    let _ = write!(line, ",\"time_ns\":{time}");
}

impl Said<'_> {
    fn write_json(&self, line: &mut String) {
        key(self.name, line);
        let exact: &[&[u8]] = match &self.value {
            Value::Unsigned(number) => {
                let _ = write!(line, "{number}");
                &[]
            }
            Value::Signed(number) => {
                let _ = write!(line, "{number}");
                &[]
            }
            Value::Name(name) => {
                string(name, line);
                &[]
            }
            Value::Address(address) => {
                let _ = write!(line, "\"{address}\"");
                &[]
            }
            Value::Text(text) => {
                lossy(text, line);
                &[*text]
            }
            Value::Histogram(numbers) => {
                array(numbers.iter(), line, |number, line| {
                    let _ = write!(line, "{number}");
                });
                &[]
            }
            Value::List(list) => {
                array(list.iter(), line, |entry, line| lossy(entry, line));
                list
            }
        };
        if exact.iter().all(|bytes| std::str::from_utf8(bytes).is_ok()) {
            return;
        }
        let name = format!("{}_hex", self.name);
        key(&name, line);
        if let Value::List(list) = &self.value {
            array(list.iter(), line, |entry, line| hex(entry, line));
        } else if let Value::Text(text) = &self.value {
            hex(text, line);
        }
    }
}

fn key(name: &str, line: &mut String) {
    line.push(',');
    string(name, line);
    line.push(':');
}

fn array<T>(entries: impl Iterator<Item = T>, line: &mut String, put: impl Fn(T, &mut String)) {
    line.push('[');
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            line.push(',');
        }
        put(entry, line);
    }
    line.push(']');
}

fn lossy(bytes: &[u8], line: &mut String) {
    string(&String::from_utf8_lossy(bytes), line);
}

fn hex(bytes: &[u8], line: &mut String) {
    line.push('"');
    for byte in bytes {
        let _ = write!(line, "{byte:02x}");
    }
    line.push('"');
}

/// A JSON string. Control characters that JSON lets through (C1, bidirectional ones) are escaped as
/// well, in case a terminal shows the line.
fn string(text: &str, line: &mut String) {
    line.push('"');
    for char in text.chars() {
        match char {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(line, "\\u{:04x}", u32::from(char));
            }
            char if char.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(char));
            }
            char => line.push(char),
        }
    }
    line.push('"');
}
