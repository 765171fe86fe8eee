//! The capabilities that need the operator's permission, and what goes with it.

/// A capability that a policy has only if the operator grants it. The name of an interface in the
/// package `tipstaff:policy`, without the version, or of something else that policies ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// `guard-network`: which connections the processes of a cgroup may make.
    Network,
    /// `guard-signal`: signals to processes.
    Signal,
    /// `guard-file`: what the command of `tipstaff exec` may read and write.
    File,
    /// `guard-exec`: which programs it may run.
    Exec,
    /// Subscriptions that are `urgent`: their events go before all others.
    Urgent,
}

impl Grant {
    /// All grants, with their names.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Network, "guard-network"),
        (Self::Signal, "guard-signal"),
        (Self::File, "guard-file"),
        (Self::Exec, "guard-exec"),
        (Self::Urgent, "urgent"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(grant, _)| *grant == self).map_or("", |(_, name)| name)
    }

    /// Whether it is one for an interface, which a policy asks for by importing it.
    #[must_use]
    pub fn is_interface(self) -> bool {
        match self {
            Self::Network | Self::Signal | Self::File | Self::Exec => true,
            Self::Urgent => false,
        }
    }

    /// The most that its actions can promise on any kernel; none: it has no actions.
    #[must_use]
    pub fn strength(self) -> Option<Strength> {
        match self {
            Self::Network | Self::File | Self::Exec => Some(Strength::Prevent),
            Self::Signal => Some(Strength::Remediate),
            Self::Urgent => None,
        }
    }

    /// The grant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(grant, _)| *grant)
    }
}

/// What an action can promise, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// It comes after the fact.
    Remediate,
    /// The process dies before it returns to user space.
    Terminate,
    /// The operation fails.
    Prevent,
}

impl Strength {
    /// All strengths, with the names that are used everywhere.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Remediate, "remediate"),
        (Self::Terminate, "terminate"),
        (Self::Prevent, "prevent"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(strength, _)| *strength == self).map_or("", |(_, name)| name)
    }
}

/// What becomes of the rules of a policy that is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnQuarantine {
    /// They stay until their time is over, with an alert of the highest severity.
    #[default]
    Hold,
    /// They go.
    Release,
}
