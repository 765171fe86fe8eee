use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use proptest::prelude::*;
use tipstaff_events::guard::{BY_DEFAULT, MAX_RULES, NODE_ENTRIES, OTHER, TCP, UDP};

use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn table(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_rule_is_read_as_it_is_written() {
    let full = rule("deny connect,send tcp 10.0.0.0/8 443 # no database");
    assert_eq!(full.verdict, Verdict::Deny);
    assert_eq!(full.operations, Operations::from(Operation::Connect) | Operation::Send.into());
    assert_eq!(full.protocol, Protocol::Tcp);
    assert_eq!(full.prefix, Prefix::new(ip("10.0.0.0"), 8).unwrap());
    assert_eq!(full.prefix.length(), 104);
    assert_eq!(full.ports, 443.into());
    assert_eq!(full.reason, "no database");
    assert_eq!(full.ttl, None);
}

#[test]
fn parts_that_are_missing_stand_for_all() {
    for (text, same) in [
        ("deny", "deny any any any any"),
        ("allow any any ::/0 1-1023", "allow any any any 1-1023"),
        ("deny connect any 192.0.2.7", "deny connect any 192.0.2.7/32 0-65535"),
        ("  deny\tsend,connect   udp ", "deny connect,send udp ::/0"),
        ("deny any any ::ffff:10.0.0.0/104", "deny any any 10.0.0.0/8"),
        ("deny bind,connect,send", "deny"),
    ] {
        assert_eq!(rule(text), rule(same), "{text}");
    }
}

#[test]
fn a_rule_is_written_as_short_as_it_can_be() {
    for text in [
        "deny any",
        "allow connect",
        "deny connect,send tcp",
        "deny any any 10.0.0.0/8",
        "deny any any 10.0.0.1",
        "deny bind any ::1 80",
        "allow any any ::/0 1-1023",
        "deny any any ::fffe:0:0/95",
        "deny any any 0.0.0.0/0 # IPv4 # all of it",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
}

#[test]
fn a_rule_that_is_none_says_which_part_is_wrong() {
    for (text, message) in [
        ("", "verdict: expected `allow` or `deny`, found ``"),
        ("drop", "verdict: expected `allow` or `deny`, found `drop`"),
        (
            "deny connect,listen",
            "operations: expected `any`, or some of connect, send and bind with commas between them, \
             found `connect,listen`",
        ),
        (
            "deny connect,",
            "operations: expected `any`, or some of connect, send and bind with commas between them, \
             found `connect,`",
        ),
        ("deny any icmp", "protocol: expected `any`, `tcp` or `udp`, found `icmp`"),
        (
            "deny any tcp example.org",
            "prefix: expected an address, or a network such as 10.0.0.0/8 or 2001:db8::/32, found \
             `example.org`",
        ),
        (
            "deny any tcp 10.0.0.0/33",
            "prefix: expected a length of 0 to 32 behind the /, found `10.0.0.0/33`",
        ),
        ("deny any tcp ::/+3", "prefix: expected a length of 0 to 128 behind the /, found `::/+3`"),
        (
            "deny any tcp 10.1.2.3/8",
            "prefix: expected 10.0.0.0/8 (the network) or 10.1.2.3 (the address), found `10.1.2.3/8`",
        ),
        (
            "deny any tcp any 65536",
            "ports: expected a port, or a range such as 1024-65535, found `65536`",
        ),
        (
            "deny any tcp any 20-10",
            "ports: expected a port, or a range such as 1024-65535, found `20-10`",
        ),
        ("deny any tcp any 1 2", "end of the rule: expected nothing behind the ports, found `2`"),
    ] {
        assert_eq!(text.parse::<Rule>().unwrap_err().to_string(), message, "{text}");
    }
    let long = format!("deny # {}", "x".repeat(MAX_REASON + 1));
    assert!(long.parse::<Rule>().is_err());
    assert!("deny # a\u{7}b".parse::<Rule>().is_err());
}

#[test]
fn a_table_is_read_with_its_default_and_says_the_line_of_an_error() {
    let read =
        table("# ours\n\n  default deny # all else\n  allow any tcp 192.0.2.1 # it\nallow bind\n");
    assert_eq!(read.default, Verdict::Deny);
    assert_eq!(read.default_reason, "all else");
    assert_eq!(read.rules, [rule("allow any tcp 192.0.2.1 # it"), rule("allow bind")]);
    for (text, message) in [
        ("allow any", "no default; write `default allow` or `default deny` on a line of its own"),
        ("default allow\n\ndrop", "line 3: verdict: expected `allow` or `deny`, found `drop`"),
        ("default", "line 1: verdict: expected `allow` or `deny`, found ``"),
        (
            "default deny tcp",
            "line 1: end of the default: expected nothing behind the verdict, found `tcp`",
        ),
        (
            "default deny\ndeny any\ndefault deny",
            "line 3: a second default; the first one is in line 1",
        ),
    ] {
        assert_eq!(text.parse::<Table>().unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn the_longest_prefix_goes_first_then_the_narrowest_ports_then_deny_then_the_first() {
    use Operation::*;
    let table = table(
        "default deny\n\
         allow any any 10.0.0.0/8\n\
         deny any any 10.0.0.0/8 20-30\n\
         allow any tcp 10.0.0.0/8 22\n\
         deny any any 10.1.0.0/16\n\
         allow any any 10.1.0.0/16\n\
         deny connect any 10.1.0.0/16\n\
         allow send udp ::1 53\n\
         deny any any 10.0.0.0/8 29-39",
    );
    for (operation, protocol, address, port, verdict, by) in [
        (Connect, Protocol::Tcp, "10.9.0.1", 80, Verdict::Allow, By::Rule(0)),
        (Connect, Protocol::Tcp, "10.9.0.1", 21, Verdict::Deny, By::Rule(1)),
        (Connect, Protocol::Tcp, "10.9.0.1", 22, Verdict::Allow, By::Rule(2)),
        (Connect, Protocol::Udp, "10.9.0.1", 22, Verdict::Deny, By::Rule(1)),
        (Connect, Protocol::Any, "10.9.0.1", 30, Verdict::Deny, By::Rule(1)),
        (Connect, Protocol::Tcp, "10.1.0.1", 22, Verdict::Deny, By::Rule(3)),
        (Connect, Protocol::Tcp, "::ffff:10.1.0.1", 22, Verdict::Deny, By::Rule(3)),
        (Send, Protocol::Udp, "::1", 53, Verdict::Allow, By::Rule(6)),
        (Connect, Protocol::Udp, "::1", 53, Verdict::Deny, By::Default),
        (Bind, Protocol::Tcp, "0.0.0.0", 0, Verdict::Deny, By::Default),
    ] {
        let decided = table.decide(Duration::ZERO, operation, protocol, ip(address), port);
        assert_eq!(decided, (verdict, by), "{operation} {protocol} {address} {port}");
    }
    assert_eq!(table.reason(By::Default), "");
}

#[test]
fn what_the_operator_always_allows_goes_before_the_narrowest_rule() {
    let mut table = table("default deny\ndeny any any 10.0.0.53 53 # mine");
    table.always.push(Rule::always_allow("udp 10.0.0.0/8 53").unwrap());
    let decide =
        |protocol| table.decide(Duration::ZERO, Operation::Send, protocol, ip("10.0.0.53"), 53);
    assert_eq!(decide(Protocol::Udp), (Verdict::Allow, By::Always(0)));
    assert_eq!(decide(Protocol::Tcp), (Verdict::Deny, By::Rule(0)));
    assert_eq!(table.reason(By::Rule(0)), "mine");
    assert!(Rule::always_allow("allow any").is_err());
}

#[test]
fn a_reason_that_was_not_read_from_text_stays_on_its_line() {
    let rule = Rule { reason: "one\ndefault allow\n".into(), ..rule("deny") };
    assert_eq!(rule.to_string(), "deny any # one default allow");
}

/// What the kernel does: the node of the longest prefix, then the first of its entries.
fn kernel_decides(table: &Table, now: u64, asked: &Asked) -> Option<(Verdict, By)> {
    let nodes = table.nodes(Duration::ZERO).unwrap();
    let covering = nodes.iter().filter(|(prefix, _)| prefix.contains(asked.address));
    let (_, node) = covering.max_by_key(|(prefix, _)| prefix.length()).unwrap();
    let protocol = match asked.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Any => OTHER,
    };
    let operation = Operations::from(asked.operation).bits();
    let entry = node.find(operation | protocol, asked.port, || now)?;
    let verdict = if entry.denies() { Verdict::Deny } else { Verdict::Allow };
    let by = if entry.rule == BY_DEFAULT { By::Default } else { By::Rule(entry.rule.into()) };
    Some((verdict, by))
}

#[derive(Debug, Clone)]
struct Asked {
    operation: Operation,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
}

#[test]
fn a_rule_that_has_expired_leaves_the_verdict_to_the_next_one() {
    let mut table = table("default allow\ndeny any any 10.0.0.0/8\nallow any any 10.0.0.0/8 80");
    table.rules[0].ttl = Some(Duration::from_nanos(100));
    table.rules[1].ttl = Some(Duration::from_nanos(50));
    let asked = |port| Asked {
        operation: Operation::Connect,
        protocol: Protocol::Tcp,
        address: ip("10.1.1.1"),
        port,
    };
    for (now, port, verdict, by) in [
        (49, 80, Verdict::Allow, By::Rule(1)),
        (49, 81, Verdict::Deny, By::Rule(0)),
        (50, 80, Verdict::Deny, By::Rule(0)),
        (99, 80, Verdict::Deny, By::Rule(0)),
        (100, 80, Verdict::Allow, By::Default),
    ] {
        assert_eq!(kernel_decides(&table, now, &asked(port)), Some((verdict, by)), "{now} {port}");
    }
}

#[test]
fn a_table_that_the_kernel_cannot_hold_says_why() {
    let mut many = Table::new(Verdict::Deny);
    // What is hidden by others takes no room.
    let ports = |ports: std::ops::Range<usize>| {
        ports.map(|n| rule(&format!("deny any any 10.0.0.0/8 {n}")))
    };
    many.rules.extend(ports(0..NODE_ENTRIES - 1));
    many.rules.extend(ports(0..NODE_ENTRIES - 1));
    many.check().unwrap();
    many.rules.push(rule("allow any any 10.1.0.0/16 80"));
    let message = many.check().unwrap_err().to_string();
    assert!(message.starts_with("the rules for 10.1.0.0/16, with"), "{message}");
    many.rules.push(rule("allow any any 10.1.0.0/16"));
    many.check().unwrap();
    many.rules = vec![rule("deny"); usize::from(MAX_RULES) + 1];
    let message = many.check().unwrap_err().to_string();
    assert!(message.starts_with("16385 rules, "), "{message}");
    many.rules.pop();
    many.check().unwrap();
}

/// Tables in which much meets.
fn tables() -> impl Strategy<Value = Table> {
    let near = prop::sample::select(vec![
        "::/0",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3",
        "10.1.2.4/30",
        "::1",
        "::/127",
        "2001:db8::/32",
        "2001:db8:8000::/33",
        "2001:db8::1",
    ]);
    let ports = prop_oneof![
        Just(Ports::ANY),
        prop::sample::select(vec![
            (0_u16, 0),
            (53, 53),
            (53, 54),
            (54, 55),
            (50, 60),
            (80, 80),
            (0, 1023)
        ])
        .prop_map(|(a, b)| Ports::new(a..=b).unwrap())
    ];
    let rule = (rules(), near, ports)
        .prop_map(|(rule, prefix, ports)| Rule { prefix: prefix.parse().unwrap(), ports, ..rule })
        .boxed();
    let always = rule.clone().prop_map(|rule| Rule {
        verdict: Verdict::Allow,
        operations: Operations::ANY,
        ..rule
    });
    let lists = (prop::collection::vec(rule, 0..12), prop::collection::vec(always, 0..3));
    (any::<bool>(), lists).prop_map(|(deny, (rules, always))| {
        let default = if deny { Verdict::Deny } else { Verdict::Allow };
        Table { rules, always, ..Table::new(default) }
    })
}

prop_compose! {
    fn asked()(
        operation in prop::sample::select(vec![Operation::Connect, Operation::Send, Operation::Bind]),
        protocol in prop::sample::select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp]),
        address in prop::sample::select(vec![
            "10.1.2.3", "10.1.2.4", "10.1.3.1", "10.200.0.1", "192.0.2.1", "::1", "::", "::ffff:10.1.2.3",
            "2001:db8::1", "2001:db8:8000::1", "fe80::1",
        ]),
        port in prop::sample::select(vec![0_u16, 50, 53, 54, 55, 80, 1023, 65535]),
    ) -> Asked {
        Asked { operation, protocol, address: address.parse().unwrap(), port }
    }
}

prop_compose! {
    fn prefixes()(v4 in any::<bool>(), bits in any::<u128>(), length in 0_u8..=128) -> Prefix {
        let address = Ipv6Addr::from_bits(bits);
        if v4 {
            let [.., a, b, c, d] = address.octets();
            Prefix::new([a, b, c, d].into(), length % 33).unwrap()
        } else {
            Prefix::new(address.into(), length).unwrap()
        }
    }
}

prop_compose! {
    fn rules()(
        deny in any::<bool>(),
        operations in prop::collection::vec(
            prop::sample::select(vec![Operation::Connect, Operation::Send, Operation::Bind]), 1..4),
        protocol in prop::sample::select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp]),
        prefix in prop_oneof![Just(Prefix::ANY), prefixes()],
        ports in prop_oneof![Just(Ports::ANY), any::<u16>().prop_map(Ports::from),
            (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Ports::new(a.min(b)..=a.max(b)).unwrap())],
        reason in "[ -~]{0,20}",
    ) -> Rule {
        Rule {
            verdict: if deny { Verdict::Deny } else { Verdict::Allow },
            operations: operations.into_iter().map(Operations::from).reduce(|a, b| a | b).unwrap(),
            protocol,
            prefix,
            ports,
            reason: reason.trim().to_owned(),
            ttl: None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_is_written_is_read_as_the_same_rule(rule in rules()) {
        prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
    }

    #[test]
    fn what_is_written_is_read_as_the_same_table(
        rules in prop::collection::vec(rules(), 0..6),
        deny in any::<bool>(),
        reason in "[ -~]{0,20}",
    ) {
        let default = if deny { Verdict::Deny } else { Verdict::Allow };
        let default_reason = reason.trim().to_owned();
        let table = Table { default_reason, rules, ..Table::new(default) };
        prop_assert_eq!(table.to_string().parse::<Table>().unwrap(), table);
    }

    #[test]
    fn no_text_brings_the_parser_down(text in "\\PC*", words in "(deny|allow|default|any|tcp|,|/|-|#|::|[0-9.]| |\n)*") {
        let _ = (text.parse::<Table>(), words.parse::<Table>());
    }

    #[test]
    fn a_prefix_contains_what_it_covers(one in prefixes(), other in prefixes(), bits in any::<u128>()) {
        let address = IpAddr::from(Ipv6Addr::from_bits(bits));
        let inside = Prefix::from(address);
        prop_assert_eq!(one.contains(address), one.covers(&inside));
        if one.covers(&other) {
            prop_assert!(one.contains(IpAddr::from(other.address())));
            prop_assert!(!other.contains(address) || one.contains(address));
        }
    }

    #[test]
    fn the_kernel_decides_as_the_table_does(
        table in tables(), all in prop::collection::vec(asked(), 1..20),
    ) {
        for asked in all {
            let decided = table.decide(Duration::ZERO, asked.operation, asked.protocol, asked.address, asked.port);
            let expected = match decided {
                // Nothing is told of what is allowed.
                (Verdict::Allow, By::Always(_)) => (Verdict::Allow, By::Default),
                decided => decided,
            };
            prop_assert_eq!(kernel_decides(&table, 0, &asked), Some(expected), "{:?}", asked);
        }
    }
}
