//! An alert as a line.

use std::{borrow::Cow, collections::BTreeMap, io::IsTerminal};

use serde::Serialize;

use crate::{
    escape,
    outcome::{Alert, Severity},
};

/// How output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For eyes.
    Text {
        /// With the terminal's colours.
        colour: bool,
    },
    /// JSON Lines.
    Json,
}

impl Style {
    /// For eyes: in colour where it is written to a terminal.
    #[must_use]
    pub fn text_on(out: &impl IsTerminal) -> Self {
        Self::Text { colour: out.is_terminal() }
    }
}

/// Wall-clock time as it is shown.
pub(super) fn time(wall_ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(wall_ns.into()).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.9}")
}

/// `name=value` for eyes, in quotes where it would be read wrongly without.
pub(super) fn label(name: &str, value: &str) -> String {
    let value = escape::control(value);
    let value = if value.is_empty() || value.contains([' ', '"', '=']) {
        Cow::Owned(format!("\"{}\"", value.replace('"', "\\\"")))
    } else {
        value
    };
    format!("{}={value}", escape::control(name))
}

/// The alert, with its newline.
pub(super) fn alert(alert: &Alert, style: Style) -> String {
    match style {
        Style::Text { colour } => text(alert, colour),
        Style::Json => json(alert),
    }
}

fn text(alert: &Alert, colour: bool) -> String {
    let Alert { policy, wall_ns, severity, message, labels } = alert;
    let paint = match severity {
        _ if !colour => "",
        Severity::Info => "\x1b[36m",
        Severity::Warning => "\x1b[33m",
        Severity::Critical => "\x1b[1;31m",
    };
    let reset = if colour { "\x1b[0m" } else { "" };
    let (policy, message) = (escape::control(policy), escape::control(message));
    let mut line = format!("{} {paint}{severity:<8}{reset} {policy}: {message}", time(*wall_ns));
    for (name, value) in labels {
        line.push(' ');
        line += &label(name, value);
    }
    line.push('\n');
    line
}

fn json(alert: &Alert) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        time: String,
        policy: &'a str,
        severity: &'static str,
        message: &'a str,
        labels: BTreeMap<&'a str, &'a str>,
    }
    let Alert { policy, wall_ns, severity, message, labels } = alert;
    line(&Line {
        r#type: "alert",
        time: time(*wall_ns),
        policy,
        severity: severity.name(),
        message,
        labels: labels.iter().map(|(name, value)| (&**name, &**value)).collect(),
    })
}

/// A line of JSON Lines.
pub(super) fn line(value: &impl Serialize) -> String {
    let line = serde_json::to_string(value).expect("strings and numbers are always JSON");
    escape::json(&line).into_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Alert {
        Alert {
            policy: "exec-audit".into(),
            wall_ns: 1_700_000_000_123_456_789,
            severity: Severity::Critical,
            message: "shell\n\x1b[2J from \u{9b}nginx".into(),
            labels: vec![
                ("exe".into(), "/bin/a b\x07".into()),
                ("uid".into(), "0".into()),
                ("x".into(), String::new()),
            ],
        }
    }

    #[test]
    fn text_is_one_readable_line_without_control_characters() {
        assert_eq!(
            alert(&hostile(), Style::Text { colour: false }),
            "2023-11-14T22:13:20.123456789Z critical exec-audit: shell\\n\\x1b[2J from \\u{9b}nginx \
             exe=\"/bin/a b\\x07\" uid=0 x=\"\"\n"
        );
    }

    #[test]
    fn colour_is_only_where_it_was_asked_for() {
        let line = alert(&hostile(), Style::Text { colour: true });
        assert_eq!(line.matches('\x1b').count(), 2, "{line:?}");
        assert!(line.contains("\x1b[1;31mcritical\x1b[0m "), "{line:?}");
    }

    #[test]
    fn json_has_the_promised_keys_and_means_what_the_policy_said() {
        let line = alert(&hostile(), Style::Json);
        assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "type": "alert",
            "time": "2023-11-14T22:13:20.123456789Z",
            "policy": "exec-audit",
            "severity": "critical",
            "message": hostile().message,
            "labels": { "exe": "/bin/a b\x07", "uid": "0", "x": "" },
        });
        assert_eq!(value, expected);
    }
}
