//! Policies written by hand as WebAssembly text, so that they can break every rule.
//!
//! A text is the fields of a core module, and what it leaves out is filled in, so that only the odd
//! part is there to read:
//!
//! - lines that begin with `;;|` are the manifest; without any, it subscribes to `unlink`
//! - `(export "on-batch"` and `(import "log"` stand for the full names of the contract
//! - memory: from 8 what `describe` returns, from 16 what `configure` returns; from 1,024 to 64 KiB
//!   it is the text's own; then the manifest; from 1 MiB to 4 MiB what the host passes
//!
//! A text that begins with `(component` is a whole component, and taken as it is.

use std::{fmt::Write as _, fs};

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::root;

/// What a policy exports: interface, name, and the function of a policy that does nothing.
const EXPORTS: &[(&str, &str, &str)] = &[
    ("policy", "describe", "(func (export \"describe\") (result i32) i32.const 8)"),
    (
        "policy",
        "configure",
        "(func (export \"configure\") (param i32 i32) (result i32) i32.const 16)",
    ),
    ("policy", "on-batch", "(func (export \"on-batch\") (param i32 i32))"),
    ("ticks", "on-tick", ""),
    ("hand-over", "save", ""),
    ("hand-over", "restore", ""),
];

/// The rest of what a policy needs, by a word that shows that the text has it.
const PARTS: &[(&str, &str)] = &[
    ("\"memory\"", "(memory (export \"memory\") 64)"),
    (
        "\"cabi_realloc\"",
        "(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 0x100000)",
    ),
];

const INTERFACES: &[&str] = &["log", "metrics", "alerts", "state"];
const MANIFEST_AT: u32 = 64 << 10;

/// The manifest that a text has, or else one of this name.
pub fn manifest(name: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(";;|")).collect();
    if lines.is_empty() {
        return format!(
            "name = \"{name}\"\nversion = \"1\"\n[[subscribe]]\nevent = \"unlink\"\nfields = [\"path_given:text\"]\n"
        );
    }
    lines.iter().fold(String::new(), |all, line| all + line.trim_start() + "\n")
}

/// A policy of this name, unless the text's manifest says another.
pub fn guest(name: &str, text: &str) -> Vec<u8> {
    guest_with(&manifest(name, text), text)
}

/// A policy with this manifest.
pub fn guest_with(manifest: &str, text: &str) -> Vec<u8> {
    if text.lines().any(|line| line.starts_with("(component")) {
        return wat::parse_str(text).unwrap();
    }
    let (mut world, mut fields) = (String::new(), text.to_owned());
    for part in EXPORTS
        .iter()
        .map(|(_, name, part)| (format!("\"{name}\""), *part))
        .chain(PARTS.iter().map(|(word, part)| ((*word).to_owned(), *part)))
    {
        if !text.contains(&format!("(export {}", part.0)) {
            let _ = writeln!(fields, "{}", part.1);
        }
    }
    for (interface, name, _) in EXPORTS {
        let short = format!("(export \"{name}\"");
        if fields.contains(&short) {
            let export = format!("export tipstaff:policy/{interface}@0.1.0;");
            if !world.contains(&export) {
                world += &export;
            }
            let full = format!("(export \"tipstaff:policy/{interface}@0.1.0#{name}\"");
            fields = fields.replace(&short, &full);
        }
    }
    for interface in INTERFACES {
        let _ = write!(world, "import tipstaff:policy/{interface}@0.1.0;");
        fields = fields.replace(
            &format!("(import \"{interface}\""),
            &format!("(import \"tipstaff:policy/{interface}@0.1.0\""),
        );
    }
    let (at, size) = (MANIFEST_AT, u32::try_from(manifest.len()).unwrap());
    let results: Vec<u8> = [at, size, 0, at, size].into_iter().flat_map(u32::to_le_bytes).collect();
    let data = |at: u32, bytes: &[u8]| format!("(data (i32.const {at}) \"{}\")", escaped(bytes));
    let module = format!(
        "(module {fields}\n{}\n{})",
        data(8, &[&results[..8], &results[8..]].concat()),
        data(at, manifest.as_bytes())
    );
    let mut bytes = wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}"));

    let mut resolve = Resolve::default();
    resolve.push_path(root().join("wit")).unwrap();
    let package = resolve
        .push_str("hostile.wit", &format!("package test:hostile; world hostile {{ {world} }}"))
        .unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    bytes
}

/// A policy of `tests/hostile`.
pub fn hostile(name: &str) -> Vec<u8> {
    let path = root().join(format!("tests/hostile/{name}.wat"));
    guest(name, &fs::read_to_string(path).unwrap())
}

/// The same policy with a custom section of that size, which nobody reads.
pub fn larger(policy: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = policy.to_vec();
    let mut section = vec![1, b'x'];
    section.resize(size, 0);
    bytes.push(0);
    let mut left = section.len();
    loop {
        let byte = u8::try_from(left & 0x7f).expect("seven bits");
        left >>= 7;
        bytes.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    bytes.extend(section);
    bytes
}

/// Bytes as a string of the text format.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}

/// A function whose values all live until its end, across as many branches: what a compiler does with
/// it grows with the square of its size.
pub fn bomb(name: &str) -> Vec<u8> {
    let (values, branches) = (3_000, 20_000);
    let mut text = String::from("(func (export \"slow\") (param i64) (result i64)\n");
    for n in 0..values {
        let _ = writeln!(text, "(local $v{n} i64)");
    }
    for n in 0..branches {
        let (to, from) = (n * 7 % values, n * 13 % values);
        let _ = writeln!(
            text,
            "(if (i64.lt_u (local.get $v{from}) (local.get 0)) (then (local.set $v{to} (i64.add (local.get $v{from}) (local.get 0)))))"
        );
    }
    for n in 0..values {
        let _ = writeln!(text, "(local.set 0 (i64.xor (local.get 0) (local.get $v{n})))");
    }
    text += "local.get 0)";
    guest(name, &text)
}
