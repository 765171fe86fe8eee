//! A table as the kernel holds it: for each prefix that a rule names, everything that can match there,
//! in the order in which it goes before each other.

use std::{collections::BTreeMap, time::Duration};

use tipstaff_events::guard::{
    BY_DEFAULT, DENY, Entry, MAX_RULES, NODE_ENTRIES, Node, OTHER, TCP, UDP,
};

use super::{Operations, Ports, Prefix, Protocol, Rule, Table, TableError, Verdict};

impl Table {
    /// Whether the kernel's maps can hold it.
    pub fn check(&self) -> Result<(), TableError> {
        self.nodes(Duration::ZERO).map(drop)
    }

    /// The nodes, `::/0` always among them. `now`: on the clock that counts suspend.
    pub(crate) fn nodes(&self, now: Duration) -> Result<Vec<(Prefix, Node)>, TableError> {
        let rules = self.rules.len() + self.always.len();
        if rules > usize::from(MAX_RULES) {
            return Err(TableError::TooManyRules { rules });
        }
        let mut places: BTreeMap<Prefix, Here> = BTreeMap::new();
        places.entry(Prefix::ANY).or_default();
        for rule in &self.always {
            // The index is told of denials only.
            places.entry(rule.prefix).or_default().always.push(entry(rule, BY_DEFAULT, now));
        }
        for (index, rule) in (0_u16..).zip(&self.rules) {
            places.entry(rule.prefix).or_default().rules.push((index, rule));
        }
        let default = Entry {
            rule: BY_DEFAULT,
            ..of(Operations::ANY, Protocol::Any, Ports::ANY, self.default)
        };
        // Prefixes come in an order in which each stands behind those that cover it.
        let mut above: Vec<(Prefix, List, List)> = Vec::new();
        let mut nodes = Vec::with_capacity(places.len());
        for (prefix, mut here) in places {
            while above.last().is_some_and(|(other, ..)| !other.covers(&prefix)) {
                above.pop();
            }
            here.rules.sort_by_key(|(index, rule)| (rule.precedence(), *index));
            let (mut always, mut below) = (List::default(), List::default());
            let nearest = above.last();
            here.always.into_iter().for_each(|entry| always.push(entry));
            if let Some((_, list, _)) = nearest {
                always.extend(list);
            }
            here.rules.iter().for_each(|(index, rule)| below.push(entry(rule, *index, now)));
            match nearest {
                Some((.., list)) => below.extend(list),
                None => below.push(default),
            }
            let mut list = List::default();
            list.extend(&always);
            list.extend(&below);
            // A list that was cut lacks its end, also where others hide what it has.
            if [&always, &below, &list].iter().any(|list| list.0.len() > NODE_ENTRIES) {
                return Err(TableError::Crowded { prefix });
            }
            let mut node = Node::default();
            node.entries[..list.0.len()].copy_from_slice(&list.0);
            nodes.push((prefix, node));
            above.push((prefix, always, below));
        }
        Ok(nodes)
    }
}

/// The rules of one prefix.
#[derive(Default)]
struct Here<'a> {
    always: Vec<Entry>,
    rules: Vec<(u16, &'a Rule)>,
}

/// Entries of which each can decide something that those before it do not.
#[derive(Default)]
struct List(Vec<Entry>);

impl List {
    fn push(&mut self, entry: Entry) {
        // One more than fits is enough to know that it does not.
        if self.0.len() <= NODE_ENTRIES && !self.0.iter().any(|before| hides(before, &entry)) {
            self.0.push(entry);
        }
    }

    fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|entry| self.push(*entry));
    }
}

/// Whether everything that the second one matches is decided by the first.
fn hides(first: &Entry, second: &Entry) -> bool {
    let (what, hidden) = (first.what & !DENY, second.what & !DENY);
    first.expires == 0
        && what & hidden == hidden
        && first.first <= second.first
        && second.last <= first.last
}

fn entry(rule: &Rule, index: u16, now: Duration) -> Entry {
    Entry {
        rule: index,
        expires: rule.ttl.map_or(0, |ttl| nanoseconds(now.saturating_add(ttl)).max(1)),
        ..of(rule.operations, rule.protocol, rule.ports, rule.verdict)
    }
}

fn of(operations: Operations, protocol: Protocol, ports: Ports, verdict: Verdict) -> Entry {
    let protocols = match protocol {
        Protocol::Any => TCP | UDP | OTHER,
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    let verdict = if verdict == Verdict::Deny { DENY } else { 0 };
    Entry {
        first: ports.first(),
        last: ports.last(),
        what: operations.bits() | protocols | verdict,
        ..Entry::default()
    }
}

/// As the kernel has times.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
