//! The agent's log, on standard error: one line each, for eyes or as JSON.
//!
//! A thread of its own writes it: policies log from the threads that run them, and a standard error
//! that nobody reads must not hold them. What it does not take is dropped, and how much is said.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use clap::{ArgAction, Args};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value};
use tipstaff_runtime::escape;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use crate::command::Format;

/// What is logged.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Log more; twice for everything
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Logging")]
    verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    quiet: bool,
    /// How the log on standard error is written
    #[arg(
        long,
        value_name = "FORMAT",
        global = true,
        default_value = "text",
        help_heading = "Logging"
    )]
    log_format: Format,
}

/// Lines that may wait for standard error.
const WAITING: usize = 1024;
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log. What waits is written when it is dropped.
pub struct Log {
    writer: Sender<Message>,
    done: Receiver<()>,
}

enum Message {
    Line(String),
    End,
}

/// Begins to log, at the usual level if no other is asked for.
pub fn start(args: &LogArgs, usual: &'static str) -> Log {
    let level = match (args.quiet, args.verbose) {
        (true, _) => "error",
        (false, 0) => usual,
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // Libraries speak only when something is wrong, unless everything is asked for.
    let libraries = if level == "trace" { "debug" } else { "warn" };
    let filter = EnvFilter::new(format!("{libraries},tipstaff={level},tipstaff_runtime={level}"));
    let (log, lines) = Log::on(io::stderr(), args.log_format, io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    log
}

impl Log {
    fn on(mut out: impl Write + Send + 'static, format: Format, colour: bool) -> (Self, Lines) {
        let (writer, messages) = bounded(WAITING);
        let (ended, done) = bounded(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Lines { format, colour, writer: writer.clone(), dropped: Arc::clone(&dropped) };
        let write = move || {
            // Nobody is left to be told that the log cannot be written.
            let mut put = |line: &str| drop(out.write_all(line.as_bytes()));
            while let Ok(Message::Line(line)) = messages.recv() {
                put(&line);
                let count = dropped.swap(0, Ordering::Relaxed);
                if count > 0 {
                    let fields = Fields {
                        message: "log lines were dropped: standard error did not take them"
                            .to_owned(),
                        others: vec![("count", count.into())],
                    };
                    put(&format.line(Level::WARN, fields, colour));
                }
            }
            drop(ended);
        };
        // Without the thread everything is dropped, which is all that can be done.
        let _no_thread = thread::Builder::new().name("log".to_owned()).spawn(write);
        (Self { writer, done }, lines)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.writer.send_timeout(Message::End, LAST_LINES).is_ok() {
            let _ended_or_late = self.done.recv_timeout(LAST_LINES);
        }
    }
}

/// Hands each event on as a line.
struct Lines {
    format: Format,
    colour: bool,
    writer: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.hand_on(self.format.line(*event.metadata().level(), fields, self.colour));
    }
}

impl Lines {
    fn hand_on(&self, line: String) {
        if self.writer.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Format {
    fn line(self, level: Level, fields: Fields, colour: bool) -> String {
        let time = jiff::Timestamp::now();
        match self {
            Self::Text => text(time, level, &fields, colour),
            Self::Json => json(time, level, fields),
        }
    }
}

fn text(time: jiff::Timestamp, level: Level, fields: &Fields, colour: bool) -> String {
    let (name, paint) = match level {
        Level::ERROR => ("error", "\x1b[31m"),
        Level::WARN => ("warning", "\x1b[33m"),
        Level::INFO => ("info", "\x1b[32m"),
        Level::DEBUG => ("debug", "\x1b[34m"),
        Level::TRACE => ("trace", "\x1b[35m"),
    };
    let (paint, reset) = if colour { (paint, "\x1b[0m") } else { ("", "") };
    let mut line =
        format!("{time:.3} {paint}{name:<7}{reset} {}", escape::control(&fields.message));
    for (name, value) in &fields.others {
        let value = match value {
            Value::String(text) if !text.contains([' ', '"', '=']) => {
                escape::control(text).into_owned()
            }
            Value::String(text) => format!("\"{}\"", escape::control(text)),
            other => other.to_string(),
        };
        line += &[" ", name, "=", &value].concat();
    }
    line.push('\n');
    line
}

fn json(time: jiff::Timestamp, level: Level, fields: Fields) -> String {
    let mut object = Map::new();
    object.insert("type".into(), "log".into());
    object.insert("time".into(), format!("{time:.3}").into());
    object.insert("level".into(), level.as_str().to_lowercase().into());
    object.insert("message".into(), fields.message.into());
    for (name, value) in fields.others {
        object.entry(name).or_insert(value);
    }
    format!("{}\n", escape::json(&Value::Object(object).to_string()))
}

#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The causes, too: the last one is what an operator needs.
        let causes = std::iter::successors(Some(value), |error| error.source());
        self.add(field, causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            message: "a\x1b[31m\nb".into(),
            others: vec![("path", "/x y\x07".into()), ("plain", "a".into()), ("count", 3.into())],
        }
    }

    #[test]
    fn a_text_line_is_one_line_without_control_characters() {
        let line = text(jiff::Timestamp::UNIX_EPOCH, Level::WARN, &fields(), false);
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z warning a\\x1b[31m\\nb path=\"/x y\\x07\" plain=a count=3\n"
        );
    }

    #[test]
    fn a_standard_error_that_nobody_reads_holds_nobody_and_what_was_dropped_is_said() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (log, lines) = Log::on(writer, Format::Text, false);
        let line = "x".repeat(1000) + "\n";
        // A pipe takes 64 KiB, the channel 1024 lines.
        for _ in 0..3000 {
            lines.hand_on(line.clone());
        }
        let read = thread::spawn(move || io::read_to_string(&mut reader).unwrap());
        drop((log, lines));
        let written = read.join().unwrap();
        let counts = written.lines().filter_map(|line| {
            line.split_once("standard error did not take them count=")?.1.parse::<usize>().ok()
        });
        // It is said each time when a line gets through again.
        let (said, dropped) =
            counts.fold((0, 0), |(said, dropped), count| (said + 1, dropped + count));
        assert!(dropped > 0, "nothing was dropped");
        assert_eq!(written.lines().count() - said + dropped, 3000);
    }

    #[test]
    fn a_json_line_has_time_level_message_and_fields() {
        let line = json(jiff::Timestamp::UNIX_EPOCH, Level::ERROR, fields());
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["level"], "error");
        assert_eq!(value["message"], "a\x1b[31m\nb");
        assert_eq!(value["count"], 3);
        assert!(!line.trim_end().contains(char::is_control));
    }
}
