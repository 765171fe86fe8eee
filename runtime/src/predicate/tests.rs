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
