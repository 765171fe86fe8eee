//! Binding a manifest's subscriptions to the kinds of this agent.

use super::{Bound, EVERY_NS, Error, Plan, layout, want, want_for_table};
use std::sync::Arc;

use tipstaff_events::{Role, catalogue, sample::Sample, wire};

use crate::{
    fold::Fold,
    kind::{Field, From, Kind, Kinds, is_within},
    manifest::Subscription,
    nearest,
    predicate::Predicate,
};

/// Most subscriptions of a policy: the index in a row has one byte.
const MOST_SUBSCRIPTIONS: usize = 256;
/// Most fields of a subscription.
const MOST_FIELDS: usize = 64;
/// Most optional fields of a subscription: the mask in a row has 32 bits.
const MOST_OPTIONAL: usize = 32;

/// Binds what a policy asks for to what is there. `withheld` names fields that the operator does
/// not give to it: `FIELD` for every event, or `EVENT:FIELD` for one. A name before a dot stands for
/// all fields below it.
pub fn bind(
    policy: &str,
    subscriptions: &[Subscription],
    kinds: &Kinds,
    withheld: &[String],
) -> Result<Plan, Error> {
    Binding { policy, kinds, withheld, marks_cuts: false }.bind_all(subscriptions)
}

/// The same for who decodes rows: a mask behind the fields says which of them were cut, and
/// [`crate::project::Projection::cuts_at`] where it is.
pub fn bind_to_decode(
    policy: &str,
    subscriptions: &[Subscription],
    kinds: &Kinds,
) -> Result<Plan, Error> {
    Binding { policy, kinds, withheld: &[], marks_cuts: true }.bind_all(subscriptions)
}

struct Binding<'a> {
    policy: &'a str,
    kinds: &'a Kinds,
    withheld: &'a [String],
    marks_cuts: bool,
}

impl Binding<'_> {
    fn bind_all(&self, subscriptions: &[Subscription]) -> Result<Plan, Error> {
        self.check_withheld()?;
        if subscriptions.len() > MOST_SUBSCRIPTIONS {
            return Err(self.too_many("subscriptions", subscriptions.len(), MOST_SUBSCRIPTIONS));
        }
        let mut plan = Plan::default();
        for (index, subscription) in (0..=u8::MAX).zip(subscriptions) {
            let bound = self.bind(index, subscription, &mut plan)?;
            plan.subscriptions.push(bound.map(Arc::new));
        }
        Ok(plan)
    }

    fn bind(
        &self,
        index: u8,
        subscription: &Subscription,
        plan: &mut Plan,
    ) -> Result<Option<Bound>, Error> {
        let event = &subscription.event;
        let Some(kind) = self.kinds.named(event) else {
            if subscription.optional {
                plan.notes
                    .push(format!("there is no event `{event}` here; the policy does without it"));
                return Ok(None);
            }
            let hint = nearest::hint(event, self.kinds.iter().map(|kind| kind.name.as_ref()));
            return Err(Error::NoEvent {
                policy: self.policy.into(),
                event: event.as_str().into(),
                hint: hint.into(),
            });
        };
        let sample = subscription.sample;
        if sample != Sample::ALL && kind.is_aggregated() {
            return Err(Error::Sample { policy: self.policy.into(), event: event.as_str().into() });
        }
        let optional = subscription.fields.iter().filter(|ask| ask.optional).count();
        if optional > MOST_OPTIONAL {
            return Err(Error::TooManyOptional {
                policy: self.policy.into(),
                event: event.as_str().into(),
                count: optional,
            });
        }
        if subscription.fields.len() > MOST_FIELDS {
            return Err(self.too_many(
                "fields of one event",
                subscription.fields.len(),
                MOST_FIELDS,
            ));
        }
        if subscription.every_ns.is_some() && !kind.is_aggregated() {
            return Err(Error::Every { policy: self.policy.into(), event: event.as_str().into() });
        }
        if subscription.urgent && kind.is_aggregated() {
            return Err(Error::Urgent { policy: self.policy.into(), event: event.as_str().into() });
        }
        let mut roles = Vec::new();
        let mut layout = layout::Layout::new(kind, index);
        // fork, exec and exit stay where they are in order with each other; that ring is drained first.
        let has_ring = subscription.urgent && kind.id > catalogue::exit::KIND;
        want(&mut plan.wanted, kind.id, if has_ring { wire::URGENT_BIT } else { 0 });
        for ask in &subscription.fields {
            let field = self.find(kind, ask, plan)?;
            roles.push(field.map_or(Role::Key, |field| field.role));
            if let Some(field) = field {
                let conversion =
                    layout::conversion(field, ask.ty).map_err(|(is, instead)| Error::Type {
                        policy: self.policy.into(),
                        event: event.as_str().into(),
                        field: ask.name.as_str().into(),
                        ty: ask.ty,
                        is,
                        instead,
                    })?;
                if conversion.is_narrowing() {
                    plan.notes.push(format!(
                        "field `{}` of event `{event}` is wider than `{}`; a value that does not fit is {}",
                        ask.name,
                        ask.ty,
                        if ask.optional { "absent" } else { "clipped and flagged" },
                    ));
                }
                want(&mut plan.wanted, kind.id, field.wanted);
                if let From::Table(enriched) = field.from {
                    want_for_table(enriched, &mut plan.wanted);
                }
                layout.push(ask, Some((field, conversion)));
            } else {
                layout.push(ask, None);
            }
        }
        if self.marks_cuts {
            layout.push_cuts();
        }
        let (projection, columns) = layout.finish();
        let every = subscription.every_ns.unwrap_or(EVERY_NS);
        let fold = kind.is_aggregated().then(|| Fold::new(&columns, &roles, every));
        let urgent = subscription.urgent;
        let mut bound =
            Bound { index, kind: kind.id, projection, columns, filter: None, fold, urgent, sample };
        if let Some(condition) = &subscription.condition {
            let filter = self.condition(kind, condition)?;
            if filter.is_never() {
                plan.notes.push(format!("`{condition}` holds for no event `{event}`"));
            }
            bound.set_filter(filter, &mut plan.wanted);
        }
        Ok(Some(bound))
    }

    /// The condition of a subscription. What is withheld cannot be found out by asking about it.
    fn condition(&self, kind: &Kind, condition: &str) -> Result<Predicate, Error> {
        let filter = Predicate::parse(condition, kind).map_err(|error| Error::Condition {
            policy: self.policy.into(),
            event: kind.name.as_ref().into(),
            reason: error.to_string().into(),
        })?;
        for field in kind.fields.iter().filter(|field| filter.compares(field)) {
            if let Some(line) = self.withholding(kind, &field.name) {
                return Err(self.withheld(kind, &field.name, line));
            }
        }
        Ok(filter)
    }

    /// The line of the configuration that withholds a field.
    fn withholding(&self, kind: &Kind, name: &str) -> Option<String> {
        self.withheld
            .iter()
            .find(|denied| match denied.split_once(':') {
                Some((of, denied)) => *of == *kind.name && is_within(name, denied),
                None => is_within(name, denied),
            })
            .map(|denied| format!("deny_fields = [\"{denied}\"] under [policy.{}]", self.policy))
    }

    fn withheld(&self, kind: &Kind, field: &str, line: String) -> Error {
        Error::Withheld {
            policy: self.policy.into(),
            event: kind.name.as_ref().into(),
            field: field.into(),
            line: line.into(),
        }
    }

    /// The field that is asked for; `None` if the policy does without it.
    fn find<'k>(
        &self,
        kind: &'k Kind,
        ask: &crate::manifest::Ask,
        plan: &mut Plan,
    ) -> Result<Option<&'k Field>, Error> {
        let name = &ask.name;
        match (kind.field(name), self.withholding(kind, name)) {
            (Some(field), None) => Ok(Some(field)),
            (Some(_), Some(line)) => {
                if !ask.optional {
                    return Err(self.withheld(kind, name, line));
                }
                plan.notes.push(format!(
                    "field `{name}` of event `{}` is withheld by `{line}`",
                    kind.name
                ));
                Ok(None)
            }
            (None, _) if ask.optional => {
                plan.notes.push(format!(
                    "event `{}` has no field `{name}` here; it is absent",
                    kind.name
                ));
                Ok(None)
            }
            (None, _) => Err(Error::NoField {
                policy: self.policy.into(),
                event: kind.name.as_ref().into(),
                field: name.as_str().into(),
                ty: ask.ty,
                hint: nearest::hint(name, kind.fields.iter().map(|field| field.name.as_ref()))
                    .into(),
            }),
        }
    }

    fn check_withheld(&self) -> Result<(), Error> {
        let is_known = |denied: &str| {
            self.kinds.iter().any(|kind| match denied.split_once(':') {
                Some((of, denied)) => *of == *kind.name && kind.has_within(denied),
                None => kind.has_within(denied),
            })
        };
        match self.withheld.iter().find(|denied| !is_known(denied)) {
            None => Ok(()),
            Some(denied) => {
                let mut names = Vec::new();
                for kind in self.kinds.iter() {
                    for field in &kind.fields {
                        names.extend([
                            field.name.to_string(),
                            format!("{}:{}", kind.name, field.name),
                        ]);
                    }
                }
                Err(Error::WithheldUnknown {
                    policy: self.policy.into(),
                    field: denied.as_str().into(),
                    hint: nearest::hint(denied, names.iter().map(String::as_str)).into(),
                })
            }
        }
    }

    fn too_many(&self, what: &'static str, count: usize, most: usize) -> Error {
        Error::TooMany { policy: self.policy.into(), what, count, most }
    }
}
