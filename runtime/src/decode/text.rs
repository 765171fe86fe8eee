//! An event as one line for eyes. Nothing in it can act on a terminal or forge a line.

use std::fmt::Write as _;

use super::{Decoded, Event, Said, Value};
use crate::{
    escape,
    queue::{Cause, Gap},
};

const DIM: &str = "\x1b[2m";
const KIND: &str = "\x1b[1;36m";
const WRONG: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";
/// Entries of a list that begin behind so many bytes are only counted.
const MOST_LIST: usize = 400;

/// Names of the signals, by number less one.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Decoded<'_> {
    /// Appends the line, with its newline. `wall_offset` is wall-clock minus monotonic time, for
    /// gaps.
    pub fn write_text(&self, line: &mut String, colour: bool, wall_offset: Option<i64>) {
        match self {
            Self::Event(event) => event.write_text(line, colour),
            Self::Gap(kind, gap) => write_gap(kind, gap, wall_offset, line, colour),
        }
        line.push('\n');
    }
}

impl Event<'_> {
    fn write_text(&self, line: &mut String, colour: bool) {
        begin(self.kind, self.wall, self.time, line, colour);
        let find = |name| self.fields.iter().find(|said| said.name == name);
        if let Some(Said { value: Value::Text(comm), .. }) = find("comm") {
            bytes(comm, line, false);
        }
        if let Some(Said { value: Value::Unsigned(pid), .. }) = find("pid") {
            let _ = write!(line, "[{pid}");
            match find("tid") {
                Some(Said { value: Value::Unsigned(tid), .. }) if tid != pid => {
                    let _ = write!(line, "/{tid}]");
                }
                _ => line.push(']'),
            }
        }
        // What every event has is less interesting than what only this one has.
        let is_common =
            |said: &&Said<'_>| matches!(said.name, "uid" | "ns_pid" | "cgroup" | "cgroup_v1");
        let shown = |said: &&Said<'_>| {
            !matches!(said.name, "comm" | "pid" | "tid")
                && !matches!((said.name, &said.value), ("weight", Value::Unsigned(1)))
        };
        let shown = || self.fields.iter().filter(shown);
        for said in shown().filter(|said| !is_common(said)).chain(shown().filter(is_common)) {
            line.push(' ');
            said.write_text(line, colour);
        }
        if self.late {
            line.push_str(" (late)");
        }
    }
}

fn write_gap(kind: &str, gap: &Gap, wall_offset: Option<i64>, line: &mut String, colour: bool) {
    let wall = wall_offset.map(|offset| gap.first_ns.wrapping_add_signed(offset));
    begin("gap", wall, gap.first_ns, line, colour);
    let cause =
        Cause::ALL.iter().find(|(cause, _)| *cause == gap.cause).map_or("", |(_, name)| name);
    let (paint, reset) = if colour { (WRONG, RESET) } else { ("", "") };
    let within = duration(gap.last_ns.saturating_sub(gap.first_ns));
    let _ = write!(line, "{paint}{} {kind} events lost within {within}: {cause}{reset}", gap.lost);
}

fn begin(kind: &str, wall: Option<u64>, time: u64, line: &mut String, colour: bool) {
    let (dim, paint, reset) = if colour { (DIM, KIND, RESET) } else { ("", "", "") };
    let wall = wall.and_then(|wall| jiff::Timestamp::from_nanosecond(wall.into()).ok());
    let _ = match wall {
        Some(wall) => write!(line, "{dim}{wall:.6}{reset} "),
        None => write!(line, "{dim}+{}.{:09}{reset} ", time / 1_000_000_000, time % 1_000_000_000),
    };
    let _ = write!(line, "{paint}{:<9}{reset} ", escape::control(kind));
}

impl Said<'_> {
    fn write_text(&self, line: &mut String, colour: bool) {
        let (dim, wrong, reset) = if colour { (DIM, WRONG, RESET) } else { ("", "", "") };
        let _ = write!(line, "{dim}{}={reset}", escape::control(self.name));
        let _ = match &self.value {
            Value::Unsigned(number) => {
                line.push_str(&self.number(*number));
                Ok(())
            }
            Value::Signed(number) if *number < 0 && self.unit == "errno if negative" => {
                write!(line, "{wrong}{number} ({}){reset}", errno(*number))
            }
            Value::Signed(number) => write!(line, "{number}"),
            Value::Name(name) => {
                line.push_str(name);
                Ok(())
            }
            Value::Address(address) => write!(line, "{address}"),
            Value::Text(text) => {
                bytes(text, line, true);
                Ok(())
            }
            Value::List(list) => write_list(list, line),
            Value::Histogram(numbers) => write_histogram(numbers, self.unit, line),
        };
        if self.cut {
            line.push('…');
        }
    }

    fn number(&self, number: u64) -> String {
        match self.unit {
            "ns" => duration(number),
            "permission bits" => format!("{number:04o}"),
            "signal number" if number != 0 => {
                let name = usize::try_from(number).ok().and_then(|number| SIGNALS.get(number - 1));
                name.map_or_else(|| number.to_string(), |name| format!("{number} (SIG{name})"))
            }
            unit if unit.ends_with(" bits") => format!("{number:#x}"),
            _ => number.to_string(),
        }
    }
}

/// A list, as far as it fits a few lines of a terminal; JSON has all of it.
fn write_list(list: &[&[u8]], line: &mut String) -> std::fmt::Result {
    let start = line.len();
    line.push('[');
    for (index, entry) in list.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        if line.len() - start > MOST_LIST {
            write!(line, "…+{}", list.len() - index)?;
            break;
        }
        bytes(entry, line, true);
    }
    line.push(']');
    Ok(())
}

/// The ranges that are not empty, each with where it begins.
fn write_histogram(numbers: &[u64], unit: &str, line: &mut String) -> std::fmt::Result {
    line.push('[');
    for (index, (range, number)) in
        (0..u64::BITS).zip(numbers).filter(|(_, number)| **number > 0).enumerate()
    {
        let begins = if range == 0 { 0 } else { 1u64 << range };
        let begins = if unit == "ns" { duration(begins) } else { begins.to_string() };
        write!(line, "{}{begins}:{number}", if index > 0 { " " } else { "" })?;
    }
    line.push(']');
    Ok(())
}

/// Four digits are enough for eyes.
fn duration(ns: u64) -> String {
    let (whole, part, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (ns / 1_000, ns % 1_000, "us"),
        1_000_000..1_000_000_000 => (ns / 1_000_000, ns / 1_000 % 1_000, "ms"),
        _ => (ns / 1_000_000_000, ns / 1_000_000 % 1_000, "s"),
    };
    format!("{whole}.{part:03}{unit}")
}

fn errno(negative: i64) -> String {
    let code = i32::try_from(-negative).unwrap_or(0);
    let text = std::io::Error::from_raw_os_error(code).to_string();
    text.rsplit_once(" (os error").map_or(text.clone(), |(name, _)| name.to_owned())
}

/// A text, in quotes where it would be read wrongly without; bytes that are not UTF-8 as `\xNN`.
fn bytes(text: &[u8], line: &mut String, in_quotes: bool) {
    let mut shown = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        shown.push_str(&escape::control(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if in_quotes && (shown.is_empty() || shown.contains([' ', '"', '[', ']', '…'])) {
        let _ = write!(line, "\"{}\"", shown.replace('"', "\\\""));
    } else {
        line.push_str(&shown);
    }
}
