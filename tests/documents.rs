//! What documents say of other files is so.

use std::{collections::BTreeSet, fs, path::Path};

use tipstaff_events::KINDS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// What is between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Each row of a table in `docs/threat-model.md` that has a test in its last column names at least one,
/// and each that it names exists: a function, a file of tests, or a hostile policy.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let model = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let mut all = Vec::new();
    for folder in ["tests", "runtime/src", "ebpf", "sdk/rust"] {
        sources(&root().join(folder), &mut all);
    }
    let mut hostile: BTreeSet<String> = fs::read_dir(root().join("tests/hostile"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    // Those that are made by the program.
    let program = &all.iter().find(|file| file.0 == "tests/hostile.rs").unwrap().1;
    hostile.extend(program.split('"').skip(1).step_by(2).map(str::to_owned));
    let has_function = |name: &str| {
        let test = format!("fn {name}(");
        // In whatever file: names are unique.
        all.iter().any(|(_, text)| text.contains(&test))
    };
    let exists = |name: &str| {
        if let Some(stem) = name.strip_suffix(".rs") {
            return all.iter().any(|(file, _)| Path::new(file).ends_with(format!("{stem}.rs")));
        }
        match name.strip_suffix('*') {
            Some(beginning) => hostile.iter().any(|policy| policy.starts_with(beginning)),
            None => hostile.contains(name) || has_function(name),
        }
    };
    let mut wrong = Vec::new();
    let mut in_a_table = false;
    let mut rows = 0;
    for line in model.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if line.starts_with("| attempt |") {
            assert_eq!(cells.last(), Some(&"test"), "{line}");
            in_a_table = true;
        } else if in_a_table && line.starts_with("| ") {
            rows += 1;
            let names: Vec<&str> = quoted(cells.last().unwrap()).collect();
            if names.is_empty() {
                wrong.push(format!("no test: {line}"));
            }
            wrong.extend(
                names.iter().filter(|name| !exists(name)).map(|name| format!("`{name}`: {line}")),
            );
        } else if line.is_empty() {
            in_a_table = false;
        }
    }
    assert!(rows > 25, "{rows} rows");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A kind that is not in the table of `make test-vm` is at least named as missing there.
#[test]
fn every_kind_is_spoken_of_where_kernels_are() {
    let text = fs::read_to_string(root().join("docs/kernels.md")).unwrap();
    let spoken: BTreeSet<&str> = quoted(&text).collect();
    let silent: Vec<_> =
        KINDS.iter().map(|kind| kind.name).filter(|kind| !spoken.contains(kind)).collect();
    assert_eq!(silent, [""; 0]);
}
