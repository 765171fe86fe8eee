//! Conditions that hold for no event: most likely a mistake.

use super::{Compare, Match, Node, Operator, Predicate, Test, Width};

/// Most conjunctions that are looked at: a condition with more is taken for one that can hold.
const MOST: usize = 64;

/// A comparison, and whether it stands under `not`.
type Leaf<'a> = (&'a Compare, bool);

impl Predicate {
    /// Whether no event can fulfil it. What is found: numbers outside of their type or of each
    /// other's range, and texts that would have to be two things at once.
    #[must_use]
    pub fn is_never(&self) -> bool {
        let all = any(&self.node, false);
        all.len() <= MOST && all.iter().all(|conjunction| is_never(conjunction))
    }
}

/// Any of these conjunctions; more than [`MOST`] are not all of them.
fn any(node: &Node, negated: bool) -> Vec<Vec<Leaf<'_>>> {
    match (node, negated) {
        (Node::And(left, right), false) | (Node::Or(left, right), true) => {
            let (left, right) = (any(left, negated), any(right, negated));
            let each = |one: &Vec<_>| {
                let joined = |other: &Vec<_>| one.iter().chain(other).copied().collect();
                right.iter().map(joined).collect::<Vec<_>>()
            };
            left.iter().flat_map(each).take(MOST + 1).collect()
        }
        (Node::Or(left, right), false) | (Node::And(left, right), true) => {
            let mut all = any(left, negated);
            all.extend(any(right, negated));
            all.truncate(MOST + 1);
            all
        }
        (Node::Not(inner), _) => any(inner, !negated),
        (Node::Compare(compare), _) => vec![vec![(compare, negated)]],
    }
}

fn is_never(conjunction: &[Leaf<'_>]) -> bool {
    // What is negated holds also where there is no value.
    let asked = || conjunction.iter().filter(|(_, negated)| !negated).map(|(compare, _)| compare);
    asked().any(|compare| {
        let same = || asked().filter(|other| other.from == compare.from);
        match &compare.test {
            Test::Number(_, _, width) => {
                let (low, high) = same().fold(width.range(), |(low, high), other| {
                    let (least, greatest) = other.range();
                    (low.max(least), high.min(greatest))
                });
                low > high
            }
            Test::Text(Match::Equal, one) => same().any(|other| {
                matches!(&other.test, Test::Text(how, value)
                    if !how.holds(one, value))
            }),
            _ => false,
        }
    })
}

impl Width {
    fn range(self) -> (i128, i128) {
        let bits = u32::from(self.size) * 8;
        if self.signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
    }
}

impl Compare {
    /// The numbers that it holds for, as far as that is one range.
    fn range(&self) -> (i128, i128) {
        match self.test {
            Test::Number(Operator::Equal, value, _) => (value, value),
            Test::Number(Operator::Less, value, _) => (i128::MIN, value - 1),
            Test::Number(Operator::LessOrEqual, value, _) => (i128::MIN, value),
            Test::Number(Operator::Greater, value, _) => (value + 1, i128::MAX),
            Test::Number(Operator::GreaterOrEqual, value, _) => (value, i128::MAX),
            _ => (i128::MIN, i128::MAX),
        }
    }
}
