//! How well each kind is seen on this kernel, and what `docs/kernels.md` says of that on all kernels
//! of `make test-vm`.

mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use kernel::{PYTHON, Recording, all_fields, alone, cgroup::Cgroup, vm};
use serde_json::{Value, json};
use tipstaff_events::KINDS;
use tipstaff_runtime::{
    dns::{Doors, Verdict},
    guard::GuardMode,
    plan::Wanted,
    probe::{self, RingSizes},
};

/// As in `tools/test-vm.sh`.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.2"];

/// What a denied call gets, and one to a port where nobody listens.
const EPERM: i64 = 1;
const ECONNREFUSED: i64 = 111;

/// Rungs that no kernel of [`SERIES`] can take, and why.
const ELSEWHERE: [(&str, &str); 1] = [(
    "oom_number@raw_tracepoint:mark_victim",
    "before Linux 6.8, and before the point releases of 5.10 and 6.1 that took over its tracepoint",
)];

/// All kinds at once, as nothing less shows that they do not get in each other's way.
#[test]
fn every_kind_is_seen_as_well_as_this_kernel_allows() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let all: Vec<u16> = KINDS.iter().map(|kind| kind.id).collect();
    recording.want(&all);
    let wanted: Wanted = all.iter().map(|&kind| (kind, all_fields())).collect();
    let report = recording.probes.apply(&wanted.into()).unwrap();
    let kinds: BTreeMap<&str, Value> = KINDS
        .iter()
        .map(|kind| {
            let found = &report[&kind.id];
            let hooks: BTreeSet<&str> = found
                .hooks
                .iter()
                .map(String::as_str)
                .filter(|hook| !hook.starts_with("PROGRAMS:"))
                .collect();
            let coverage = found.coverage.to_string();
            (kind.name, json!({"coverage": coverage, "hooks": hooks, "programs": found.programs}))
        })
        .collect();
    found("kinds", json!(kinds));
}

/// What each guard does on this kernel to a program that does what it is to prevent.
#[test]
fn every_guard_prevents_or_is_refused_with_the_reason() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let scope = Cgroup::new();
    let connects = "socket.create_connection(('127.0.0.1', 9))";
    let asks = "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x' * 20, ('127.0.0.1', 53))";
    assert_eq!(
        (errno(&mut recording, &scope, connects), errno(&mut recording, &scope, asks)),
        (ECONNREFUSED, 0),
        "as it is without a guard"
    );
    let network = recording.probes.guard_network(scope.path(), 1, GuardMode::Enforce);
    let network = network.and_then(|mut guard| {
        guard.install(&"default allow\ndeny connect tcp 127.0.0.1 9".parse().unwrap())?;
        Ok(guard)
    });
    let mut said = BTreeMap::from([(
        "network rules",
        strength(&network, || errno(&mut recording, &scope, connects)),
    )]);
    drop(network);
    // Nobody is at these doors.
    let names = match Doors::open() {
        Ok(doors) => recording
            .probes
            .guard_dns(scope.path(), &doors, Verdict::Refuse, Verdict::Refuse)
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    said.insert("rules about names", strength(&names, || errno(&mut recording, &scope, asks)));
    // By release, which the guards never look at.
    let seen = ["dns_query", "dns_answer"].map(|name| {
        let kind = KINDS.iter().find(|kind| kind.name == name).unwrap().id;
        let wanted: Wanted = [(kind, all_fields())].into_iter().collect();
        recording.probes.apply(&wanted.into()).unwrap()[&kind].coverage.to_string()
    });
    let expected = if vm::release() >= (5, 14) { "prevent" } else { "no" };
    assert_eq!((&*said["network rules"], &*said["rules about names"]), ("prevent", expected));
    if let Err(reason) = names {
        assert!(reason.contains("needs Linux 5.14"), "{reason}");
        assert_eq!(seen, ["none: "; 2].map(|none| none.to_owned() + &reason));
    } else {
        assert_eq!(seen, ["full"; 2]);
    }
    found("guards", json!(said));
}

/// What this line of Python gets in that cgroup, 0 for no error.
fn errno(recording: &mut Recording, scope: &Cgroup, line: &str) -> i64 {
    let script = format!(
        "import socket\ntry:\n {line}\n print(0)\nexcept OSError as error: print(error.errno)"
    );
    let (_, said) = recording.run(scope.command(PYTHON).args(["-I", "-S", "-c", &script]));
    said[0]
}

/// What a guard is worth here, by what its program got.
fn strength<T, E>(guard: &Result<T, E>, errno: impl FnOnce() -> i64) -> String {
    match guard {
        Ok(_) if errno() == EPERM => "prevent".to_owned(),
        Ok(_) => "nothing is denied".to_owned(),
        Err(_) => "no".to_owned(),
    }
}

/// Adds this to the file that `TIPSTAFF_RESULT` names.
fn found(what: &str, value: Value) {
    let Some(file) = std::env::var_os("TIPSTAFF_RESULT") else { return };
    let mut all: Value =
        fs::read(&file).map_or(json!({}), |known| serde_json::from_slice(&known).unwrap());
    all[what] = value;
    fs::write(file, all.to_string()).unwrap();
}

/// What `make test-vm` left.
fn results() -> Vec<(&'static str, Value)> {
    let folder = repository().join("target/vm/results");
    SERIES
        .into_iter()
        .map(|series| {
            let file = folder.join(series).join("all.json");
            let text = fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{}: {error}: run `make test-vm`", file.display()));
            (series, serde_json::from_str(&text).unwrap())
        })
        .collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs the results of make test-vm, which runs it"]
fn every_rung_is_taken_on_some_kernel() {
    let results = results();
    for (kinds, programs) in probe::rungs() {
        let taken = results.iter().any(|(_, result)| {
            KINDS.iter().filter(|kind| kinds.contains(&kind.id)).all(|kind| {
                let used = texts(&result["kinds"][kind.name]["programs"]);
                programs.iter().all(|program| used.contains(program.as_str()))
            })
        });
        let programs = programs.join(" ");
        let elsewhere = ELSEWHERE.iter().any(|(rung, _)| *rung == programs);
        assert_ne!(taken, elsewhere, "taken, or said to be taken elsewhere: {programs}");
    }
}

#[test]
#[ignore = "needs the results of make test-vm, which runs it"]
fn the_page_on_kernels_says_what_was_found() {
    const BEGIN: &str = "<!-- generated by make test-vm -->\n";
    const END: &str = "<!-- end -->\n";
    let file = repository().join("docs/kernels.md");
    let page = fs::read_to_string(&file).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let new = format!("{head}{BEGIN}{}{END}{tail}", tables(&results()));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, new).unwrap();
    } else {
        assert!(
            page == new,
            "docs/kernels.md is out of date: run `BLESS=1 make test-vm` and look at the difference"
        );
    }
}

/// Coverage by kind and kernel, guards by kernel, and the hooks by kind.
fn tables(results: &[(&str, Value)]) -> String {
    let mut notes: Vec<&str> = Vec::new();
    let mut out = String::from("\n| kind |");
    let line = "|---".repeat(results.len() + 1);
    for (series, _) in results {
        write!(out, " {series} |").unwrap();
    }
    write!(out, "\n{line}|\n").unwrap();
    for kind in KINDS {
        write!(out, "| `{}` |", kind.name).unwrap();
        for (_, result) in results {
            let coverage = result["kinds"][kind.name]["coverage"].as_str().unwrap();
            let (word, reasons) = coverage.split_once(": ").unwrap_or((coverage, ""));
            let mut numbers: Vec<usize> = reasons
                .split("; ")
                .filter(|reason| !reason.is_empty())
                .map(|reason| {
                    let known = notes.iter().position(|note| *note == reason);
                    let index = known.unwrap_or_else(|| {
                        notes.push(reason);
                        notes.len() - 1
                    });
                    index + 1
                })
                .collect();
            numbers.sort_unstable();
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let numbers = if numbers.is_empty() {
                String::new()
            } else {
                format!(" ({})", numbers.join(", "))
            };
            write!(out, " {word}{numbers} |").unwrap();
        }
        out.push('\n');
    }
    out.push('\n');
    for (index, note) in notes.iter().enumerate() {
        writeln!(out, "{}. {note}", index + 1).unwrap();
    }
    write!(out, "\n| guard |").unwrap();
    for (series, _) in results {
        write!(out, " {series} |").unwrap();
    }
    write!(out, "\n{line}|\n").unwrap();
    for (guard, _) in results[0].1["guards"].as_object().unwrap() {
        write!(out, "| {guard} |").unwrap();
        for (_, result) in results {
            write!(out, " {} |", result["guards"][guard].as_str().unwrap()).unwrap();
        }
        out.push('\n');
    }
    out.push_str("\n| kinds | hooks | on |\n|---|---|---|\n");
    // Kinds that come from the same hooks on the same kernels are one line.
    let mut lines: Vec<(Vec<&str>, String, String)> = Vec::new();
    for kind in KINDS {
        let mut by_hooks: Vec<(BTreeSet<&str>, Vec<&str>)> = Vec::new();
        for (series, result) in results {
            let hooks = texts(&result["kinds"][kind.name]["hooks"]);
            match by_hooks.iter_mut().find(|(known, _)| *known == hooks) {
                Some((_, on)) => on.push(series),
                None => by_hooks.push((hooks, vec![series])),
            }
        }
        for (hooks, on) in by_hooks {
            let hooks: Vec<String> = hooks.into_iter().map(|hook| format!("`{hook}`")).collect();
            let (hooks, on) = (hooks.join(", "), on.join(", "));
            match lines.iter_mut().find(|line| line.1 == hooks && line.2 == on) {
                Some((kinds, ..)) => kinds.push(kind.name),
                None => lines.push((vec![kind.name], hooks, on)),
            }
        }
    }
    for (kinds, hooks, on) in lines {
        // What is not seen there has none, and what the agent tells by itself needs none.
        let hooks = if hooks.is_empty() { "none" } else { &hooks };
        let on = if on.matches(',').count() + 1 == results.len() { "all" } else { &on };
        writeln!(out, "| `{}` | {hooks} | {on} |", kinds.join("`, `")).unwrap();
    }
    out.push('\n');
    out
}
