//! Files and guests that break the rules: each gives one clear error, and nothing else stops.

mod court;

use std::{path::Path, time::Duration};

use court::{Court, HandMade, batch, build, eventually};
use tipstaff_runtime::policy::{Limits, Reason, Refusal};

/// Why these bytes do not load.
fn refusal(bytes: &[u8]) -> Refusal {
    Court::new()
        .compiler
        .load_bytes(Path::new("x.wasm"), bytes)
        .err()
        .expect("it must not load")
        .reason
}

fn message(bytes: &[u8]) -> String {
    refusal(bytes).to_string()
}

#[test]
fn a_hand_made_policy_runs() {
    let court = Court::new();
    let loaded =
        court.compiler.load_bytes(Path::new("x.wasm"), &HandMade::default().bytes()).unwrap();
    assert_eq!(loaded.manifest.name, "hand-made");
    assert!(loaded.imports.is_empty());
    let policy =
        court.pool.start(court.configure(&loaded, "", &Limits::default()).unwrap()).unwrap();
    policy.queue().push(&batch(0, &["/a"]));
    eventually("the batch", || policy.numbers().batches == 1);
}

#[test]
fn what_is_no_policy_is_named() {
    let policy = std::fs::read(build("fixture")).unwrap();
    assert!(message(&policy[..policy.len() / 2]).starts_with("is truncated: "));
    assert!(message(b"").starts_with("is empty"));
    assert!(message(b"fn main() {}").starts_with("is a text file"));
    assert!(
        message(&wat::parse_str("(module)").unwrap())
            .starts_with("is a core module without the metadata")
    );
    let mut broken = policy.clone();
    broken[8] = 0x7f;
    assert!(message(&broken).starts_with("is not valid WebAssembly"), "{}", message(&broken));
    let other =
        wat::parse_str("(component (core module $m) (export \"run\" (core module $m)))").unwrap();
    assert_eq!(
        message(&other),
        "is a component of another world: it exports run, expected tipstaff:policy/policy@0.1.0"
    );
}

#[test]
fn an_import_that_is_not_granted_is_refused_with_the_lines_that_would_grant_it() {
    let with = |import| HandMade { import: Some(import), ..HandMade::default() }.bytes();
    let error = message(&with("tipstaff:policy/guard-signal@0.1.0"));
    assert!(error.contains("which is not granted"), "{error}");
    assert!(error.ends_with("[policy.hand-made]\n    grants = [\"guard-signal\"]"), "{error}");
    assert!(
        message(&with("wasi:cli/environment@0.2.0"))
            .starts_with("imports `wasi:cli/environment@0.2.0`, which this agent does not have")
    );
}

#[test]
fn an_endless_describe_ends_at_the_deadline() {
    let policy =
        HandMade { describe: "(loop $again (br $again)) i32.const 8", ..HandMade::default() };
    let Refusal::Call(error) = refusal(&policy.bytes()) else { panic!("another refusal") };
    assert_eq!(error.function, "describe");
    assert!(
        matches!(error.reason, Reason::Time { limit, .. } if limit == Duration::from_millis(500)),
        "{error}"
    );
}

#[test]
fn a_describe_that_points_out_of_memory_is_an_error() {
    for describe in ["i32.const -4", "i32.const 65535", "i32.const 6"] {
        let policy = HandMade { describe, ..HandMade::default() };
        assert!(matches!(refusal(&policy.bytes()), Refusal::Call(_)), "{describe}");
    }
}

#[test]
fn a_manifest_that_is_refused_is_a_load_error() {
    let manifest = "name = \"hand-made\"\nversion = \"1\"\nlevel = 3\n";
    let policy = HandMade { manifest, ..HandMade::default() };
    assert!(message(&policy.bytes()).contains("manifest, line 3: unknown field `level`"));
    let policy =
        HandMade { manifest: "name = \"\u{1b}[31m\"\nversion = \"1\"\n", ..HandMade::default() };
    assert!(
        !message(&policy.bytes()).contains('\u{1b}'),
        "no control character reaches a terminal"
    );
}

#[test]
fn bad_addresses_and_endless_allocation_cost_the_instance() {
    for (realloc, what) in [
        ("i32.const -16", "out of bounds"),
        ("i32.const 65535", "past the end"),
        ("(loop $again (br $again)) i32.const 0", "endless"),
        ("unreachable", "trap"),
    ] {
        let court = Court::new();
        // Only for rows, whose alignment is 1: `configure` has its settings' list allocated as well.
        let realloc = format!(
            "(if (i32.eq (local.get 2) (i32.const 1)) (then {realloc} return)) i32.const 4096"
        );
        let policy = HandMade { realloc: &realloc, ..HandMade::default() };
        let loaded = court.compiler.load_bytes(Path::new("x.wasm"), &policy.bytes()).unwrap();
        let policy =
            court.pool.start(court.configure(&loaded, "", &Limits::default()).unwrap()).unwrap();
        policy.queue().push(&batch(0, &["/a"]));
        eventually(what, || policy.numbers().traps == 1);
        assert_eq!(policy.numbers().batches, 0);
    }
}

#[test]
fn the_guests_function_is_named_in_the_error() {
    let policy = HandMade {
        describe: "(call $on-batch (i32.const 0) (i32.const 0)) i32.const 8",
        on_batch: "unreachable",
        ..HandMade::default()
    };
    let Refusal::Call(error) = refusal(&policy.bytes()) else { panic!("another refusal") };
    assert_eq!(error.backtrace, ["on-batch", "describe"]);
    assert_eq!(
        error.to_string(),
        "`describe` failed: the guest trapped: wasm `unreachable` instruction executed (in on-batch < describe)"
    );
}
