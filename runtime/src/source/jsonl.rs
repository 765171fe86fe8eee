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

mod error;
mod line;

use std::{fs, ops::Range, os::fd::BorrowedFd, path::Path, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::{Drained, Given, GivenValue, Item, Lost, Source};
use crate::{
    kind::{Enriched, Kinds},
    queue::Cause,
};

pub use error::{Error, Problem};

use line::{lost, named, record, unsigned, wall_time};

/// Time of the first event, if it says none: not 0, so that a gap before it has room.
const FIRST_NS: u64 = 1_000_000_000;
/// Time from an event to the next one, if that says none.
const STEP_NS: u64 = 1_000_000;
/// The kind of lines that tell of lost events.
pub const GAP: &str = "gap";

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
        Drained { items, all: ended, holds_urgent: false, newest_in_bulk: 0, ended }
    }

    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration) {
        let timeout = Timespec::try_from(timeout).ok();
        // Interrupted is as good as woken: the caller looks again.
        let _ = poll(&mut [PollFd::from_borrowed_fd(waker, PollFlags::IN)], timeout.as_ref());
    }

    fn has_unfinished(&self) -> bool {
        false
    }

    fn losses(&mut self, _each: &mut impl FnMut(u16, Cause, u64)) {
        // They stand in the file, each in its place.
    }

    fn is_live(&self) -> bool {
        false
    }
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
        assert_eq!(
            drained,
            Drained { items: 3, all: true, holds_urgent: false, newest_in_bulk: 0, ended: true }
        );
    }
}
