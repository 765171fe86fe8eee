use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

/// A query: header, labels, type A, class IN.
fn query_for(labels: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label);
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn question(name: &str) -> Question {
    Question { name: name.into(), record_type: 1, class: 1 }
}

/// The parts of a name.
type Labels<'a> = &'a [&'a [u8]];

/// An answer to [`query_for`] with these records: owner labels, type, ttl, data.
fn answer_to(query: &[u8], records: &[(Labels<'_>, u16, u32, Vec<u8>)]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= IS_ANSWER;
    message[7] = u8::try_from(records.len()).unwrap();
    for (owner, ty, ttl, data) in records {
        message.extend(name(owner));
        message.extend(ty.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }
    message
}

fn name(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

#[test]
fn names_are_compared_in_lower_case_without_the_last_dot() {
    for (labels, name) in [
        (&[&b"wWw"[..], b"ExAmple", b"ORG"][..], "www.example.org"),
        (&[], "."),
        (&[b"_dmarc", b"a-b", b"*"], "_dmarc.a-b.*"),
        (&[b"xn--mnchen-3ya", b"de"], "xn--mnchen-3ya.de"),
        (&[b"a.b", b"c\\d", b"\x00\xff "], "a\\.b.c\\\\d.\\000\\255\\032"),
    ] {
        assert_eq!(query(&query_for(labels)), Ok(question(name)));
    }
}

#[test]
fn a_name_may_have_255_bytes_and_no_more() {
    let label = [b'a'; 61];
    let longest = [&label[..], &label, &label, &label, b"12345"];
    assert_eq!(query(&query_for(&longest)).unwrap().name.len(), 253);
    let longer = [&label[..], &label, &label, &label, b"123456"];
    assert_eq!(query(&query_for(&longer)), Err(Unfit::Malformed));
}

#[test]
fn what_is_no_query_with_one_question_is_malformed() {
    let good = query_for(&[b"example", b"org"]);
    assert!((0..good.len()).all(|end| query(&good[..end]) == Err(Unfit::Malformed)));
    let changed = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        message
    };
    for (at, byte, unfit) in [
        (5, 0, Unfit::Malformed),
        (5, 2, Unfit::Malformed),
        (2, IS_ANSWER, Unfit::Malformed),
        // A label of 64 bytes, and one of a type that there is not.
        (12, 64, Unfit::Malformed),
        (12, 0x80, Unfit::Malformed),
        // Update, notification.
        (2, 5 << 3, Unfit::Unsupported),
        (2, 4 << 3, Unfit::Unsupported),
    ] {
        assert_eq!(query(&changed(at, byte)), Err(unfit), "{at} {byte}");
    }
    // A pointer to itself, and one ahead.
    for pointer in [12, 14] {
        let mut message = good[..HEADER].to_vec();
        message.extend([0xc0, pointer, 0, 1, 0, 1]);
        assert_eq!(query(&message), Err(Unfit::Malformed));
    }
}

#[test]
fn a_refusal_is_an_answer_to_its_query() {
    let mut message = query_for(&[b"ExAmple", b"org"]);
    let section = message[HEADER..].to_vec();
    // With EDNS behind it.
    message[11] = 1;
    message.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    let reply = reply(&message, Rcode::REFUSED).unwrap();
    assert_eq!(reply[..HEADER], [0xab, 0xcd, 0x81, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(reply[HEADER..], section);
    let asked = query(&message).unwrap();
    assert!(answers(&reply, 0xabcd, &asked) && !answers(&reply, 0xabce, &asked));
    assert!(!answers(&message, 0xabcd, &asked));
    assert!(!answers(&reply, 0xabcd, &question("example.com")));
    assert_eq!(answer(&reply, &asked).unwrap().code, 5);
}

#[test]
fn what_cannot_be_read_is_answered_without_a_question_and_answers_not_at_all() {
    let mut message = query_for(&[b"example"]);
    message.truncate(15);
    assert_eq!(
        reply(&message, Rcode::REFUSED).unwrap(),
        [0xab, 0xcd, 0x81, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(reply(&message[..11], Rcode::REFUSED), None);
    message[2] |= IS_ANSWER;
    assert_eq!(reply(&message, Rcode::REFUSED), None);
}

#[test]
fn addresses_are_found_through_the_names_that_a_name_stands_for() {
    let query = query_for(&[b"www", b"Example"]);
    let (www, alias, end): (Labels<'_>, Labels<'_>, Labels<'_>) =
        (&[b"WWW", b"example"], &[b"alias"], &[b"end"]);
    let message = answer_to(
        &query,
        &[
            // In no order; one of another name.
            (end, 1, 300, vec![192, 0, 2, 1]),
            (alias, 5, 60, name(end)),
            (www, 5, 500, name(alias)),
            (&[b"other"], 1, 1, vec![192, 0, 2, 9]),
            (end, 28, 400, Ipv6Addr::LOCALHOST.octets().to_vec()),
        ],
    );
    let asked = super::query(&query).unwrap();
    assert_eq!(
        answer(&message, &asked).unwrap(),
        Answer {
            code: 0,
            truncated: false,
            addresses: vec![Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::LOCALHOST.into()],
            ttl: Some(60),
        }
    );
    // Names that stand for each other.
    let circle = answer_to(&query, &[(www, 5, 9, name(alias)), (alias, 5, 8, name(www))]);
    let found = answer(&circle, &asked).unwrap();
    assert_eq!((found.addresses, found.ttl), (vec![], Some(9)));
    let mut truncated = message.clone();
    truncated[2] |= 2;
    assert!(answer(&truncated, &asked).unwrap().truncated);
    assert!(answer(&message[..message.len() - 1], &asked).is_err());
}

#[test]
fn types_have_their_names() {
    let named = |record_type| Question { record_type, ..question(".") }.type_name();
    assert_eq!([1, 28, 65, 65_400].map(named), ["A", "AAAA", "HTTPS", "TYPE65400"]);
}

#[test]
fn a_long_chain_of_names_in_any_order_and_in_a_circle_is_followed_once() {
    let query = query_for(&[b"n0"]);
    let label = |n: u32| format!("n{n}").into_bytes();
    let owners: Vec<Vec<u8>> = (0..200).map(label).collect();
    let labels: Vec<[&[u8]; 1]> = owners.iter().map(|owner| [&**owner]).collect();
    // From its end to its beginning, and the end leads back.
    let mut records: Vec<(Labels<'_>, u16, u32, Vec<u8>)> = (0..200)
        .rev()
        .map(|n| (&labels[n][..], 5, 300, name(&[&label((u32::try_from(n).unwrap() + 1) % 200)])))
        .collect();
    records.push((&labels[199][..], 1, 60, vec![192, 0, 2, 1]));
    records.push((&[b"other"], 1, 60, vec![192, 0, 2, 2]));
    let found = answer(&answer_to(&query, &records), &question("n0")).unwrap();
    assert_eq!(found.addresses, [Ipv4Addr::new(192, 0, 2, 1)]);
    assert_eq!(found.ttl, Some(60));
}
