//! Why a policy does not run.

use crate::{
    config::Problems,
    plan,
    policy::{Digest, LoadError, Refusal},
    probe::ProbeError,
};

/// Why a policy does not run, or why an earlier generation of it goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "{path}: there is a policy `{name}` already, from {other}: rename one of them, or remove {other} to put this one in its place"
    )]
    Duplicate { path: String, name: String, other: String },
    #[error(
        "{path}: its digest is {found}, but [policy.{name}] allows only {allowed}: add it there if you trust the file"
    )]
    Digest { path: String, name: String, found: Digest, allowed: String },
    #[error(
        "{path}: what it asks for does not promise that much, but [policy.{name}] has `require = {least:?}`: {reason}"
    )]
    Strength { path: String, name: String, least: &'static str, reason: String },
    #[error("{path}: {problems}")]
    Settings { path: String, problems: Problems },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{path}: {source}")]
    Plan { path: String, source: plan::Error },
    #[error("{path}: the events `{kind}` that it needs cannot be seen here: {reason}")]
    Unseen { path: String, kind: String, reason: String },
    #[error("{path}: {source}")]
    Probe { path: String, source: ProbeError },
}

impl Refused {
    /// Whether the operator does not allow any more what a running policy is or does, so that it must
    /// not go on as it is. That it has too little of something is the operator's doing only if its
    /// limits changed.
    pub(super) fn is_withdrawn(&self, has_other_limits: bool) -> bool {
        match self {
            Self::Digest { .. }
            | Self::Plan { source: plan::Error::Withheld { .. }, .. }
            | Self::Load(LoadError {
                reason: Refusal::NotGranted { .. } | Refusal::NotPinned { .. },
                ..
            }) => true,
            Self::Load(LoadError { reason, .. }) => {
                has_other_limits
                    && (matches!(reason, Refusal::TooLittleMemory { .. })
                        || reason.limit().is_some())
            }
            _ => false,
        }
    }
}
