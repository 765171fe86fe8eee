//! `[policy.NAME.filter]`: conditions that the operator puts on the events that a policy gets.

use std::path::Path;

use super::{
    document::{At, Node, Reader, Value},
    problem::{Problem, Problems},
    value::no_such,
};
use crate::{kind::Kinds, plan::Plan, predicate::Predicate};

/// Conditions by kind of event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<(String, At<String>)>);

impl Value for Filter {
    fn expected() -> String {
        "conditions by event kind, such as `exec = \"uid >= 1000\"`".to_owned()
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !node.value.is_table() {
            reader.mismatch::<Self>(node);
            return None;
        }
        let mut conditions = Vec::new();
        for (kind, span, entry) in node.entries() {
            if let Some(condition) = entry.value.as_str() {
                let line = reader.line(span.start);
                conditions.push((kind.to_owned(), At { value: condition.to_owned(), line }));
            } else {
                reader.mismatch::<Self>(&entry);
            }
        }
        Some(Self(conditions))
    }
}

impl Filter {
    /// Puts the conditions on a policy's plan. All that is wrong with them, or nothing. `file` is the
    /// configuration file, for the messages.
    pub fn apply(
        &self,
        policy: &str,
        plan: &mut Plan,
        kinds: &Kinds,
        file: Option<&Path>,
    ) -> Result<(), Problems> {
        let mut problems = Vec::new();
        for (name, condition) in &self.0 {
            let mut refuse =
                |message| problems.push(problem(policy, name, condition, file, message));
            let Some(kind) = kinds.named(name) else {
                let names: Vec<_> = kinds.iter().map(|kind| &*kind.name).collect();
                refuse(no_such("event kind", name, &names));
                continue;
            };
            match Predicate::parse(&condition.value, kind) {
                Ok(predicate) if predicate.is_never() => {
                    refuse(format!("`{}` holds for no event", condition.value));
                }
                Ok(predicate) => plan.restrict(kind.id, &predicate),
                Err(error) => refuse(error.to_string()),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// What is wrong with the conditions on built-in kinds: others are only known on the kernel that
    /// has them.
    pub(super) fn check(
        &self,
        policy: &str,
        probes: &[super::Probe],
        file: Option<&Path>,
    ) -> Vec<Problem> {
        let known =
            self.0.iter().filter(|(kind, _)| !probes.iter().any(|probe| probe.name == *kind));
        let known = Self(known.cloned().collect());
        let wrong = known.apply(policy, &mut Plan::default(), &Kinds::built_in(), file);
        wrong.err().map_or_else(Vec::new, |problems| problems.0)
    }
}

fn problem(
    policy: &str,
    kind: &str,
    condition: &At<String>,
    file: Option<&Path>,
    message: String,
) -> Problem {
    Problem {
        file: file.unwrap_or(Path::new("")).to_owned(),
        line: Some(condition.line),
        key: format!("policy.{policy}.filter.{kind}"),
        message,
    }
}
