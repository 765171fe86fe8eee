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
    /// What may be reached: protocol, prefix and ports, such as "tcp 192.0.2.0/24 443" or "any 127.0.0.0/8".
    #[setting(default = [])]
    allow: Vec<String>,
    /// What may not be reached, written alike. The longer prefix counts, and of equal ones this list.
    #[setting(default = [])]
    deny: Vec<String>,
    /// Whether what is in neither list may not be reached.
    #[setting(default = false)]
    deny_the_rest: bool,
    /// Whether nothing is denied, and only told.
    #[setting(default = false)]
    log_only: bool,
    /// Destinations that are counted one by one. The others are counted together, as `other`.
    #[setting(default = 200)]
    destinations: usize,
}

struct DeployGuard {
    rules: Rules,
    /// The lines of the table, in the order in which denials name them.
    lines: Vec<String>,
    guard: Option<Guard>,
    attempts: Counters<3>,
    blocked: Counters<1>,
    unattributed: Counters<0>,
    destinations: BTreeSet<(IpAddr, u16)>,
    /// What was alerted: command and destination.
    told: BTreeSet<(String, IpAddr, u16)>,
}

/// Alerts about different commands and destinations. More are only counted.
const MOST_TOLD: usize = 1000;
/// `EPERM`, with which a denied call fails.
const EPERM: i32 = 1;

impl Policy for DeployGuard {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let rules = Rules::read(settings)?;
        let lines = lines(&rules)?;
        let default = if rules.deny_the_rest { "deny" } else { "allow" };
        let table = Table::from(format!("default {default}\n{}\n", lines.join("\n")));
        let set =
            if rules.log_only { table.set_log_only(&rules.scope) } else { table.set(&rules.scope) };
        // Without it there is still something to see.
        let guard = set.map_err(|refused| log::warning(&format!("nothing is guarded: {refused}")));
        let described = [
            ("deploy_egress_attempts_total", "Attempts to reach something, by destination."),
            ("deploy_egress_blocked_total", "Attempts that failed because they were denied."),
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
            guard: guard.ok(),
            attempts: Counters::new("deploy_egress_attempts_total", ["name", "kind", "verdict"]),
            blocked: Counters::new("deploy_egress_blocked_total", ["stage"]),
            unattributed: Counters::new("deploy_egress_unattributed_total", []),
            destinations: BTreeSet::new(),
            told: BTreeSet::new(),
        })
    }
}

/// The rules of the lists, those that allow first.
fn lines(rules: &Rules) -> Result<Vec<String>, String> {
    let line = |verdict: &str, what: &String| {
        if what.trim().is_empty() || what.contains(['\n', '\r']) {
            return Err(format!(
                "expected protocol, prefix and ports such as \"tcp 192.0.2.0/24 443\", found {what:?}"
            ));
        }
        Ok(format!("{verdict} connect,send {}", what.trim()))
    };
    let allow = rules.allow.iter().map(|what| line("allow", what));
    let deny = rules.deny.iter().map(|what| line("deny", what));
    // To listen is no way out.
    let bind = rules.deny_the_rest.then(|| Ok("allow bind".to_owned()));
    allow.chain(deny).chain(bind).collect()
}

impl On<Denied<'_>> for DeployGuard {
    fn on(&mut self, _time_ns: u64, denied: Denied<'_>) {
        let Denied { address, port, operation, protocol, verdict, .. } = denied;
        // Another policy may guard something as well.
        if self.guard != Some(Guard(denied.guard)) {
            return;
        }
        let name = self.name(address, port);
        self.attempts.add([&name, operation, verdict], 1);
        let is_denied = verdict == "denied";
        if is_denied {
            self.blocked.add(["connect"], 1);
        }
        let command = denied.args.map(|args| args.joined()).filter(|args| !args.is_empty());
        let command = command.or_else(|| denied.exe.map(str::to_owned));
        let command = command.unwrap_or_else(|| {
            self.unattributed.add([], 1);
            "unknown".to_owned()
        });
        if self.told.len() >= MOST_TOLD || !self.told.insert((command.clone(), address, port)) {
            return;
        }
        let at = usize::try_from(denied.rule).ok();
        let rule = at.and_then(|at| self.lines.get(at)).map_or("the default", String::as_str);
        let (destination, pid) = (shown(address, port), denied.pid.to_string());
        let did = if is_denied { "was kept from" } else { "would be kept from" };
        let message = format!("`{command}` {did} {protocol} {destination} ({operation}): {rule}");
        let mut labels = vec![
            ("address", destination.as_str()),
            ("protocol", protocol),
            ("operation", operation),
            ("verdict", verdict),
            ("rule", rule),
            ("pid", pid.as_str()),
        ];
        labels.extend(denied.exe.map(|exe| ("exe", exe)));
        labels.extend(denied.parent.map(|parent| ("parent", parent)));
        let severity = if is_denied { Severity::Critical } else { Severity::Warning };
        alert(severity, &message, &labels);
    }
}

impl On<Connect<'_>> for DeployGuard {
    fn on(&mut self, _time_ns: u64, connect: Connect<'_>) {
        let Connect { address, port, family, result, cgroup } = connect;
        // What was denied has an event of its own.
        if !matches!(family, "inet" | "inet6") || result == -EPERM || !self.is_in_scope(cgroup) {
            return;
        }
        let name = self.name(address, port);
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
    fn name(&mut self, address: IpAddr, port: u16) -> String {
        let is_told_apart = self.destinations.contains(&(address, port))
            || self.destinations.len() < self.rules.destinations
                && self.destinations.insert((address, port));
        if is_told_apart { shown(address, port) } else { "other".to_owned() }
    }
}

fn shown(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

tipstaff::export!(DeployGuard: Denied<'_>, Connect<'_>; settings = Rules);
