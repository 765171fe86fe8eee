//! The agent's log, on standard error: one line each, for eyes or as JSON.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
};

use clap::{ArgAction, Args};
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

/// Begins to log.
pub fn start(args: &LogArgs) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // Libraries speak only when something is wrong, unless everything is asked for.
    let libraries = if level == "trace" { "debug" } else { "warn" };
    let filter = EnvFilter::new(format!("{libraries},tipstaff={level},tipstaff_runtime={level}"));
    let lines = Lines { format: args.log_format, colour: io::stderr().is_terminal() };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// Writes each event as a line.
struct Lines {
    format: Format,
    colour: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = jiff::Timestamp::now();
        let line = match self.format {
            Format::Text => text(time, *event.metadata().level(), &fields, self.colour),
            Format::Json => json(time, *event.metadata().level(), fields),
        };
        // Nobody is left to be told that the log cannot be written.
        let _unwritten = io::stderr().lock().write_all(line.as_bytes());
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
