//! Why a policy's subscriptions do not fit this agent.

use crate::manifest::AskType;

/// Why a policy's subscriptions do not fit this agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A required kind that does not exist here.
    #[error(
        "policy `{policy}`: there is no event `{event}` here{hint}; `tipstaff events --list` shows \
         all; write `optional = true` if the policy can do without it"
    )]
    NoEvent {
        /// Name of the policy.
        policy: Box<str>,
        /// Name that was asked for.
        event: Box<str>,
        /// The nearest name.
        hint: Box<str>,
    },
    /// A required field that does not exist here.
    #[error(
        "policy `{policy}`: event `{event}` has no field `{field}` here{hint}; write `Option<...>` \
         (`{field}:{ty}?` in the manifest) if the policy can do without it"
    )]
    NoField {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
        /// Name that was asked for.
        field: Box<str>,
        /// Type that was asked for.
        ty: AskType,
        /// The nearest name.
        hint: Box<str>,
    },
    /// A field that cannot be had as that type.
    #[error(
        "policy `{policy}`: field `{field}` of event `{event}` is {is}, not `{ty}`; ask for {instead}"
    )]
    Type {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
        /// The field.
        field: Box<str>,
        /// Type that was asked for.
        ty: AskType,
        /// What it is.
        is: &'static str,
        /// What can be asked for.
        instead: &'static str,
    },
    /// A required field that the operator withholds.
    #[error(
        "policy `{policy}`: field `{field}` of event `{event}` is withheld by `{line}`; remove it \
         there to give it to the policy"
    )]
    Withheld {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
        /// The field.
        field: Box<str>,
        /// The line of the configuration that withholds it.
        line: Box<str>,
    },
    /// A condition that does not fit the kind.
    #[error("policy `{policy}`: `where` of event `{event}`: {reason}")]
    Condition {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// A name in `deny_fields` that no kind has: what was meant would not be withheld.
    #[error("policy `{policy}`: deny_fields names `{field}`, which no event has{hint}")]
    WithheldUnknown {
        /// Name of the policy.
        policy: Box<str>,
        /// The name.
        field: Box<str>,
        /// The nearest name.
        hint: Box<str>,
    },
    /// More optional fields than a row has bits for.
    #[error(
        "policy `{policy}`: event `{event}` is asked for with {count} optional fields, 32 at most are possible"
    )]
    TooManyOptional {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
        /// How many.
        count: usize,
    },
    /// A time between rows for events that come when they happen.
    #[error(
        "policy `{policy}`: event `{event}` is not an aggregated one, which `every` is for; remove `every`, and use `tick` for regular calls"
    )]
    Every {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
    },
    /// Rows that are added up over a time, asked for at once.
    #[error(
        "policy `{policy}`: event `{event}` is an aggregated one, whose rows come at a tick and not at once; remove `urgent`"
    )]
    Urgent {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
    },
    /// A sample of rows that are sums already.
    #[error(
        "policy `{policy}`: event `{event}` is an aggregated one, whose rows are sums of all events; remove `sample`"
    )]
    Sample {
        /// Name of the policy.
        policy: Box<str>,
        /// The event.
        event: Box<str>,
    },
    /// More subscriptions than a row's index can tell apart, or more fields than a row can hold.
    #[error("policy `{policy}`: {count} {what} are asked for, {most} at most are possible")]
    TooMany {
        /// Name of the policy.
        policy: Box<str>,
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are possible.
        most: usize,
    },
}
