//! The manifest's text, made at compile time: the same bytes for the custom section, which
//! `tipstaff inspect` reads without running anything, and for `describe`.

use crate::{Setting, field::Column};

/// What the text is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Name of the policy.
    pub name: &'a str,
    /// Version of the policy.
    pub version: &'a str,
    /// Time between two ticks.
    pub tick: Option<&'a str>,
    /// What is subscribed to.
    pub subscriptions: &'a [Subscription<'a>],
    /// The settings.
    pub settings: &'a [Setting],
}

/// A subscription in the text.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// Name of the event kind.
    pub kind: &'a str,
    /// Whether the policy runs without it.
    pub optional: bool,
    /// Time between two rows of the same keys, of an aggregated kind.
    pub every: Option<&'a str>,
    /// Whether its rows are delivered at once.
    pub urgent: bool,
    /// Of how many events or processes one is taken; `None`: all are.
    pub sample: Option<&'a str>,
    /// Whether that counts processes.
    pub by_process: bool,
    /// The fields.
    pub columns: &'a [Column],
    /// Which events of the kind; `None`: all.
    pub condition: Option<&'a str>,
}

/// Length of the text, in bytes.
#[must_use]
pub const fn length(parts: &Parts<'_>) -> usize {
    let mut writer = Writer { out: &mut [], length: 0 };
    write(&mut writer, parts);
    writer.length
}

/// The text. `N` is its [`length`].
#[must_use]
pub const fn text<const N: usize>(parts: &Parts<'_>) -> [u8; N] {
    let mut out = [0; N];
    write(&mut Writer { out: &mut out, length: 0 }, parts);
    out
}

/// Writes as far as there is room, and counts.
struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl Writer<'_> {
    const fn push(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if self.length < self.out.len() {
                self.out[self.length] = bytes[at];
            }
            self.length += 1;
            at += 1;
        }
    }

    const fn pair(&mut self, key: &str, value: &str) {
        self.push(key);
        self.push(" = \"");
        self.push(value);
        self.push("\"\n");
    }
}

const fn write(out: &mut Writer<'_>, parts: &Parts<'_>) {
    out.pair("name", parts.name);
    out.pair("version", parts.version);
    if let Some(tick) = parts.tick {
        out.pair("tick", tick);
    }
    let mut at = 0;
    while at < parts.subscriptions.len() {
        subscription(out, &parts.subscriptions[at]);
        at += 1;
    }
    at = 0;
    while at < parts.settings.len() {
        setting(out, &parts.settings[at]);
        at += 1;
    }
}

const fn subscription(out: &mut Writer<'_>, subscription: &Subscription<'_>) {
    out.push("\n[[subscribe]]\n");
    out.pair("event", subscription.kind);
    out.push("fields = [");
    let mut at = 0;
    while at < subscription.columns.len() {
        let column = &subscription.columns[at];
        out.push(if at == 0 { "\"" } else { ", \"" });
        out.push(column.name);
        out.push(":");
        out.push(column.ty);
        out.push(if column.optional { "?\"" } else { "\"" });
        at += 1;
    }
    out.push("]\n");
    if subscription.optional {
        out.push("optional = true\n");
    }
    if let Some(condition) = subscription.condition {
        out.push("where = ");
        // Written as a TOML string by the derive.
        out.push(condition);
        out.push("\n");
    }
    if let Some(every) = subscription.every {
        out.pair("every", every);
    }
    if let Some(sample) = subscription.sample {
        out.push("sample = ");
        out.push(sample);
        out.push("\n");
    }
    if subscription.by_process {
        out.pair("sample_by", "process");
    }
    if subscription.urgent {
        out.push("urgent = true\n");
    }
}

const fn setting(out: &mut Writer<'_>, setting: &Setting) {
    out.push("\n[[setting]]\n");
    out.pair("name", setting.name);
    out.pair("type", setting.ty);
    out.push("doc = ");
    out.push(setting.doc);
    if let Some(default) = setting.default {
        out.push("\ndefault = ");
        out.push(default);
    }
    out.push("\n");
}
