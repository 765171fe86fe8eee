//! What a manifest may say, and what is said of one that does not.

use super::*;

const HEAD: &str = "name = \"p\"\nversion = \"1\"\n";

fn parse(rest: &str) -> Result<Manifest, ManifestError> {
    format!("{HEAD}{rest}").parse()
}

fn message(rest: &str) -> String {
    parse(rest).unwrap_err().to_string()
}

#[test]
fn a_whole_manifest_is_understood() {
    let manifest = parse(
        r#"
        tick = "500ms"
        [[subscribe]]
        event = "exec"
        fields = ["ppid:u32", "uid:u32?", "path:text", "proc.parent.exe:bytes?"]
        [[subscribe]]
        event = "oom"
        fields = []
        optional = true
        every = "250ms"
        [[setting]]
        name = "ports"
        type = "integers"
        doc = "Ports that are expected."
        default = [80, 443]
        [[setting]]
        name = "label"
        type = "text"
        doc = ""
        "#,
    )
    .unwrap();
    assert_eq!(manifest.tick_ns, Some(500_000_000));
    assert_eq!(manifest.subscriptions.len(), 2);
    assert_eq!(
        manifest.subscriptions[0].fields[1],
        Ask { name: "uid".into(), ty: AskType::U32, optional: true }
    );
    assert_eq!(manifest.subscriptions[0].fields[3].ty, AskType::Bytes);
    assert!(manifest.subscriptions[1].optional);
    assert_eq!(manifest.subscriptions[1].every_ns, Some(250_000_000));
    assert_eq!(manifest.settings[0].default.as_deref(), Some("[80, 443]"));
    assert_eq!(manifest.settings[1].default, None);
}

proptest::proptest! {
    #[test]
    fn whatever_a_guest_says_is_a_manifest_or_an_error(text in "\\PC*|(name|version|tick|fields|\\[\\[subscribe\\]\\]|= |\"|[0-9]{1,20}|ms|\n)*") {
        let _ = text.parse::<Manifest>();
        let _ = parse(&text);
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    assert_eq!(
        message("colour = 1"),
        "manifest, line 3: unknown field `colour`, expected one of `name`, `version`, `tick`, `subscribe`, `setting`"
    );
    assert!(
        message("[[subscribe]]\nevent = \"exec\"\nfields = []\nwher = \"\"")
            .contains("line 6: unknown field `wher`")
    );
}

#[test]
fn a_field_without_a_known_type_is_named() {
    let of =
        |field: &str| message(&format!("[[subscribe]]\nevent = \"exec\"\nfields = [{field:?}]"));
    assert!(of("path").contains("subscription to `exec`: field \"path\" has no type"));
    assert!(of("path:string").contains("unknown type `string`: expected one of u8, u16"));
    assert!(of("pa th:text").contains("no proper name"));
}

#[test]
fn names_versions_and_ticks_are_checked() {
    let head = |name: &str, version: &str| {
        format!("name = {name:?}\nversion = {version:?}\n").parse::<Manifest>()
    };
    assert!(head("a-1", "0.1.0-rc1").is_ok());
    for name in ["", "A", "1a", "a_b", "a b", "a\u{1b}", &"a".repeat(65)] {
        assert!(head(name, "1").is_err(), "{name:?}");
    }
    assert!(head("a", "").is_err());
    assert!(head("a", "1 2").is_err());
    for tick in ["1", "9ms", "25h", "-1s", "1.5s", "99999999999999999999s"] {
        assert!(parse(&format!("tick = {tick:?}")).is_err(), "{tick}");
    }
}

#[test]
fn a_time_between_rows_is_checked() {
    for every in ["0s", "99ms", "25h", "1"] {
        let said = message(&format!(
            "[[subscribe]]\nevent = \"syscall_stats\"\nfields = []\nevery = {every:?}"
        ));
        assert!(said.contains("subscription to `syscall_stats`: every"), "{said}");
        assert!(said.contains("from \"100ms\" to \"24h\""), "{said}");
    }
}

#[test]
fn what_is_urgent_cannot_wait_for_its_tick() {
    let of = |more: &str| {
        parse(&format!("[[subscribe]]\nevent = \"exec\"\nfields = []\nurgent = true\n{more}"))
    };
    assert!(of("").unwrap().subscriptions[0].urgent);
    let said = of("every = \"1s\"").unwrap_err().to_string();
    assert!(said.contains("subscription to `exec`: it has `urgent` and `every`"), "{said}");
}

#[test]
fn samples_are_checked() {
    let of = |keys: &str| {
        parse(&format!("[[subscribe]]\nevent = \"exec\"\nfields = []\n{keys}"))
            .map(|manifest| manifest.subscriptions[0].sample)
    };
    assert_eq!(of("").unwrap(), Sample::ALL);
    assert_eq!(of("sample = 1").unwrap(), Sample::ALL);
    assert_eq!(of("sample = 100").unwrap(), Sample::new(100, By::Event));
    let by_process = of("sample = 4\nsample_by = \"process\"").unwrap();
    assert_eq!(by_process, Sample::new(4, By::Process));
    for (keys, expected) in [
        ("sample = 0", "sample 0 is not one in 1 to 32767"),
        ("sample = 32768", "sample 32768 is not one in"),
        ("sample = -1", "invalid value"),
        ("sample = 2\nsample_by = \"pid\"", "sample_by \"pid\" is unknown: expected \"event\""),
        ("sample_by = \"process\"", "without `sample`"),
    ] {
        let said = of(keys).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_exceeds_a_limit_is_refused() {
    let subscriptions = |n: usize| "[[subscribe]]\nevent = \"exec\"\nfields = []\n".repeat(n);
    assert!(parse(&subscriptions(255)).is_ok());
    assert!(message(&subscriptions(256)).contains("256 subscriptions, at most 255"));
    let optional = |n: usize| {
        let fields: Vec<String> = (0..n).map(|i| format!("\"f{i}:u8?\"")).collect();
        parse(&format!("[[subscribe]]\nevent = \"exec\"\nfields = [{}]", fields.join(",")))
    };
    assert!(optional(32).is_ok());
    assert!(optional(33).unwrap_err().message.contains("33 optional fields, at most 32"));
    assert!(message(&" ".repeat(MAX_TEXT)).contains("at most"));
}

#[test]
fn doubles_are_refused() {
    assert!(
        message("[[subscribe]]\nevent = \"exec\"\nfields = [\"a:u8\", \"a:u8\"]")
            .contains("a:u8 is there twice")
    );
    assert!(parse("[[subscribe]]\nevent = \"exec\"\nfields = [\"a:u8\", \"a:text\"]").is_ok());
    let setting = "[[setting]]\nname = \"x\"\ntype = \"text\"\ndoc = \"\"\n";
    assert!(message(&setting.repeat(2)).contains("setting \"x\" is there twice"));
}

#[test]
fn a_default_of_another_type_is_refused() {
    assert!(
        message("[[setting]]\nname = \"x\"\ntype = \"integer\"\ndoc = \"\"\ndefault = \"7\"")
            .contains("setting `x` has the default \"7\", which is not of its type `integer`")
    );
}
