//! What rules kept a command from, each attempt on a line: for `tipstaff exec`. It asks for events as a policy
//! does, and writes from a thread of its own; where nobody takes the lines, what does not fit into its queue is
//! left out, and counted at the end.

mod paths;

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use serde::Serialize;
use tipstaff_events::guard::DEFAULT_IN_RECORD;

use super::line::{self, Style};
use crate::{
    batch::rows,
    decode::{self, Decoded, Decoder, Event, Value},
    escape,
    guard::{Desk, GuardMode, RuleText, paths::DeniedPath},
    kind::Kinds,
    plan::{self, Plan},
    queue::Queue,
    reader::Subscriber,
};

use paths::Attempt;
pub use paths::Files;

/// What is asked for, besides the time.
const FIELDS: [&str; 12] = [
    "pid",
    "comm",
    "guard",
    "rule",
    "operation",
    "name",
    "record_type",
    "address",
    "port",
    "protocol",
    "verdict",
    "proc.args",
];
/// The kinds.
const KINDS: [&str; 2] = ["denied", "dns_query"];
/// Lines about one rule. What it denies besides is only counted.
const MOST_LINES: u32 = 100;
/// How long an event waits for others before it is written.
const LATENCY: Duration = Duration::from_millis(20);
/// Bytes of events that may wait.
const QUEUE_BYTES: usize = 8 << 20;

/// The thread that writes.
#[derive(Debug)]
pub struct Blocked {
    finish: Sender<Sums>,
    done: Receiver<()>,
    on_files: Arc<AtomicU64>,
}

/// What was counted of all attempts, told or not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    /// Attempts that were denied.
    pub denied: u64,
    /// Attempts that would have been.
    pub would_deny: u64,
}

/// What the thread gets, to be handed to the agent.
pub struct Feed {
    /// For the reader.
    pub subscriber: Subscriber,
    ready: Receiver<()>,
    decoder: Decoder,
}

impl Feed {
    /// The events that tell of attempts; those on files, too, where there may be rules about them.
    pub fn new(files: Option<Files>) -> Result<Self, plan::Error> {
        let kinds = Kinds::built_in();
        let mut subscriptions: Vec<_> = KINDS
            .iter()
            .filter_map(|kind| kinds.named(kind))
            .map(|kind| {
                let has = |name: &&str| kind.field(name).is_some();
                decode::subscription(kind, FIELDS.into_iter().filter(has))
            })
            .collect();
        subscriptions
            .extend(files.into_iter().flat_map(|files| paths::subscriptions(files, &kinds)));
        let plan: Arc<Plan> = plan::bind_to_decode("exec", &subscriptions, &kinds)?.into();
        let (wake, ready) = bounded(1);
        let queue = Queue::new(QUEUE_BYTES, move || {
            // If it is full the thread is told already.
            let _ = wake.try_send(());
        });
        let decoder = Decoder::new(&plan, &kinds);
        let subscriber = Subscriber { plan, queue: Arc::new(queue), latency: LATENCY };
        Ok(Self { subscriber, ready, decoder })
    }
}

impl Blocked {
    /// Begins to write. `desk` knows the rules.
    pub fn start(
        feed: Feed,
        out: impl Write + Send + 'static,
        style: Style,
        desk: Desk,
    ) -> io::Result<Self> {
        let (finish, to_finish) = bounded(1);
        let (ended, done) = bounded(1);
        let on_files = Arc::<AtomicU64>::default();
        let mut writer = Writer {
            out,
            style,
            desk,
            lines: HashMap::new(),
            path_lines: HashMap::new(),
            on_files: Arc::clone(&on_files),
            would_on_files: 0,
            told: 0,
            lost: 0,
        };
        let Feed { subscriber, ready, decoder } = feed;
        thread::Builder::new().name("blocked".to_owned()).spawn(move || {
            loop {
                let sums = select! {
                    recv(ready) -> _ => None,
                    recv(to_finish) -> sums => Some(sums.unwrap_or_default()),
                };
                while let Some(delivery) = subscriber.queue.pop() {
                    writer.lost += delivery.gaps.iter().map(|gap| gap.lost).sum::<u64>();
                    let bytes = &delivery.batch.bytes;
                    for decoded in rows(bytes).filter_map(|row| decoder.decode(bytes, row)) {
                        writer.take(&decoded);
                    }
                }
                if let Some(sums) = sums {
                    writer.end(sums);
                    break;
                }
            }
            drop(ended);
        })?;
        Ok(Self { finish, done, on_files })
    }

    /// Attempts on files of which it is inferred that rules denied them.
    #[must_use]
    pub fn on_files(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.on_files)
    }

    /// Writes what there is and then the sums, and ends. `false` if that takes longer than `within`; then
    /// the thread is left to itself.
    #[must_use]
    pub fn finish(self, sums: Sums, within: Duration) -> bool {
        let _closed = self.finish.send(sums);
        self.done.recv_timeout(within) != Err(crossbeam_channel::RecvTimeoutError::Timeout)
    }
}

struct Writer<W> {
    out: W,
    style: Style,
    desk: Desk,
    /// Lines about each rule: its guard, whether it is about names, its index.
    lines: HashMap<(u32, bool, u32), u32>,
    /// The same for rules about files: policy and rule.
    path_lines: HashMap<(String, String), u32>,
    on_files: Arc<AtomicU64>,
    would_on_files: u64,
    told: u64,
    lost: u64,
}

/// An attempt.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    time: String,
    verdict: &'a str,
    pid: u64,
    command: Vec<String>,
    operation: &'a str,
    destination: String,
    protocol: &'a str,
    policy: &'a str,
    scope: &'a str,
    rule: &'a str,
    reason: &'a str,
    /// From what it is concluded that a rule denied it, where nobody tells.
    #[serde(skip_serializing_if = "str::is_empty")]
    inferred: &'a str,
}

/// All of them.
#[derive(Serialize)]
struct End {
    r#type: &'static str,
    denied: u64,
    would_deny: u64,
    inferred_denied: u64,
    inferred_would_deny: u64,
    told: u64,
    lost: u64,
}

impl<W: Write> Writer<W> {
    fn take(&mut self, decoded: &Decoded<'_>) {
        let event = match decoded {
            Decoded::Event(event) => event,
            Decoded::Gap(_, gap) => {
                self.lost += gap.lost;
                return;
            }
        };
        let said = Said(event);
        if paths::is_about_files(event.kind) {
            if let Some(attempt) = paths::attempt(&said, event.kind, &self.desk) {
                self.take_attempt(event, &said, &attempt);
            }
            return;
        }
        let is_name = event.kind == "dns_query";
        let verdict = match said.name("verdict") {
            refuse if is_name && refuse.starts_with("refuse") => "denied",
            _ if is_name => return,
            verdict => verdict,
        };
        let (guard, rule) = (said.number("guard"), said.number("rule"));
        let (guard, rule) = (u32::try_from(guard).unwrap_or(0), u32::try_from(rule).unwrap_or(0));
        if guard == 0 && !is_name {
            // By the agent, to see whether rules deny.
            return;
        }
        let lines = self.lines.entry((guard, is_name, rule)).or_default();
        *lines += 1;
        let lines = *lines;
        if lines > MOST_LINES {
            return;
        }
        let text = self.rule(&said, guard, rule, is_name);
        let destination = if is_name {
            format!("{} ({})", said.text("name"), said.text("record_type"))
        } else {
            said.address()
        };
        self.told += 1;
        let line = Line {
            r#type: "blocked",
            time: line::time(event.wall.unwrap_or_default()),
            verdict,
            pid: said.number("pid"),
            command: said.command(),
            operation: if is_name { "resolve" } else { said.name("operation") },
            destination,
            protocol: said.name("protocol"),
            policy: &text.policy,
            scope: &text.scope,
            rule: &text.rule,
            reason: &text.reason,
            inferred: "",
        };
        self.tell(&line, lines);
    }

    /// An attempt on a file, of which it is inferred that a rule denied it.
    fn take_attempt(&mut self, event: &Event<'_>, said: &Said<'_>, attempt: &Attempt) {
        let Attempt { denied, path } = attempt;
        let DeniedPath { policy, access, rule, reason, mode } = denied;
        let (verdict, inferred) = match mode {
            GuardMode::Enforce => {
                self.on_files.fetch_add(1, Ordering::Relaxed);
                ("denied", "it failed, and the table denies it; permissions may deny it, too")
            }
            GuardMode::Audit => {
                self.would_on_files += 1;
                ("would_deny", "the table denies this path")
            }
        };
        let lines = self.path_lines.entry((policy.clone(), rule.clone())).or_default();
        *lines += 1;
        let lines = *lines;
        if lines > MOST_LINES {
            return;
        }
        self.told += 1;
        let line = Line {
            r#type: "blocked",
            time: line::time(event.wall.unwrap_or_default()),
            verdict,
            pid: said.number("pid"),
            command: said.command(),
            operation: match (event.kind, access) {
                ("unlink", _) => "remove",
                ("rename", _) => "rename",
                (_, access) => access.name(),
            },
            destination: path.to_string_lossy().into_owned(),
            protocol: "",
            policy,
            scope: "command",
            rule,
            reason,
            inferred,
        };
        self.tell(&line, lines);
    }

    /// Writes a line, of so many about its rule.
    fn tell(&mut self, line: &Line<'_>, lines: u32) {
        let mut text = match self.style {
            Style::Json => line::line(line),
            Style::Text { .. } => line.text(),
        };
        if lines == MOST_LINES && matches!(self.style, Style::Text { .. }) {
            let _infallible = writeln!(text, "what `{}` denies besides is only counted", line.rule);
        }
        self.write(&text);
    }

    /// The rule that an event names.
    fn rule(&self, said: &Said<'_>, guard: u32, rule: u32, is_name: bool) -> RuleText {
        let index = (rule != DEFAULT_IN_RECORD).then_some(rule as usize);
        let why = match said.name("verdict") {
            "refuse_server" => Some("the server may not be reached"),
            "refuse_malformed" | "refuse_unsupported" => Some("it is no query for records"),
            "refuse_overload" => Some("too many queries are under way"),
            _ => None,
        };
        let found = self.desk.rule(guard, index, is_name).unwrap_or_default();
        match why {
            Some(why) => RuleText { rule: String::new(), reason: why.to_owned(), ..found },
            None => found,
        }
    }

    fn end(&mut self, sums: Sums) {
        let Sums { denied, would_deny } = sums;
        let (told, lost) = (self.told, self.lost);
        let inferred_denied = self.on_files.load(Ordering::Relaxed);
        let inferred_would_deny = self.would_on_files;
        let text = match self.style {
            Style::Json => line::line(&End {
                r#type: "blocked-total",
                denied,
                would_deny,
                inferred_denied,
                inferred_would_deny,
                told,
                lost,
            }),
            Style::Text { .. } if denied + would_deny + told == 0 => return,
            Style::Text { .. } => {
                let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
                let on_files = match inferred_denied + inferred_would_deny {
                    0 => String::new(),
                    _ => format!(
                        "; on files, as far as events show, {inferred_denied} denied, {inferred_would_deny} would be"
                    ),
                };
                format!(
                    "{denied} attempts denied, {would_deny} would be{on_files}; {told} told above{lost}\n"
                )
            }
        };
        self.write(&text);
    }

    /// In one call: others write there as well.
    fn write(&mut self, text: &str) {
        // Who reads it may be gone, which is no reason to end the command.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

impl Line<'_> {
    fn text(&self) -> String {
        let Self { time, verdict, pid, command, operation, destination, protocol, .. } = self;
        let Self { policy, rule, reason, inferred, .. } = self;
        let blank = if protocol.is_empty() { "" } else { " " };
        let mut text = format!(
            "{time} {verdict:<10} {operation}{blank}{protocol} {} by `{}` [{pid}]",
            escape::control(destination),
            escape::control(&command.join(" "))
        );
        if !policy.is_empty() {
            let _infallible = write!(text, " ({})", escape::control(policy));
        }
        for part in [rule, reason].into_iter().filter(|part| !part.is_empty()) {
            let _infallible = write!(text, ": {}", escape::control(part));
        }
        if !inferred.is_empty() {
            let _infallible = write!(text, " (inferred: {inferred})");
        }
        text.push('\n');
        text
    }
}

/// What an event says.
struct Said<'a>(&'a Event<'a>);

impl<'a> Said<'a> {
    fn value(&self, name: &str) -> Option<&'a Value<'a>> {
        self.0.fields.iter().find(|said| said.name == name).map(|said| &said.value)
    }

    fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Unsigned(number)) => *number,
            _ => 0,
        }
    }

    fn signed(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Signed(number)) => Some(*number),
            _ => None,
        }
    }

    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn name(&self, name: &str) -> &'a str {
        match self.value(name) {
            Some(Value::Name(name)) => name,
            _ => "?",
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => "?".to_owned(),
        }
    }

    fn address(&self) -> String {
        match (self.value("address"), u16::try_from(self.number("port"))) {
            (Some(Value::Address(address)), Ok(port)) => {
                std::net::SocketAddr::new(*address, port).to_string()
            }
            _ => "?".to_owned(),
        }
    }

    /// Its arguments as they were when the program was started; else the name of its thread.
    fn command(&self) -> Vec<String> {
        match self.value("proc.args") {
            Some(Value::List(list)) if !list.is_empty() => {
                list.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
            }
            _ => vec![self.text("comm")],
        }
    }
}
