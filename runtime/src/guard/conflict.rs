//! Where two policies are at odds: one allows what the other one denies, and the denial counts. Told, so
//! that nobody looks for it in the wrong place.

use std::collections::{BTreeSet, HashMap};

use super::{NameRule, Prefix, Protocol, Rule, Table, Verdict};

/// Most pairs of rules that are counted; the rest is "more".
const MOST: usize = 1000;

/// What one table allows and another one denies, in words; nothing if they agree.
#[must_use]
pub fn denied_elsewhere(allows: &Table, denies: &Table) -> Option<String> {
    let allowing: Vec<&Rule> = with(allows, Verdict::Allow).collect();
    let pairs = overlaps(&allowing, &with(denies, Verdict::Deny).collect::<Vec<_>>());
    if let Some((allow, deny)) = pairs.first() {
        let more = match pairs.len() - 1 {
            0 => String::new(),
            MOST.. => format!(" (and more than {MOST} others)"),
            more => format!(" (and {more} more)"),
        };
        return Some(format!("`{deny}` denies what `{allow}` allows{more}"));
    }
    if let Some(what) = name_denied(allows, denies) {
        return Some(what);
    }
    let denies_by_default = denies.default == Verdict::Deny;
    let allow = allowing.first().filter(|_| denies_by_default);
    if let Some(allow) = allow
        && !with(denies, Verdict::Allow).any(|other| covers(other, allow))
    {
        return Some(format!("`default deny` may deny what `{allow}` allows"));
    }
    None
}

/// A name that one allows and the other one denies. Only pairs of which one covers the other have
/// something in common.
fn name_denied(allows: &Table, denies: &Table) -> Option<String> {
    let with = |table: &Table, verdict| -> Vec<NameRule> {
        table.names.iter().filter(|rule| rule.verdict == verdict).cloned().collect()
    };
    let allowing = with(allows, Verdict::Allow);
    let denying = with(denies, Verdict::Deny);
    let met = |allow: &NameRule| {
        let meets =
            |deny: &&NameRule| deny.names.covers(&allow.names) || allow.names.covers(&deny.names);
        denying.iter().find(meets).map(|deny| format!("`{deny}` denies what `{allow}` allows"))
    };
    if let Some(what) = allowing.iter().take(MOST).find_map(met) {
        return Some(what);
    }
    // Without rules about names the other one does not judge them.
    let judges = denies.default == Verdict::Deny && !denies.names.is_empty();
    let has_rule =
        |allow: &&NameRule| !denies.names.iter().any(|rule| rule.names.covers(&allow.names));
    let allow = allowing.iter().take(MOST).find(has_rule).filter(|_| judges)?;
    Some(format!("`default deny` may deny what `{allow}` allows"))
}

fn with(table: &Table, verdict: Verdict) -> impl Iterator<Item = &Rule> {
    table.rules.iter().filter(move |rule| rule.verdict == verdict)
}

fn covers(rule: &Rule, other: &Rule) -> bool {
    rule.prefix.covers(&other.prefix) && meet(rule, other)
}

/// Whether operations, protocols and ports have something in common.
fn meet(a: &Rule, b: &Rule) -> bool {
    let protocols =
        a.protocol == b.protocol || a.protocol == Protocol::Any || b.protocol == Protocol::Any;
    protocols
        && a.ports.first() <= b.ports.last()
        && b.ports.first() <= a.ports.last()
        && a.operations.meets(b.operations)
}

/// Pairs of rules that are about the same connections. One prefix covers another or has nothing in common
/// with it: each rule is looked for by the lengths that there are.
fn overlaps<'a>(one: &[&'a Rule], other: &[&'a Rule]) -> Vec<(&'a Rule, &'a Rule)> {
    let mut pairs = Vec::new();
    let by_prefix = |rules: &[&'a Rule]| {
        let mut map: HashMap<Prefix, Vec<&'a Rule>> = HashMap::new();
        for rule in rules {
            map.entry(rule.prefix).or_default().push(rule);
        }
        map
    };
    let mut look = |from: &[&'a Rule], into: &[&'a Rule], same: bool, turned: bool| {
        let map = by_prefix(into);
        let lengths: BTreeSet<u8> = map.keys().map(Prefix::length).collect();
        for &rule in from {
            for &length in lengths.iter().filter(|length| {
                **length < rule.prefix.length() || (same && **length == rule.prefix.length())
            }) {
                let wider = rule.prefix.widened(length);
                for &found in
                    map.get(&wider).into_iter().flatten().filter(|found| meet(found, rule))
                {
                    pairs.push(if turned { (found, rule) } else { (rule, found) });
                    if pairs.len() > MOST {
                        return;
                    }
                }
            }
        }
    };
    look(one, other, true, false);
    look(other, one, false, true);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(allows: &str, denies: &str) -> Option<String> {
        denied_elsewhere(&allows.parse().unwrap(), &denies.parse().unwrap())
    }

    #[test]
    fn what_one_allows_and_the_other_denies_is_told_whichever_is_wider() {
        let allows = "default deny\nallow any tcp 192.0.2.0/24 443";
        for denies in [
            "default allow\ndeny connect any 192.0.2.7",
            "default allow\ndeny any any 192.0.0.0/16",
            "default allow\ndeny any any 192.0.2.0/24 1-1023",
        ] {
            let deny = denies.lines().nth(1).unwrap();
            assert_eq!(
                told(allows, denies).unwrap(),
                format!("`{deny}` denies what `allow any tcp 192.0.2.0/24 443` allows")
            );
        }
        for agrees in [
            "default allow",
            "default allow\ndeny any udp 192.0.2.7",
            "default allow\ndeny any tcp 192.0.2.7 80",
            "default allow\ndeny any any 192.0.3.0/24",
            "default deny\nallow any any 192.0.0.0/16",
        ] {
            assert_eq!(told(allows, agrees), None, "{agrees}");
        }
        assert_eq!(
            told(allows, "default deny\nallow any udp").unwrap(),
            "`default deny` may deny what `allow any tcp 192.0.2.0/24 443` allows"
        );
    }

    #[test]
    fn names_that_one_allows_and_the_other_denies_are_told() {
        let allows = "default deny\nallow name a.example";
        for denies in ["deny name *.a.example", "deny name example", "deny name *"] {
            let what = told(allows, &format!("default allow\n{denies}")).unwrap();
            assert_eq!(what, format!("`{denies}` denies what `allow name a.example` allows"));
        }
        assert_eq!(told(allows, "default allow\ndeny name b.example"), None);
        let what = told(allows, "default deny\nallow name b.example").unwrap();
        assert_eq!(what, "`default deny` may deny what `allow name a.example` allows");
        assert_eq!(told(allows, "default deny\nallow name example"), None);
    }

    #[test]
    fn many_rules_are_compared_in_no_time_that_matters() {
        let rules = |verdict: &str, last: u8| {
            let rule = |n| format!("{verdict} any tcp 10.{}.{}.{last}\n", n / 250, n % 250);
            format!("default allow\n{}", (0..10_000).map(rule).collect::<String>())
        };
        assert_eq!(told(&rules("allow", 1), &rules("deny", 2)), None);
        let all = told(&rules("allow", 1), "default allow\ndeny any any 10.0.0.0/8").unwrap();
        assert!(all.ends_with("allows (and more than 1000 others)"), "{all}");
    }
}
