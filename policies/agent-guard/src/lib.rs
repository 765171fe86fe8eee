//! Keeps an AI agent, or a step of a build, to its working directory, away from secrets and from the network but for
//! what is allowed, and tells what it ran, opened for writing and contacted.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, net::IpAddr};

use tipstaff::{
    Counters, Event, List, On, Policy, Settings, Severity, alert,
    guard::{Refused, exec, file, network},
    log, metrics,
};

#[derive(Event)]
#[event(kind = "exec")]
struct Exec<'a> {
    pid: u32,
    path: &'a str,
    args: Option<List<'a>>,
    file_state: &'a str,
    #[event(field = "proc.parent.exe")]
    parent: Option<&'a str>,
}

#[derive(Event)]
#[event(kind = "open", filter = "result >= 0")]
struct Open<'a> {
    pid: u32,
    path: &'a str,
    flags: u32,
    file_state: Option<&'a str>,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

#[derive(Event)]
#[event(kind = "connect")]
struct Connect<'a> {
    pid: u32,
    address: IpAddr,
    port: u16,
    family: &'a str,
    protocol: &'a str,
    result: Option<i32>,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

// Optional: the rest does without it, and before Linux 5.14 there are no rules about names.
#[derive(Event)]
#[event(kind = "dns_query", optional)]
struct Query<'a> {
    pid: u32,
    name: Option<&'a str>,
    record_type: Option<&'a str>,
    verdict: &'a str,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

#[derive(Settings)]
struct Rules {
    /// Where files may be written, created, removed and renamed: paths from `/`, from the working directory (`.`)
    /// or from the home directory (`~`), with all below them. Devices such as /dev/null and terminals always may.
    #[setting(default = ["."])]
    write: Vec<String>,
    /// What may be read, written alike. Names in directories may be read everywhere.
    #[setting(default = ["/"])]
    read: Vec<String>,
    /// What may neither be read nor written, whatever the lists say.
    #[setting(default = ["~/.ssh", "~/.gnupg", "~/.aws", "~/.azure", "~/.config/gcloud", "~/.config/gh", "~/.kube", "~/.docker", "~/.netrc", "~/.git-credentials", "~/.npmrc", "~/.pypirc", "~/.cargo/credentials.toml", "~/.password-store", "~/.local/share/keyrings", "~/.mozilla", "~/.config/google-chrome", "~/.bash_history", "~/.zsh_history"])]
    secrets: Vec<String>,
    /// Programs that may be run, or directories of such; empty: all. What loads programs (`ld.so`) always may.
    #[setting(default = [])]
    programs: Vec<String>,
    /// What may be reached: protocol, prefix and ports, such as "tcp 192.0.2.0/24 443" or "any 127.0.0.0/8"; or
    /// names, such as "name api.example" (with all below it) or "name *.example" (only what is below).
    #[setting(default = [])]
    allow: Vec<String>,
    /// Whether everything else on the network may be reached, too.
    #[setting(default = false)]
    allow_the_rest: bool,
    /// Lines of each sort (run, written, contacted) in the transcript. What is beyond is counted.
    #[setting(default = 500)]
    transcript: usize,
}

/// Where a device has to be written by almost any program; those that are missing are left out.
const DEVICES: &[&str] = &[
    "-/dev/null",
    "-/dev/zero",
    "-/dev/full",
    "-/dev/tty",
    "-/dev/ptmx",
    "-/dev/pts",
    "-/dev/random",
    "-/dev/urandom",
];
/// What loads programs: of glibc and of musl.
const LOADERS: &[&str] =
    &["-/lib64/ld-linux-x86-64.so.2", "-/lib/ld-linux.so.2", "-/lib/ld-musl-x86_64.so.1"];
/// Bits of `flags` of an open that may write: `O_WRONLY`, `O_RDWR`, `O_CREAT`, `O_TRUNC`.
const WRITING: u32 = 0o1 | 0o2 | 0o100 | 0o1000;
/// `EPERM`, with which a denied connection fails.
const EPERM: i32 = 1;
/// Longest command line in the transcript, in characters.
const LONGEST: usize = 1000;

struct AgentGuard {
    transcript: usize,
    told: [BTreeSet<String>; 3],
    counts: Counters<1>,
    left_out: Counters<1>,
}

/// What a line of the transcript is about.
#[derive(Clone, Copy)]
enum Did {
    Run,
    Write,
    Contact,
}

impl Did {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Write => "write",
            Self::Contact => "contact",
        }
    }
}

impl Policy for AgentGuard {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let rules = Rules::read(settings)?;
        let all = [
            ("files", files(&rules).set()),
            ("programs", programs(&rules).map_or(Ok(()), |table| table.set())),
            ("the network", network(&rules)?.set("command").map(drop)),
        ];
        for (what, asked) in all {
            // Without it there is still something to see.
            if let Err(Refused(reason)) = asked {
                log::warning(&format!("{what}: nothing is guarded: {reason}"));
            }
        }
        metrics::describe(
            "agent_actions_total",
            "Programs that were run, files that were opened for writing, addresses and names that were asked for.",
            "",
        );
        metrics::describe(
            "agent_transcript_left_out_total",
            "Lines that the transcript has no room for.",
            "",
        );
        Ok(Self {
            transcript: rules.transcript,
            told: Default::default(),
            counts: Counters::new("agent_actions_total", ["kind"]),
            left_out: Counters::new("agent_transcript_left_out_total", ["kind"]),
        })
    }
}

fn files(rules: &Rules) -> file::Table {
    let mut table = file::Table::deny_all("not in the lists of agent-guard").allow("list", "/", "");
    for path in &rules.read {
        table = table.allow("read", path, "");
    }
    for path in rules.write.iter().map(String::as_str).chain(DEVICES.iter().copied()) {
        table = table.allow("write", path, "");
    }
    for path in &rules.secrets {
        table = table.deny("read,write", path, "a secret");
    }
    table
}

fn programs(rules: &Rules) -> Option<exec::Table> {
    let mut table = exec::Table::deny_all("not in the list of programs of agent-guard");
    for path in rules.programs.iter().map(String::as_str).chain(LOADERS.iter().copied()) {
        table = table.allow(path, "");
    }
    (!rules.programs.is_empty()).then_some(table)
}

fn network(rules: &Rules) -> Result<network::Table, String> {
    let default = if rules.allow_the_rest {
        "allow".to_owned()
    } else {
        "deny # not in the list of agent-guard".to_owned()
    };
    // To listen is no way out.
    let mut text = format!("default {default}\nallow bind\n");
    for what in rules.allow.iter().map(|what| what.trim()) {
        if what.is_empty() || what.contains(['\n', '\r']) {
            return Err(format!(
                "`allow`: expected protocol, prefix and ports such as \"tcp 192.0.2.0/24 443\", or \"name example.com\", \
                 found {what:?}"
            ));
        }
        let operations = if what.starts_with("name ") { "" } else { "connect,send " };
        text.extend(["allow ", operations, what, "\n"]);
    }
    Ok(text.into())
}

impl On<Exec<'_>> for AgentGuard {
    fn on(&mut self, _time_ns: u64, exec: Exec<'_>) {
        let Exec { pid, path, args, file_state, parent } = exec;
        let args = args.map(List::joined).filter(|args| !args.is_empty());
        let command = args.unwrap_or_else(|| path.to_owned());
        // No rule about programs keeps it from that.
        let is_file = file_state != "memfd";
        let severity = if is_file { Severity::Info } else { Severity::Warning };
        let note = if is_file { "" } else { " (from memory, not from a file)" };
        let what = format!("{}{note}", cut(&command));
        self.tell(
            Did::Run,
            severity,
            "ran",
            &what,
            pid,
            &[("path", Some(path)), ("parent", parent)],
        );
    }
}

impl On<Open<'_>> for AgentGuard {
    fn on(&mut self, _time_ns: u64, open: Open<'_>) {
        let Open { pid, path, flags, file_state, exe } = open;
        if flags & WRITING != 0 && file_state != Some("not_a_file") {
            self.tell(Did::Write, Severity::Info, "opened for writing", path, pid, &[("exe", exe)]);
        }
    }
}

impl On<Connect<'_>> for AgentGuard {
    fn on(&mut self, _time_ns: u64, connect: Connect<'_>) {
        let Connect { pid, address, port, family, protocol, result, exe } = connect;
        // What was denied is told by the agent.
        if matches!(family, "inet" | "inet6") && result != Some(-EPERM) {
            let what = format!("{protocol} {}", std::net::SocketAddr::new(address, port));
            self.tell(Did::Contact, Severity::Info, "contacted", &what, pid, &[("exe", exe)]);
        }
    }
}

impl On<Query<'_>> for AgentGuard {
    fn on(&mut self, _time_ns: u64, query: Query<'_>) {
        let Query { pid, name, record_type, verdict, exe } = query;
        if let Some(name) = name.filter(|_| !verdict.starts_with("refuse")) {
            let what = format!("{name} ({})", record_type.unwrap_or("?"));
            self.tell(
                Did::Contact,
                Severity::Info,
                "asked for the name",
                &what,
                pid,
                &[("exe", exe)],
            );
        }
    }
}

impl AgentGuard {
    /// A line of the transcript, once for the same thing.
    fn tell(
        &mut self,
        did: Did,
        severity: Severity,
        verb: &str,
        what: &str,
        pid: u32,
        labels: &[(&'static str, Option<&str>)],
    ) {
        self.counts.add([did.name()], 1);
        let told = &mut self.told[did as usize];
        let line = format!("{verb} {what}");
        if told.contains(&line) {
            return;
        }
        if told.len() >= self.transcript {
            self.left_out.add([did.name()], 1);
            return;
        }
        let pid = pid.to_string();
        let mut all = vec![("kind", did.name()), ("pid", pid.as_str())];
        all.extend(labels.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
        alert(severity, &line, &all);
        told.insert(line);
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

tipstaff::export!(AgentGuard: Exec<'_>, Open<'_>, Connect<'_>, Query<'_>; settings = Rules);
