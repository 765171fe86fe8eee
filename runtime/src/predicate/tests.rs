use proptest::prelude::*;

use super::*;
use crate::{
    enrich::{Lookup, Tables},
    kind::{Enriched, Kinds},
    source::{Given, GivenValue, encode::Encoder},
};

/// A connect by process 7, user unknown, from "curl" to 10.1.2.3:443, refused.
fn holds(condition: &str) -> bool {
    let kinds = Kinds::built_in();
    let kind = kinds.named("connect").unwrap();
    let field = |name: &str| kind.field(name).unwrap();
    let mut encoder = Encoder::new(kind);
    encoder.number(field("pid"), 7).unwrap();
    encoder.number(field("port"), 443).unwrap();
    encoder.number(field("result"), -111).unwrap();
    encoder.number(field("outcome"), 2).unwrap();
    encoder.bytes(field("comm"), b"curl", false).unwrap();
    let address = std::net::Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets();
    encoder.address(field("address"), address).unwrap();
    let mut given = Given::default();
    given.set(Enriched::ProcArgs, GivenValue::Bytes(b"curl\0https://x/y z\0".to_vec()));
    given.set(Enriched::ProcStart, GivenValue::Number(5));
    let mut tables = Tables::new(None);
    let predicate =
        Predicate::parse(condition, kind).unwrap_or_else(|error| panic!("{condition}: {error}"));
    predicate.holds(&encoder.finish(), &mut Lookup::new(&mut tables, Some(&given))).unwrap()
}

#[test]
fn comparisons_hold_as_they_read() {
    for condition in [
        "pid = 7",
        "pid==7",
        "pid != 8 and port >= 443 and port<444",
        "port = 0x1bb or pid = 0",
        "result < 0",
        "result = -111",
        "outcome = refused",
        "outcome != established",
        "comm = curl",
        "comm ^= cu and comm $= rl and comm ~ ur",
        "comm != \"cur\"",
        "address = 10.1.2.3",
        "address = 10.0.0.0/8 and address != 10.2.0.0/16",
        "address != ::1",
        "proc.args = 'https://x/y z'",
        "proc.args ~ \"y z\"",
        "proc.args != curly",
        "proc.start >= 5",
        "not pid = 8",
        "not (pid = 8 or port = 80)",
        "pid = 8 and pid = 7 or port = 443",
    ] {
        assert!(holds(condition), "{condition}");
        assert!(!holds(&format!("not ({condition})")), "not ({condition})");
    }
}

/// Whether the kernel would let the record through.
fn passes(condition: &str, record: &[u8]) -> bool {
    let kinds = Kinds::built_in();
    let predicate = Predicate::parse(condition, kinds.named("connect").unwrap()).unwrap();
    let Some(filter) = filter([&predicate]) else { return true };
    filter.passes(|at| {
        let mut word = [0xaa; 8];
        let bytes = record.get(at..).unwrap_or_default();
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        u64::from_ne_bytes(word)
    })
}

const LONG: &str = "/run/some/socket/that/has/a/long/name";

/// Conditions and whether the kernel can test all of them.
fn conditions() -> impl Strategy<Value = (String, bool)> {
    let order = || prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let number = |field: &'static str, values: &'static [i64]| {
        (order(), prop::sample::select(values))
            .prop_map(move |(order, value)| (format!("{field} {order} {value}"), true))
    };
    let text = |field: &'static str, values: &'static [&'static str]| {
        let how = prop::sample::select(vec![
            ("=", true),
            ("!=", true),
            ("^=", true),
            ("$=", false),
            ("~", false),
        ]);
        (how, prop::sample::select(values)).prop_map(move |((how, pushed), value)| {
            (format!("{field} {how} '{value}'"), pushed && value.len() <= 32)
        })
    };
    let leaf = prop_oneof![
        number("port", &[0, 79, 80, 443, 65535]),
        number("result", &[-115, -111, -1, 0, 3]),
        number("pid", &[0, 7, 4_294_967_295]),
        number("local_port", &[0, 5]),
        text("comm", &["", "curl", "cur", "sixteen-letters-", "sixteen-letters"]),
        text("unix_path", &["", "/run", "/run/a", LONG]),
        prop::sample::select(vec![
            ("outcome = refused", true),
            ("outcome != refused", true),
            ("address = 10.0.0.0/9", true),
            ("address != 10.1.2.3", true),
            ("address = ::/0", true),
            ("proc.exe = /x", false),
            ("pid < 99999999999999999999", false),
        ])
        .prop_filter_map("a number that is one", |(condition, pushed)| {
            (!condition.contains("9999999999999999999")).then(|| (condition.to_owned(), pushed))
        }),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(one, pushed)| (format!("not ({one})"), pushed)),
            (inner.clone(), prop::sample::select(vec!["and", "or"]), inner).prop_map(
                |((left, a), word, (right, b))| (format!("({left}) {word} ({right})"), a && b)
            ),
        ]
    })
}

prop_compose! {
    /// A connect.
    fn record()(
        numbers in prop::sample::select(vec![(7, 443, -111), (0, 80, 0), (u32::MAX, 0, -115)]),
        comm in prop::sample::select(vec!["", "curl", "curly", "sixteen-letters-"]),
        path in prop::option::of(prop::sample::select(vec![
            "", "/run", "/run/ab", LONG,
            "/run/some/socket/that/has/a/long/way",
        ])),
        address in prop::option::of(prop::sample::select(vec![[10, 1, 2, 3], [10, 200, 0, 1], [0, 0, 0, 0]])),
        outcome in prop::option::of(0_i128..3),
    ) -> Vec<u8> {
        let kinds = Kinds::built_in();
        let kind = kinds.named("connect").unwrap();
        let field = |name: &str| kind.field(name).unwrap();
        let mut encoder = Encoder::new(kind);
        let (pid, port, result) = numbers;
        encoder.number(field("pid"), pid.into()).unwrap();
        encoder.number(field("port"), port).unwrap();
        encoder.number(field("result"), result).unwrap();
        encoder.bytes(field("comm"), comm.as_bytes(), false).unwrap();
        if let Some(path) = path {
            encoder.bytes(field("unix_path"), path.as_bytes(), false).unwrap();
        }
        if let Some(address) = address {
            let address = std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets();
            encoder.address(field("address"), address).unwrap();
        }
        if let Some(outcome) = outcome {
            encoder.number(field("outcome"), outcome).unwrap();
        }
        encoder.finish().clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn the_kernel_lets_through_what_holds_and_nothing_else_that_it_can_test(
        (condition, pushed) in conditions(),
        record in record(),
    ) {
        let kinds = Kinds::built_in();
        let predicate = Predicate::parse(&condition, kinds.named("connect").unwrap()).unwrap();
        let mut tables = Tables::new(None);
        let holds = predicate.holds(&record, &mut Lookup::new(&mut tables, None)).unwrap();
        let passes = passes(&condition, &record);
        prop_assert!(passes || !holds, "{condition}: held back");
        if predicate.is_pushed_whole() {
            prop_assert!(pushed, "{condition}: not all of it can be tested");
            prop_assert_eq!(passes, holds, "{}", condition);
        }
    }
}

#[test]
fn what_the_kernel_can_test_is_pushed_whole() {
    let kinds = Kinds::built_in();
    let whole = |condition: &str| {
        Predicate::parse(condition, kinds.named("connect").unwrap()).unwrap().is_pushed_whole()
    };
    for condition in [
        "port = 80 and not (result < 0 or comm = curl)",
        "unix_path ^= /run and address = 10.0.0.0/8",
    ] {
        assert!(whole(condition), "{condition}");
    }
    for condition in ["proc.exe = /x", "comm ~ u", "port = 80 and proc.exe = /x"] {
        assert!(!whole(condition), "{condition}");
    }
    let many: Vec<String> = (0..30).map(|port| format!("port = {port}")).collect();
    assert!(!whole(&many.join(" or ")), "more tests than there is room for");
}

#[test]
fn a_condition_that_can_never_hold_is_found() {
    let kinds = Kinds::built_in();
    let is_never = |condition: &str| {
        Predicate::parse(condition, kinds.named("connect").unwrap()).unwrap().is_never()
    };
    for condition in [
        "port > 65535",
        "port = 80 and port = 443",
        "result < -3 and result > -4",
        "comm = a and comm = b",
        "comm ^= x and comm = curl",
        "port < 0 or pid < 0",
    ] {
        assert!(is_never(condition), "{condition}");
    }
    for condition in [
        "port < 65536",
        "port = 80 or port = 443",
        "comm != a and comm != b",
        "not port = 80",
        "comm ^= c and comm = curl",
    ] {
        assert!(!is_never(condition), "{condition}");
    }
}

#[test]
fn nothing_holds_of_a_field_without_a_value() {
    for condition in [
        "local_port = 0",
        "local_port != 0",
        "unix_path ~ ''",
        "unix_path != x",
        "proc.exe != x",
        "family != inet",
    ] {
        assert!(!holds(condition), "{condition}");
    }
}

#[test]
fn errors_say_what_was_expected() {
    let kinds = Kinds::built_in();
    let kind = kinds.named("connect").unwrap();
    for (condition, expected) in [
        ("prot = 1", "event `connect` has no field `prot`; the nearest is `port`"),
        (
            "port = http",
            "field `port` is a number; `http` is not: expected digits, or 0x and hexadecimal digits",
        ),
        (
            "port ~ 4",
            "field `port` is a number and cannot be compared by `~`: expected one of = != < <= > >=",
        ),
        (
            "comm < a",
            "field `comm` is a text and cannot be compared by `<`: expected one of = != ~ ^= $=",
        ),
        (
            "family = ipv4",
            "field `family` is one of several names; `ipv4` is not: expected one of other, unix, inet, inet6",
        ),
        (
            "address = 10.0.0.0/33",
            "field `address` is an address; `10.0.0.0/33` is not: expected an address, or a network such as 10.0.0.0/8",
        ),
        (
            "pid = 7 pid = 8",
            "the condition `pid = 7 pid = 8`: expected `and`, `or` or the end, found `pid = 8`",
        ),
        ("pid", "the condition `pid`: expected one of = != < <= > >= ~ ^= $=, found the end"),
        ("pid =", "the condition `pid =`: expected a value, found the end"),
        ("(pid = 7", "the condition `(pid = 7`: expected `)`, found the end"),
        (
            "comm = 'x",
            "the condition `comm = 'x`: expected the quote that ends the value, found `'x`",
        ),
        ("", "the condition ``: expected the name of a field, found the end"),
    ] {
        assert_eq!(
            Predicate::parse(condition, kind).unwrap_err().to_string(),
            expected,
            "{condition}"
        );
    }
    assert!(matches!(Predicate::parse(&"(".repeat(1000), kind), Err(Error::TooDeep)));
    assert!(matches!(Predicate::parse(&"not ".repeat(1000), kind), Err(Error::TooDeep)));
}
