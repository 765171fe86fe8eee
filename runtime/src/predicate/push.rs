//! Conditions that the probes test themselves.
//!
//! What the kernel cannot test (enriched fields, "contains", lists, long texts) is left out, so that
//! a filter lets through what is wanted and perhaps more; the host then tests the whole condition.

use tipstaff_events::{
    Type,
    filter::{
        ABOVE, BELOW, BYTES, Filter, INVERTED, MAX_PATTERN, MAX_PATTERNS, MAX_TESTS, NEGATED, OR,
        Pattern, SIGNED, TEXT, Test, WHOLE,
    },
};

use super::{Compare, Match, Node, Operator, Predicate, Test as Wanted, Width};
use crate::kind::{From, Repr};

/// Size of a command name in a record.
const COMM: usize = 16;

/// A test with what it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    test: Test,
    pattern: Option<Pattern>,
}

/// Any of these conjunctions; `None`: everything.
type Any = Option<Vec<Vec<Leaf>>>;

/// Makes a condition what the kernel can test.
struct Push {
    /// Nothing was left out so far.
    is_whole: bool,
}

/// The filter for events about which any of these conditions is; `None`: there is none that is worth
/// it, or that has room for all of them.
pub fn filter<'a>(conditions: impl IntoIterator<Item = &'a Predicate>) -> Option<Filter> {
    let mut all = Vec::new();
    for condition in conditions {
        for conjunction in (Push { is_whole: true }).any(&condition.node, false)? {
            if !all.contains(&conjunction) {
                all.push(conjunction);
            }
        }
    }
    encode(&all)
}

impl Predicate {
    /// Whether the kernel tests all of it.
    #[must_use]
    pub fn is_pushed_whole(&self) -> bool {
        let mut push = Push { is_whole: true };
        let any = push.any(&self.node, false);
        push.is_whole && any.is_some_and(|any| encode(&any).is_some())
    }
}

impl Push {
    fn any(&mut self, node: &Node, negated: bool) -> Any {
        match (node, negated) {
            (Node::And(left, right), false) | (Node::Or(left, right), true) => {
                match (self.any(left, negated), self.any(right, negated)) {
                    (None, one) | (one, None) => one,
                    (Some(left), Some(right)) => Some(self.both(left, right)),
                }
            }
            (Node::Or(left, right), false) | (Node::And(left, right), true) => {
                let (left, right) = (self.any(left, negated), self.any(right, negated));
                let mut all = left?;
                all.extend(right?);
                let fits = tests(&all) <= MAX_TESTS;
                self.is_whole &= fits;
                fits.then_some(all)
            }
            (Node::Not(inner), _) => self.any(inner, !negated),
            (Node::Compare(compare), _) => {
                let leaf = leaf(compare, negated);
                self.is_whole &= leaf.as_ref().is_some_and(|(_, is_whole)| *is_whole);
                leaf.map(|(leaf, _)| vec![vec![leaf]])
            }
        }
    }

    /// Each of the one with each of the other; where that is too much, the shorter one alone, which
    /// lets more through.
    fn both(&mut self, left: Vec<Vec<Leaf>>, right: Vec<Vec<Leaf>>) -> Vec<Vec<Leaf>> {
        let each = |one: &Vec<Leaf>| {
            let joined = |other: &Vec<Leaf>| one.iter().chain(other).cloned().collect();
            right.iter().map(joined).collect::<Vec<Vec<Leaf>>>()
        };
        let all: Vec<Vec<Leaf>> = left.iter().flat_map(each).collect();
        if tests(&all) <= MAX_TESTS {
            return all;
        }
        self.is_whole = false;
        if tests(&left) <= tests(&right) { left } else { right }
    }
}

fn tests(any: &[Vec<Leaf>]) -> usize {
    any.iter().map(Vec::len).sum()
}

/// The comparison as the kernel makes it, and whether that is all of it; `None`: it cannot.
fn leaf(compare: &Compare, negated: bool) -> Option<(Leaf, bool)> {
    let From::Record { offset, repr } = compare.from else { return None };
    let mut test = Test {
        at: offset,
        absent: compare.absent,
        flags: if negated { NEGATED } else { 0 },
        ..Test::default()
    };
    let (pattern, is_whole) = match &compare.test {
        Wanted::Number(operator, value, Width { size, signed }) => {
            test.value = if *signed {
                i64::try_from(*value).ok()?.cast_unsigned() ^ 1 << 63
            } else {
                u64::try_from(*value).ok()?
            };
            test.form = size | if *signed { SIGNED } else { 0 };
            test.flags |= match operator {
                Operator::Equal => 0,
                Operator::NotEqual => INVERTED,
                Operator::Less => BELOW,
                Operator::LessOrEqual => ABOVE | INVERTED,
                Operator::Greater => ABOVE,
                Operator::GreaterOrEqual => BELOW | INVERTED,
            };
            (None, true)
        }
        Wanted::Network(network, bits, equal) => {
            test.form = BYTES;
            test.flags |= if *equal { 0 } else { INVERTED };
            (Some(Pattern::new(network, usize::from(*bits))), true)
        }
        Wanted::Text(how, value) => text(&mut test, repr, *how, value, negated)?,
        Wanted::List(..) => return None,
    };
    Some((Leaf { test, pattern }, is_whole))
}

fn text(
    test: &mut Test,
    repr: Repr,
    how: Match,
    value: &[u8],
    negated: bool,
) -> Option<(Option<Pattern>, bool)> {
    let whole = match how {
        Match::Equal | Match::NotEqual => true,
        Match::BeginsWith => false,
        Match::Contains | Match::EndsWith => return None,
    };
    if how == Match::NotEqual {
        test.flags |= INVERTED;
    }
    let mut bytes = value.to_vec();
    match repr {
        Repr::Wire(Type::Text) => {
            test.form = TEXT;
            test.flags |= if whole { WHOLE } else { 0 };
        }
        // An array that ends with a NUL or is full.
        Repr::Wire(Type::Comm) | Repr::Chars(_) if !value.contains(&0) => {
            let room = if let Repr::Chars(size) = repr { usize::from(size) } else { COMM };
            if value.len() > room {
                return None;
            }
            test.form = BYTES;
            if whole && value.len() < room {
                bytes.push(0);
            }
        }
        _ => return None,
    }
    let is_whole = bytes.len() <= MAX_PATTERN;
    if !is_whole {
        // Less of it lets more through only where it is asked for, not where it is excluded.
        if negated || how == Match::NotEqual {
            return None;
        }
        bytes.truncate(MAX_PATTERN);
        test.flags &= !WHOLE;
    }
    Some((Some(Pattern::new(&bytes, bytes.len() * 8)), is_whole))
}

fn encode(any: &[Vec<Leaf>]) -> Option<Filter> {
    let mut filter = Filter::default();
    let mut patterns: Vec<Pattern> = Vec::new();
    let mut count = 0;
    for conjunction in any {
        for (place, leaf) in conjunction.iter().enumerate() {
            let mut test = leaf.test;
            if place == 0 && count > 0 {
                test.flags |= OR;
            }
            if let Some(pattern) = &leaf.pattern {
                let known = patterns.iter().position(|known| known == pattern);
                let index = known.unwrap_or_else(|| {
                    patterns.push(*pattern);
                    patterns.len() - 1
                });
                *filter.patterns.get_mut(index)? = *pattern;
                test.value = index as u64;
            }
            *filter.tests.get_mut(count)? = test;
            count += 1;
        }
    }
    filter.count = count as u64;
    // Without a test it would let everything through.
    (count > 0 && patterns.len() <= MAX_PATTERNS).then_some(filter)
}
