//! What rules speak of: verdicts, operations, protocols.

use std::{fmt, ops::BitOr, str::FromStr};

use tipstaff_events::guard::{BIND, CONNECT, SEND};

use super::RuleError;

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// It fails: the caller gets `EPERM`.
    Deny,
}

impl Verdict {
    /// Every verdict, by the word that stands for it.
    const WORDS: [(&'static str, Self); 2] = [("allow", Self::Allow), ("deny", Self::Deny)];
}

/// Whether rules are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuardMode {
    /// Nothing is denied; what would be is counted and told.
    Audit,
    /// What the rules deny fails.
    Enforce,
}

/// An operation that a rule can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Connecting a socket: `connect`, also of UDP, and TCP's fast open.
    Connect,
    /// Sending from a UDP socket to an address that the call names.
    Send,
    /// Binding a socket to a local address.
    Bind,
}

impl Operation {
    /// Every operation, by the word that stands for it.
    const WORDS: [(&'static str, Self); 3] =
        [("connect", Self::Connect), ("send", Self::Send), ("bind", Self::Bind)];

    /// The bit that stands for it in the kernel's maps.
    const fn bit(self) -> u16 {
        match self {
            Self::Connect => CONNECT,
            Self::Send => SEND,
            Self::Bind => BIND,
        }
    }
}

/// One operation or several. In text: `connect,send`, or `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operations(u16);

impl Operations {
    /// All of them.
    pub const ANY: Self =
        Self(Operation::Connect.bit() | Operation::Send.bit() | Operation::Bind.bit());

    /// Whether the operation is one of them.
    #[must_use]
    pub fn contains(self, operation: Operation) -> bool {
        self.0 & operation.bit() != 0
    }

    /// Whether they have one in common.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As the kernel's maps have it.
    pub(super) fn bits(self) -> u16 {
        self.0
    }
}

impl From<Operation> for Operations {
    fn from(operation: Operation) -> Self {
        Self(operation.bit())
    }
}

impl BitOr for Operations {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromStr for Operations {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == ANY {
            return Ok(Self::ANY);
        }
        let one = |word: &str| {
            let found = Operation::WORDS.iter().find(|(name, _)| *name == word);
            found.map(|(_, operation)| Self::from(*operation)).ok_or_else(|| {
                let expected = "`any`, or some of connect, send and bind with commas between them";
                RuleError::new("operations", expected, text)
            })
        };
        text.split(',').map(one).reduce(|all, next| Ok(all? | next?)).unwrap_or(Ok(Self::ANY))
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str(ANY);
        }
        let words = Operation::WORDS.iter().filter(|(_, operation)| self.contains(*operation));
        for (index, (word, _)) in words.enumerate() {
            write!(f, "{}{word}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The transport protocol of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// In a rule: every protocol. Of a socket: one that is none of the others.
    Any,
    /// TCP, also below MPTCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Every protocol, by the word that stands for it.
    const WORDS: [(&'static str, Self); 3] =
        [(ANY, Self::Any), ("tcp", Self::Tcp), ("udp", Self::Udp)];
}

/// Stands for everything in a part of a rule.
pub(super) const ANY: &str = "any";

/// Each of these is written as one of a few words.
macro_rules! words {
    ($($ty:ty, $part:literal, $expected:literal;)+) => {$(
        impl FromStr for $ty {
            type Err = RuleError;

            fn from_str(text: &str) -> Result<Self, RuleError> {
                let found = Self::WORDS.iter().find(|(word, _)| *word == text);
                found
                    .map(|(_, value)| *value)
                    .ok_or_else(|| RuleError::new($part, $expected, text))
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let found = Self::WORDS.iter().find(|(_, value)| value == self);
                f.write_str(found.map_or("", |(word, _)| word))
            }
        }
    )+};
}

impl GuardMode {
    /// Every mode, by the word that stands for it.
    const WORDS: [(&'static str, Self); 2] = [("audit", Self::Audit), ("enforce", Self::Enforce)];
}

words! {
    Verdict, "verdict", "`allow` or `deny`";
    GuardMode, "mode", "`audit` or `enforce`";
    Operation, "operation", "`connect`, `send` or `bind`";
    Protocol, "protocol", "`any`, `tcp` or `udp`";
}
