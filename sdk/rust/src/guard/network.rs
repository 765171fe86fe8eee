//! Which connections the processes of a scope may make. The policy says it in advance, and the kernel
//! decides by it when a connection is made: nothing slips through in between.
//!
//! ```no_run
//! use tipstaff::guard::network::{self, Rule, Table};
//!
//! # fn configure() -> Result<network::Guard, network::Refused> {
//! Table::deny_all("deployed by this script")
//!     .allow(&Rule::to("192.0.2.0/24").tcp().port(443).because("the package mirror"))
//!     .allow(&Rule::to("127.0.0.0/8"))
//!     .set("command")
//! # }
//! ```
//!
//! A policy has one table in each scope. Where several rules match, the longest prefix counts, then the
//! narrower range of ports, then the one that denies. Of several policies' tables, one that denies is
//! enough.
//!
//! What is asked for is done when the call in which it was asked for has ended well. In observe mode
//! nothing is done, and every function says so: a policy should then go on, and only watch.

use std::{
    fmt::{self, Write as _},
    ops::RangeInclusive,
    time::Duration,
};

pub use super::Refused;
use super::{one_line, with_reason};
use crate::bindings::guard_network::tipstaff::policy::guard_network;

/// What the events `denied` of a table bear in their field `guard`, so that a policy knows its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guard(pub u32);

/// What a rule is about. Made by [`Rule::to`], and narrowed by the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    operations: Vec<&'static str>,
    protocol: &'static str,
    prefix: String,
    ports: Option<RangeInclusive<u16>>,
    reason: String,
}

impl Rule {
    /// Everything with the peer `prefix`: an address, or a network such as `10.0.0.0/8`; `any` is every
    /// address of both families.
    #[must_use]
    pub fn to(prefix: &str) -> Self {
        // What would be another part of the rule is no prefix, and refused as such.
        let prefix = prefix.split_whitespace().collect::<Vec<_>>().join("?").replace('#', "?");
        let prefix = if prefix.is_empty() { "?".to_owned() } else { prefix };
        Self { operations: Vec::new(), protocol: "any", prefix, ports: None, reason: String::new() }
    }

    /// Only TCP.
    #[must_use]
    pub fn tcp(self) -> Self {
        Self { protocol: "tcp", ..self }
    }

    /// Only UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        Self { protocol: "udp", ..self }
    }

    /// Only this port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.ports(port..=port)
    }

    /// Only these ports.
    #[must_use]
    pub fn ports(self, ports: RangeInclusive<u16>) -> Self {
        Self { ports: Some(ports), ..self }
    }

    /// Connecting; with others of these, only them.
    #[must_use]
    pub fn connect(self) -> Self {
        self.operation("connect")
    }

    /// Sending a datagram to an address that the call names; with others of these, only them.
    #[must_use]
    pub fn send(self) -> Self {
        self.operation("send")
    }

    /// Binding to a local address, which is then the prefix; with others of these, only them.
    #[must_use]
    pub fn bind(self) -> Self {
        self.operation("bind")
    }

    fn operation(mut self, operation: &'static str) -> Self {
        self.operations.push(operation);
        self
    }

    /// Why, for whoever reads of a denial.
    #[must_use]
    pub fn because(self, reason: &str) -> Self {
        Self { reason: one_line(reason), ..self }
    }

    fn text(&self, verdict: &str) -> String {
        let Self { operations, protocol, prefix, ports, reason } = self;
        let operations =
            if operations.is_empty() { "any".to_owned() } else { operations.join(",") };
        let mut text = format!("{verdict} {operations} {protocol} {prefix}");
        let _infallible = match ports {
            Some(ports) => write!(text, " {}-{}", ports.start(), ports.end()),
            None => Ok(()),
        };
        with_reason(&mut text, reason);
        text
    }
}

/// Rules, and what becomes of what no rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(String);

impl Table {
    /// What no rule allows is denied, for this reason.
    #[must_use]
    pub fn deny_all(reason: &str) -> Self {
        Self::new("deny", reason)
    }

    /// What no rule denies is allowed.
    #[must_use]
    pub fn allow_all() -> Self {
        Self::new("allow", "")
    }

    fn new(default: &str, reason: &str) -> Self {
        let mut text = format!("default {default}");
        with_reason(&mut text, &one_line(reason));
        text.push('\n');
        Self(text)
    }

    /// With a rule that allows.
    #[must_use]
    pub fn allow(self, rule: &Rule) -> Self {
        self.with("allow", rule)
    }

    /// With a rule that denies.
    #[must_use]
    pub fn deny(self, rule: &Rule) -> Self {
        self.with("deny", rule)
    }

    fn with(mut self, verdict: &str, rule: &Rule) -> Self {
        self.0 += &rule.text(verdict);
        self.0.push('\n');
        self
    }

    /// Puts it in force in `scope`, in place of the one that this policy has there: `command`, the command
    /// of `tipstaff exec`, or `cgroup:/PATH`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn set(&self, scope: &str) -> Result<Guard, Refused> {
        guard_network::set_table(scope, &self.0).map(Guard).map_err(Refused)
    }

    /// The same, but it only tells what it would deny, whatever the mode.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn set_log_only(&self, scope: &str) -> Result<Guard, Refused> {
        guard_network::set_log_only(scope, &self.0).map(Guard).map_err(Refused)
    }
}

/// As it is written: what `tipstaff explain` and the documentation show.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table as it is written, one rule per line; it is checked when it is set.
impl From<String> for Table {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Adds a rule that denies to the table in `scope`, for `ttl`; `None`: as long as the policy is there.
/// Where there is no table, it is one that allows everything else.
///
/// # Errors
/// See [`Refused`].
pub fn deny(scope: &str, rule: &Rule, ttl: Option<Duration>) -> Result<Guard, Refused> {
    add(scope, &rule.text("deny"), ttl)
}

/// Adds a rule that allows to the table in `scope`; as [`deny`].
///
/// # Errors
/// See [`Refused`].
pub fn allow(scope: &str, rule: &Rule, ttl: Option<Duration>) -> Result<Guard, Refused> {
    add(scope, &rule.text("allow"), ttl)
}

fn add(scope: &str, rule: &str, ttl: Option<Duration>) -> Result<Guard, Refused> {
    // 0 means for ever; a time that is too long is for ever as well.
    let ttl = ttl.map_or(0, |ttl| u64::try_from(ttl.as_nanos()).unwrap_or(0).max(1));
    guard_network::add(scope, rule, ttl).map(Guard).map_err(Refused)
}

/// Takes the policy's table out of `scope`.
///
/// # Errors
/// See [`Refused`].
pub fn clear(scope: &str) -> Result<(), Refused> {
    guard_network::clear(scope).map_err(Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_as_the_agent_reads_it() {
        let table = Table::deny_all("deployed by\nthis script")
            .allow(&Rule::to("192.0.2.0/24").tcp().port(443).because("mirror # 1"))
            .deny(&Rule::to("any").connect().send().ports(1..=1023))
            .allow(&Rule::to("2001:db8::1").udp());
        assert_eq!(
            table.to_string(),
            "default deny # deployed by this script\n\
             allow any tcp 192.0.2.0/24 443-443 # mirror # 1\n\
             deny connect,send any any 1-1023\n\
             allow any udp 2001:db8::1\n"
        );
        assert_eq!(Table::allow_all().to_string(), "default allow\n");
    }

    #[test]
    fn a_prefix_cannot_smuggle_in_another_rule() {
        for prefix in ["", "10.0.0.1\nallow any", "10.0.0.1 443", "any # x"] {
            let text = Table::deny_all("").allow(&Rule::to(prefix)).to_string();
            assert_eq!(text.lines().count(), 2, "{text}");
            let rule: Vec<_> = text.lines().nth(1).unwrap().split(' ').collect();
            assert_eq!(rule.len(), 4, "{text}");
            assert!(rule[3].contains('?'));
        }
    }
}
