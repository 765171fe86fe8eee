//! Keeps a deploy script, or whatever else runs in a cgroup, away from what it must not depend on, and
//! tells which command tried.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, net::IpAddr};

use tipstaff::{
    Counters, Event, List, On, Policy, Settings, Severity, alert,
    guard::network::{Guard, Table},
    log, metrics,
};

#[derive(Event)]
#[event(kind = "denied")]
struct Denied<'a> {
    pid: u32,
    guard: u32,
    rule: u32,
    address: IpAddr,
    port: u16,
    operation: &'a str,
    protocol: &'a str,
    verdict: &'a str,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
    #[event(field = "proc.args")]
    args: Option<List<'a>>,
    #[event(field = "proc.parent.exe")]
    parent: Option<&'a str>,
}

// Optional: rules about addresses do without it, and before Linux 5.14 there are no others.
#[derive(Event)]
#[event(kind = "dns_query", optional)]
struct Query<'a> {
    pid: u32,
    guard: u32,
    rule: u32,
    name: Option<&'a str>,
    record_type: Option<&'a str>,
    protocol: &'a str,
    verdict: &'a str,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
    #[event(field = "proc.args")]
    args: Option<List<'a>>,
    #[event(field = "proc.parent.exe")]
    parent: Option<&'a str>,
    #[event(field = "cgroup.path")]
    cgroup: Option<&'a str>,
}

#[derive(Event)]
#[event(kind = "connect")]
struct Connect<'a> {
    address: IpAddr,
    port: u16,
    family: &'a str,
    result: i32,
    #[event(field = "cgroup.path")]
    cgroup: Option<&'a str>,
}

#[derive(Settings)]
struct Rules {
    /// Where: `command` is the command of `tipstaff exec`, `cgroup:/PATH` a cgroup and all below it.
    #[setting(default = "command")]
    scope: String,
    /// What may be reached: protocol, prefix and ports, such as "tcp 192.0.2.0/24 443" or "any 127.0.0.0/8";
    /// or names, such as "name mirror.example" (with all below it) or "name *.example" (only what is below).
    #[setting(default = [])]
    allow: Vec<String>,
    /// What may not be reached, written alike. The longer prefix counts, or the name with more labels, and of
    /// equal ones this list.
    #[setting(default = [])]
    deny: Vec<String>,
    /// Whether what is in neither list may not be reached.
    #[setting(default = false)]
    deny_the_rest: bool,
    /// Names of services that this script deploys, each with all below it: calling them is no reason to be
    /// denied, but who asked for them is told at the end.
    #[setting(default = [])]
    deployed: Vec<String>,
    /// Whether nothing is denied, and only told.
    #[setting(default = false)]
    log_only: bool,
    /// Destinations that are counted one by one. The others are counted together, as `other`.
    #[setting(default = 200)]
    destinations: usize,
}

struct DeployGuard {
    rules: Rules,
    /// The lines of the table about addresses, in the order in which denials name them.
    lines: Vec<String>,
    /// Those about names, in theirs.
    names: Vec<String>,
    guard: Option<Guard>,
    attempts: Counters<3>,
    blocked: Counters<1>,
    unattributed: Counters<0>,
    services: Counters<3>,
    /// Destinations that are told apart.
    destinations: BTreeSet<String>,
    /// What was alerted: command and destination.
    told: BTreeSet<(String, String)>,
    /// Commands that are told apart.
    commands: BTreeSet<String>,
}

/// Who tried something.
struct Who<'a> {
    pid: u32,
    exe: Option<&'a str>,
    args: Option<List<'a>>,
    parent: Option<&'a str>,
}

impl Who<'_> {
    /// The command line, as it was when the program was started.
    fn command(&self) -> Option<String> {
        let args = self.args.map(List::joined).filter(|args| !args.is_empty());
        args.or_else(|| self.exe.map(str::to_owned))
    }
}

/// Commands that are told apart at the end. The others are told together, as `other`.
const MOST_COMMANDS: usize = 100;
/// Longest command that is told there, in characters.
const LONGEST_COMMAND: usize = 200;

/// Alerts about different commands and destinations. More are only counted.
const MOST_TOLD: usize = 1000;
/// `EPERM`, with which a denied call fails.
const EPERM: i32 = 1;

impl Policy for DeployGuard {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let rules = Rules::read(settings)?;
        let (lines, names) = lines(&rules)?;
        let default = if rules.deny_the_rest { "deny" } else { "allow" };
        let all: Vec<&str> = lines.iter().chain(&names).map(String::as_str).collect();
        let table = Table::from(format!("default {default}\n{}\n", all.join("\n")));
        let set =
            if rules.log_only { table.set_log_only(&rules.scope) } else { table.set(&rules.scope) };
        // Without it there is still something to see.
        let guard = set.map_err(|refused| log::warning(&format!("nothing is guarded: {refused}")));
        let described = [
            ("deploy_egress_attempts_total", "Attempts to reach something, by destination."),
            ("deploy_egress_blocked_total", "Attempts that failed because they were denied."),
            (
                "deploy_services_called_total",
                "Queries for names of services that this script deploys, by the command that asked.",
            ),
            (
                "deploy_egress_unattributed_total",
                "Denied attempts of which the command line is not known.",
            ),
        ];
        for (name, text) in described {
            metrics::describe(name, text, "");
        }
        Ok(Self {
            rules,
            lines,
            names,
            guard: guard.ok(),
            attempts: Counters::new("deploy_egress_attempts_total", ["name", "kind", "verdict"]),
            blocked: Counters::new("deploy_egress_blocked_total", ["stage"]),
            unattributed: Counters::new("deploy_egress_unattributed_total", []),
            services: Counters::new(
                "deploy_services_called_total",
                ["service", "command", "verdict"],
            ),
            destinations: BTreeSet::new(),
            told: BTreeSet::new(),
            commands: BTreeSet::new(),
        })
    }
}

/// The rules of the lists about addresses and those about names, those that allow first.
fn lines(rules: &Rules) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut lines, mut names) = (Vec::new(), Vec::new());
    for (verdict, what) in rules
        .allow
        .iter()
        .map(|what| ("allow", what.trim()))
        .chain(rules.deny.iter().map(|what| ("deny", what.trim())))
    {
        if what.is_empty() || what.contains(['\n', '\r']) {
            return Err(format!(
                "expected protocol, prefix and ports such as \"tcp 192.0.2.0/24 443\", or \"name example.com\", \
                 found {what:?}"
            ));
        }
        match what.strip_prefix("name ") {
            Some(name) => names.push(format!("{verdict} name {}", name.trim())),
            None => lines.push(format!("{verdict} connect,send {what}")),
        }
    }
    // To listen is no way out.
    lines.extend(rules.deny_the_rest.then(|| "allow bind".to_owned()));
    // A rule that says what the default says: so that names are looked at, and nothing else.
    let verdict = if rules.deny_the_rest { "deny" } else { "allow" };
    for service in rules.deployed.iter().map(|service| service.trim()) {
        if service.is_empty() || service.contains(char::is_whitespace) {
            return Err(format!(
                "`deployed`: expected a name such as \"site.example\", found {service:?}"
            ));
        }
        let rule = |verdict| format!("{verdict} name {service}");
        if !names.contains(&rule("allow")) && !names.contains(&rule("deny")) {
            names.push(rule(verdict));
        }
    }
    Ok((lines, names))
}

impl On<Denied<'_>> for DeployGuard {
    fn on(&mut self, _time_ns: u64, denied: Denied<'_>) {
        let Denied { address, port, operation, protocol, verdict, rule, .. } = denied;
        // Another policy may guard something as well.
        if self.guard != Some(Guard(denied.guard)) {
            return;
        }
        let destination = shown(address, port);
        let name = self.name(&destination);
        self.attempts.add([&name, operation, verdict], 1);
        if verdict == "denied" {
            self.blocked.add(["connect"], 1);
        }
        let Denied { pid, exe, args, parent, .. } = denied;
        let who = Who { pid, exe, args, parent };
        let rule = line(&self.lines, rule).to_owned();
        self.tell(&who, &destination, protocol, operation, verdict == "denied", &rule);
    }
}

impl On<Query<'_>> for DeployGuard {
    fn on(&mut self, _time_ns: u64, query: Query<'_>) {
        let Query { pid, exe, args, parent, .. } = query;
        let Some(asked) = query.name.filter(|_| self.is_in_scope(query.cgroup)) else { return };
        let who = Who { pid, exe, args, parent };
        let is_refused = query.verdict.starts_with("refuse");
        let verdict = if is_refused { "denied" } else { "allowed" };
        self.note_service(asked, &who, verdict);
        let name = self.name(asked);
        self.attempts.add([&name, "dns", verdict], 1);
        if !is_refused {
            return;
        }
        self.blocked.add(["dns"], 1);
        // What another policy refuses is its to tell.
        if self.guard == Some(Guard(query.guard)) {
            let what = format!("{asked} ({})", query.record_type.unwrap_or("?"));
            let rule = match query.verdict {
                "refuse_server" => "the server may not be reached".to_owned(),
                _ => line(&self.names, query.rule).to_owned(),
            };
            self.tell(&who, &what, query.protocol, "dns", true, &rule);
        }
    }
}

/// The line of a rule.
fn line(lines: &[String], rule: u32) -> &str {
    let at = usize::try_from(rule).ok();
    at.and_then(|at| lines.get(at)).map_or("the default", String::as_str)
}

impl On<Connect<'_>> for DeployGuard {
    fn on(&mut self, _time_ns: u64, connect: Connect<'_>) {
        let Connect { address, port, family, result, cgroup } = connect;
        // What was denied has an event of its own.
        if !matches!(family, "inet" | "inet6") || result == -EPERM || !self.is_in_scope(cgroup) {
            return;
        }
        let name = self.name(&shown(address, port));
        self.attempts.add([&name, "connect", "allowed"], 1);
    }
}

impl DeployGuard {
    /// Whether a cgroup belongs to what is guarded. `tipstaff exec` shows only its command.
    fn is_in_scope(&self, cgroup: Option<&str>) -> bool {
        let Some(path) = self.rules.scope.strip_prefix("cgroup:") else { return true };
        cgroup
            .and_then(|cgroup| cgroup.strip_prefix(path))
            .is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }

    /// What a destination is counted as.
    fn name(&mut self, destination: &str) -> String {
        let is_told_apart = self.destinations.contains(destination)
            || self.destinations.len() < self.rules.destinations
                && self.destinations.insert(destination.to_owned());
        if is_told_apart { destination.to_owned() } else { "other".to_owned() }
    }

    /// Notes a query for the name of a service that this script deploys.
    fn note_service(&mut self, asked: &str, who: &Who<'_>, verdict: &str) {
        let is_below = |service: &&String| {
            let rest = asked.strip_suffix(service.trim_end_matches('.').to_lowercase().as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let Some(service) = self.rules.deployed.iter().find(is_below).cloned() else { return };
        let command = who.command().unwrap_or_else(|| "unknown".to_owned());
        let command: String = command.chars().take(LONGEST_COMMAND).collect();
        let is_told_apart = self.commands.contains(&command)
            || self.commands.len() < MOST_COMMANDS && self.commands.insert(command.clone());
        let command = if is_told_apart { command } else { "other".to_owned() };
        self.services.add([&service, &command, verdict], 1);
    }

    /// Raises an alert, once for a command and what it was kept from.
    fn tell(
        &mut self,
        who: &Who<'_>,
        destination: &str,
        protocol: &str,
        operation: &str,
        is_denied: bool,
        rule: &str,
    ) {
        let command = who.command().unwrap_or_else(|| {
            self.unattributed.add([], 1);
            "unknown".to_owned()
        });
        let key = (command, destination.to_owned());
        if self.told.contains(&key) || self.told.len() >= MOST_TOLD {
            return;
        }
        let did = if is_denied { "was kept from" } else { "would be kept from" };
        let message = format!("`{}` {did} {protocol} {destination} ({operation}): {rule}", key.0);
        self.told.insert(key);
        let pid = who.pid.to_string();
        let mut labels = vec![
            (if operation == "dns" { "name" } else { "address" }, destination),
            ("protocol", protocol),
            ("operation", operation),
            ("verdict", if is_denied { "denied" } else { "would_deny" }),
            ("rule", rule),
            ("pid", pid.as_str()),
        ];
        labels.extend(who.exe.map(|exe| ("exe", exe)));
        labels.extend(who.parent.map(|parent| ("parent", parent)));
        let severity = if is_denied { Severity::Critical } else { Severity::Warning };
        alert(severity, &message, &labels);
    }
}

fn shown(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

tipstaff::export!(DeployGuard: Denied<'_>, Query<'_>, Connect<'_>; settings = Rules);
