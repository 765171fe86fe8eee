//! Rows as the agent lays them out, taken apart by derived events.

use std::net::IpAddr;

use tipstaff::{
    Event, Flags, List, Settings,
    field::{self, Column},
    manifest::{self, Parts, Subscription},
    row::Rows,
};

#[derive(Event, Debug, PartialEq)]
#[event(kind = "exec")]
struct Exec<'a> {
    directory: bool,
    uid: Option<u32>,
    path: &'a str,
    #[event(field = "proc.parent.exe")]
    parent: Option<&'a str>,
    start: u64,
    args: List<'a>,
    #[event(flags)]
    flags: Flags,
    address: IpAddr,
    raw: &'a [u8],
}

#[derive(Event, Debug, PartialEq)]
#[event(kind = "oom", optional, filter = "comm != \"a b\"", every = "5s")]
struct Bare {}

#[derive(Settings)]
struct Rules {
    /// What it is for: "quoted",
    /// on two lines.
    #[setting(default = ["a", "b\\"])]
    names: Vec<String>,
    #[setting(default = -3)]
    least: i64,
    needed: bool,
}

/// A row of `Exec` with these absent bits and flags.
fn exec(batch: &mut Vec<u8>, absent: u32, flags: u8) {
    let start = batch.len();
    batch.extend_from_slice(&77u64.to_le_bytes());
    batch.extend_from_slice(&absent.to_le_bytes());
    batch.extend_from_slice(&[0, 0, 0, flags]);
    batch.extend_from_slice(&[1, 0, 0, 0]); // directory, padding to 4
    batch.extend_from_slice(&1000u32.to_le_bytes());
    let mut texts = Vec::new();
    let mut text = |batch: &mut Vec<u8>, bytes: &[u8]| {
        let offset = u32::try_from(start + 80 + texts.len()).unwrap();
        batch.extend_from_slice(&offset.to_le_bytes());
        batch.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        texts.extend_from_slice(bytes);
    };
    text(batch, b"/bin/\xc3\xa9");
    text(batch, b"/sbin/init");
    batch.extend_from_slice(&u64::MAX.to_le_bytes());
    text(batch, b"a\0b c\0\0");
    batch.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    text(batch, b"\xff\0");
    assert_eq!(batch.len() - start, 80);
    batch.extend_from_slice(&texts);
    batch.resize(batch.len().next_multiple_of(8), 0);
    let words = u16::try_from((batch.len() - start) / 8).unwrap();
    batch[start + 12..start + 14].copy_from_slice(&words.to_le_bytes());
}

fn read(batch: &[u8], index: usize) -> Exec<'_> {
    let row = Rows::new(batch).nth(index).unwrap();
    Exec::read(row.fixed(const { field::end(Exec::FIELDS) }), row.flags())
}

#[test]
fn every_type_is_read_from_its_place() {
    let mut batch = Vec::new();
    exec(&mut batch, 0, 0);
    exec(&mut batch, 0, 0b101);
    assert_eq!(Rows::new(&batch).count(), 2);
    for index in 0..2 {
        let exec = read(&batch, index);
        assert!(exec.directory);
        assert_eq!(exec.uid, Some(1000));
        assert_eq!(exec.path, "/bin/é");
        assert_eq!(exec.parent, Some("/sbin/init"));
        assert_eq!(exec.start, u64::MAX);
        assert_eq!(exec.args.iter().collect::<Vec<_>>(), ["a", "b c", ""]);
        assert_eq!(exec.args.joined(), "a b c");
        assert_eq!(exec.address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(exec.raw, b"\xff\0");
    }
    assert_eq!(read(&batch, 0).flags, Flags::default());
    let flags = read(&batch, 1).flags;
    assert!(flags.cut() && !flags.clipped() && flags.late());
}

#[test]
fn the_absent_mask_counts_optional_fields_only() {
    let mut batch = Vec::new();
    exec(&mut batch, 0b01, 0);
    exec(&mut batch, 0b10, 0);
    assert_eq!((read(&batch, 0).uid, read(&batch, 0).parent), (None, Some("/sbin/init")));
    assert_eq!((read(&batch, 1).uid, read(&batch, 1).parent), (Some(1000), None));
}

#[test]
fn a_gap_is_told_apart_and_an_unknown_row_is_skipped() {
    let mut batch = Vec::new();
    batch.extend_from_slice(&5u64.to_le_bytes());
    batch.extend_from_slice(&[0, 0, 0, 0, 5, 0, 1, 0x80]);
    batch.extend_from_slice(&9u64.to_le_bytes());
    batch.extend_from_slice(&8u64.to_le_bytes());
    batch.extend_from_slice(&4u64.to_le_bytes());
    batch.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x81]);
    let rows: Vec<_> = Rows::new(&batch).collect();
    let gap = rows[0].gap(&["exec", "open"]).unwrap();
    assert_eq!((gap.kind, gap.lost, gap.first_ns, gap.last_ns, gap.cause), ("open", 9, 5, 8, 4));
    assert!(!rows[1].is_event());
    assert_eq!(rows[1].gap(&["exec"]), None);
}

/// Whether taking the batch apart panics.
fn panics(batch: &[u8]) -> bool {
    let read = || {
        Rows::new(batch).map(|row| format!("{:?}", Exec::read(row.fixed(80), row.flags()))).count()
    };
    std::panic::catch_unwind(read).is_err()
}

#[test]
fn a_malformed_batch_panics() {
    let mut batch = Vec::new();
    exec(&mut batch, 0, 0);
    assert!(!panics(&batch));
    for (offset, bytes) in [
        (12, &[0u8, 0][..]),             // no length
        (12, &[1, 0]),                   // shorter than the header
        (12, &[3, 0]),                   // shorter than the fixed part
        (12, &[0xff, 0xff]),             // past the end
        (24, &[0xff, 0xff, 0xff, 0x7f]), // text begins past the end
        (28, &[0xff, 0, 0, 0]),          // text ends past the end
        (28, &[6, 0, 0, 0]),             // text is cut inside a character
    ] {
        let mut broken = batch.clone();
        broken[offset..offset + bytes.len()].copy_from_slice(bytes);
        assert!(panics(&broken), "{offset} {bytes:?}");
    }
}

#[test]
fn the_manifest_says_what_the_structs_say() {
    const PARTS: Parts<'static> = Parts {
        name: "p",
        version: "1.0.0",
        tick: Some("1s"),
        subscriptions: &[
            Subscription {
                kind: Exec::KIND,
                optional: Exec::OPTIONAL,
                columns: Exec::FIELDS,
                condition: Exec::WHERE,
                every: Exec::EVERY,
                urgent: Exec::URGENT,
                sample: Exec::SAMPLE,
                by_process: Exec::BY_PROCESS,
            },
            Subscription {
                kind: Bare::KIND,
                optional: Bare::OPTIONAL,
                columns: Bare::FIELDS,
                condition: Bare::WHERE,
                every: Bare::EVERY,
                urgent: Bare::URGENT,
                sample: Bare::SAMPLE,
                by_process: Bare::BY_PROCESS,
            },
        ],
        settings: Rules::SETTINGS,
    };
    const TEXT: [u8; manifest::length(&PARTS)] = manifest::text(&PARTS);
    let expected = r#"name = "p"
version = "1.0.0"
tick = "1s"

[[subscribe]]
event = "exec"
fields = ["directory:u8", "uid:u32?", "path:text", "proc.parent.exe:text?", "start:u64", "args:text", "address:address", "raw:bytes"]

[[subscribe]]
event = "oom"
fields = []
optional = true
where = "comm != \"a b\""
every = "5s"

[[setting]]
name = "names"
type = "texts"
doc = "What it is for: \"quoted\", on two lines."
default = ["a", "b\\"]

[[setting]]
name = "least"
type = "integer"
doc = ""
default = -3

[[setting]]
name = "needed"
type = "boolean"
doc = ""
"#;
    assert_eq!(str::from_utf8(&TEXT).unwrap(), expected);
}

#[test]
fn settings_are_read_into_the_struct() {
    let given = [("names", "[\"x\"]"), ("least", "4"), ("needed", "true")];
    let given: Vec<_> =
        given.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let rules = Rules::read(&given).unwrap();
    assert_eq!((rules.names, rules.least, rules.needed), (vec!["x".to_owned()], 4, true));
    assert_eq!(Rules::read(&given[..2]).err().unwrap(), "setting `needed` is missing");
}

#[test]
fn fields_lie_as_in_c() {
    let column = |size, align| Column { name: "", ty: "", size, align, optional: false };
    let columns = [column(1, 1), column(8, 4), column(2, 2), column(16, 8), column(1, 1)];
    let offsets: Vec<_> = (0..5).map(|index| field::place(&columns, index).offset).collect();
    assert_eq!(offsets, [16, 20, 28, 32, 48]);
    assert_eq!(field::end(&columns), 49);
    assert_eq!(field::end(&[]), 16);
}
