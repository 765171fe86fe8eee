//! One rule, and how it is written:
//!
//! ```text
//! deny connect,send tcp 10.0.0.0/8 443   # the site is deployed with the site
//! allow any any ::/0 1-1023
//! deny connect any 192.0.2.7
//! ```
//!
//! Verdict, operations, protocol, prefix, ports; later parts may be missing and then stand for all, as
//! `any` does in each place but the first. What stands behind `#` is the reason.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use thiserror::Error;

use super::{Operation, Operations, Protocol, Verdict, words::ANY};

/// Longest reason of a rule, in bytes.
pub const MAX_REASON: usize = 256;

/// Bits of an IPv6 address before an IPv4 address that is mapped into it.
const MAPPED: u8 = 96;

/// What is wrong with a rule's text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{part}: expected {expected}, found `{found}`")]
pub struct RuleError {
    /// The part of the rule.
    pub part: &'static str,
    /// What could stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl RuleError {
    pub(super) fn new(part: &'static str, expected: impl Into<String>, found: &str) -> Self {
        Self { part, expected: expected.into(), found: found.to_owned() }
    }
}

/// Addresses that begin alike. IPv4 addresses are held as they are mapped into IPv6, so `::/0` is every
/// address of both families and `0.0.0.0/0` every one of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: Ipv6Addr,
    length: u8,
}

impl Prefix {
    /// Every address of both families.
    pub const ANY: Self = Self { address: Ipv6Addr::UNSPECIFIED, length: 0 };

    /// The addresses whose first `length` bits are those of this one, in the address's own family. None if
    /// it has not so many; bits behind the length are cleared.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (address, before) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), MAPPED),
            IpAddr::V6(address) => (address, 0),
        };
        let length = before.checked_add(length).filter(|length| *length <= 128)?;
        Some(Self { address: Ipv6Addr::from_bits(address.to_bits() & mask(length)), length })
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// How many bits count, of 128.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The first `length` bits of it; itself if it has not more.
    #[must_use]
    pub fn widened(&self, length: u8) -> Self {
        let length = length.min(self.length);
        Self { address: Ipv6Addr::from_bits(self.address.to_bits() & mask(length)), length }
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        mapped(address).to_bits() & mask(self.length) == self.address.to_bits()
    }

    /// Whether all of these are among those of this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(IpAddr::V6(other.address))
    }
}

/// The address as tables hold it.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == ANY {
            return Ok(Self::ANY);
        }
        let wrong = |expected: &str| RuleError::new("prefix", expected, text);
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(wrong("an address, or a network such as 10.0.0.0/8 or 2001:db8::/32"));
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(most), |digits| number(digits).filter(|n| *n <= most));
        let prefix = length.and_then(|length| Self::new(address, length));
        let Some(prefix) = prefix else {
            return Err(wrong(&format!("a length of 0 to {most} behind the /")));
        };
        if prefix.address != mapped(address) {
            // Half of those who write this mean the address, and half the network.
            return Err(wrong(&format!("{prefix} (the network) or {address} (the address)")));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, length, most) = match self.address.to_ipv4_mapped() {
            Some(address) if self.length >= MAPPED => {
                (IpAddr::V4(address), self.length - MAPPED, 32)
            }
            _ => (IpAddr::V6(self.address), self.length, 128),
        };
        write!(f, "{address}")?;
        if length < most { write!(f, "/{length}") } else { Ok(()) }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address: mapped(address), length: 128 }
    }
}

impl From<Ipv4Addr> for Prefix {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

/// Ports from one to another, both included; never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// None if the first one is behind the last one.
    #[must_use]
    pub fn new(ports: RangeInclusive<u16>) -> Option<Self> {
        let (first, last) = ports.into_inner();
        (first <= last).then_some(Self { first, last })
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether the port is one of these.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many more than one.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.last - self.first
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for Ports {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == ANY {
            return Ok(Self::ANY);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        number(first)
            .zip(number(last))
            .and_then(|(first, last)| Self::new(first..=last))
            .ok_or_else(|| RuleError::new("ports", "a port, or a range such as 1024-65535", text))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            f.write_str(ANY)
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Digits only: no sign, no space.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// What is allowed or denied, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of what matches.
    pub verdict: Verdict,
    /// The operations that match.
    pub operations: Operations,
    /// The protocol that matches.
    pub protocol: Protocol,
    /// The addresses that match: the peer's, or for `bind` the local one.
    pub prefix: Prefix,
    /// The ports that match, on the same side.
    pub ports: Ports,
    /// Why; may be empty. One line of [`MAX_REASON`] bytes at most.
    pub reason: String,
    /// How long the rule counts, from when its table is installed, on the clock that counts suspend; for
    /// as long as the table is there if none. Not part of the text.
    pub ttl: Option<Duration>,
}

impl Rule {
    /// A rule of the operator's `always_allow`, which is written without verdict and operations:
    /// `tcp 10.0.0.53 53`.
    pub fn always_allow(text: &str) -> Result<Self, RuleError> {
        Self::with(Verdict::Allow, Operations::ANY, text.split_whitespace())
    }

    /// Whether the rule is about this.
    #[must_use]
    pub fn matches(
        &self,
        operation: Operation,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
    ) -> bool {
        self.operations.contains(operation)
            && (self.protocol == Protocol::Any || self.protocol == protocol)
            && self.prefix.contains(address)
            && self.ports.contains(port)
    }

    /// What goes before what, where several match: the least of these. Rules that are equal in all of it
    /// agree on the verdict, and the first one counts.
    pub(super) fn precedence(&self) -> (u8, u16, bool) {
        (u8::MAX - self.prefix.length, self.ports.width(), self.verdict == Verdict::Allow)
    }

    fn with<'a>(
        verdict: Verdict,
        operations: Operations,
        mut words: impl Iterator<Item = &'a str>,
    ) -> Result<Self, RuleError> {
        let protocol = words.next().map_or(Ok(Protocol::Any), str::parse)?;
        let prefix = words.next().map_or(Ok(Prefix::ANY), str::parse)?;
        let ports = words.next().map_or(Ok(Ports::ANY), str::parse)?;
        if let Some(more) = words.next() {
            return Err(RuleError::new("end of the rule", "nothing behind the ports", more));
        }
        let reason = String::new();
        Ok(Self { verdict, operations, protocol, prefix, ports, reason, ttl: None })
    }
}

/// Takes the reason off a line; it is what stands behind `#`.
pub(super) fn split_reason(line: &str) -> Result<(&str, String), RuleError> {
    let (rest, reason) = line.split_once('#').unwrap_or((line, ""));
    let reason = reason.trim();
    if reason.len() > MAX_REASON || reason.contains(char::is_control) {
        let expected = format!("one line of at most {MAX_REASON} bytes behind #");
        return Err(RuleError::new("reason", expected, reason));
    }
    Ok((rest, reason.to_owned()))
}

/// Puts it on again.
pub(super) fn write_reason(f: &mut fmt::Formatter<'_>, reason: &str) -> fmt::Result {
    // Whoever made the rule may not have read it from text.
    let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.trim() {
        "" => Ok(()),
        reason => write!(f, " # {reason}"),
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (rule, reason) = split_reason(text)?;
        let mut words = rule.split_whitespace();
        let verdict = words.next().unwrap_or_default().parse()?;
        let operations = words.next().map_or(Ok(Operations::ANY), str::parse)?;
        Ok(Self { reason, ..Self::with(verdict, operations, words)? })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verdict, self.operations)?;
        let parts = [
            (self.protocol != Protocol::Any, &self.protocol as &dyn fmt::Display),
            (self.prefix != Prefix::ANY, &self.prefix),
            (self.ports != Ports::ANY, &self.ports),
        ];
        let written = parts.iter().rposition(|(says, _)| *says).map_or(0, |last| last + 1);
        for (_, part) in &parts[..written] {
            write!(f, " {part}")?;
        }
        write_reason(f, &self.reason)
    }
}
