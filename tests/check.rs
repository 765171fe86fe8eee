//! `tipstaff check`: every mistake is named with file, line or key, and the rest is still checked.

mod court;
#[path = "support/here.rs"]
mod here;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// A configuration and a directory of policies.
struct Place(TempDir);

impl Place {
    fn new(configuration: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        mode(place.0.path(), 0o755);
        fs::create_dir(place.path("policies")).unwrap();
        mode(&place.path("policies"), 0o755);
        place.write("t.toml", format!("agent.cache_dir = \"cache\"\n{configuration}"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
        mode(&self.path(name), 0o644);
    }

    fn put_fixture(&self, name: &str) {
        self.write(name, fs::read(court::build("fixture")).unwrap());
    }

    /// Exit code and what was printed, with the place's path taken out.
    fn check(&self, more: &[&str]) -> (i32, Vec<String>) {
        let (config, policies) = (self.path("t.toml"), self.path("policies"));
        let output = tipstaff()
            .arg("check")
            .args([
                "--config".as_ref(),
                config.as_os_str(),
                "--policies".as_ref(),
                policies.as_os_str(),
            ])
            .args(more)
            .output()
            .unwrap();
        let (code, printed) = said(&output);
        let here = format!("{}/", self.0.path().display());
        (code, printed.iter().map(|line| line.replace(&here, "")).collect())
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn tipstaff() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tipstaff"))
}

fn said(output: &Output) -> (i32, Vec<String>) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let lines =
        String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect();
    (output.status.code().unwrap(), lines)
}

#[test]
fn a_good_policy_is_said_to_be_good() {
    let place = Place::new("[policy.fixture.settings]\nupon = \"count\"\n");
    place.put_fixture("policies/a.wasm");
    assert_eq!(
        place.check(&[]),
        (0, vec!["policies/a.wasm: ok, fixture 0.1.0, subscribes to exec".to_owned()])
    );
}

#[test]
fn every_bad_file_is_named_and_the_good_one_is_still_checked() {
    let place = Place::new("");
    place.put_fixture("policies/good.wasm");
    let bytes = fs::read(place.path("policies/good.wasm")).unwrap();
    place.put_fixture("policies/twin.wasm");
    place.write("policies/truncated.wasm", &bytes[..bytes.len() / 2]);
    place.write("policies/empty.wasm", "");
    place.write("policies/text.wasm", "fn main() {}");
    place.write("policies/elf.wasm", b"\x7fELF\x02\x01\x01\0");
    place.write("policies/other-world.wasm", wat::parse_str("(component)").unwrap());
    place.write("policies/open.wasm", &bytes);
    mode(&place.path("policies/open.wasm"), 0o666);
    place.write("policies/not-a-policy.txt", "");
    let (code, printed) = place.check(&[]);
    assert_eq!(code, 1);
    let line = |name: &str| {
        let mine: Vec<_> =
            printed.iter().filter(|line| line.starts_with(&format!("policies/{name}"))).collect();
        assert_eq!(mine.len(), 1, "{name}: {printed:#?}");
        mine[0].trim_start_matches("policies/").trim_start_matches(name)
    };
    assert!(line("truncated.wasm").contains("is truncated"), "{printed:#?}");
    assert_eq!(line("empty.wasm"), ": is empty, expected a WebAssembly component or module");
    assert!(line("text.wasm").starts_with(": is a text file"));
    assert!(line("elf.wasm").contains("is not WebAssembly"));
    assert!(line("other-world.wasm").len() > 20);
    assert!(line("open.wasm").ends_with("chmod go-w policies/open.wasm"), "{printed:#?}");
    assert_eq!(line("good.wasm"), ": ok, fixture 0.1.0, subscribes to exec");
    assert!(printed.iter().any(|line| {
        line == "policies/twin.wasm: the policy `fixture` is in policies/good.wasm as well; remove one of them"
    }), "{printed:#?}");
}

#[test]
fn a_wrong_configuration_is_told_with_its_lines_and_ends_with_2() {
    let place = Place::new("[metrics]\nlistn = 1\n[policy.a.limits]\nmemory = true\n");
    let (code, printed) = place.check(&[]);
    assert_eq!(code, 2);
    assert_eq!(printed.len(), 2);
    assert_eq!(printed[0], "t.toml:3: `metrics.listn`: unknown key; the nearest is `listen`");
    assert!(
        printed[1].starts_with("t.toml:5: `policy.a.limits.memory`: expected a size from \"2MiB\"")
    );
}

#[test]
fn settings_digests_and_refusals_of_the_policy_are_told() {
    let place = Place::new("[policy.fixture.settings]\nupn = \"count\"\npath = 1\n");
    place.put_fixture("policies/a.wasm");
    let (code, printed) = place.check(&[]);
    assert_eq!((code, printed.len()), (2, 2), "{printed:?}");
    assert!(printed[0].starts_with("t.toml:3: `policy.fixture.settings.upn`: "), "{printed:?}");
    assert!(printed[1].starts_with("t.toml:4: `policy.fixture.settings.path`: "), "{printed:?}");

    let place = Place::new("[policy.fixture.settings]\nupon = \"refuse\"\n");
    place.put_fixture("policies/a.wasm");
    let (code, printed) = place.check(&[]);
    assert_eq!(code, 1);
    assert_eq!(
        printed,
        ["policies/a.wasm: the policy `fixture` refuses its settings: setting `upon` is refused"]
    );

    let digest = format!("sha256:{}", "0".repeat(64));
    let place = Place::new(&format!("policy.fixture.digest = [\"{digest}\"]"));
    place.put_fixture("policies/a.wasm");
    let (code, printed) = place.check(&[]);
    assert_eq!((code, printed.len()), (2, 1), "{printed:?}");
    assert!(
        printed[0].contains("does not allow this file; if it should, add \"sha256:"),
        "{printed:?}"
    );
}

#[test]
fn a_field_that_is_withheld_from_a_policy_that_needs_it_is_told() {
    let place = Place::new("policy.fixture.deny_fields = [\"exec:path\"]");
    place.put_fixture("policies/a.wasm");
    let (code, printed) = place.check(&[]);
    assert_eq!((code, printed.len()), (1, 1), "{printed:?}");
    assert!(
        printed[0].contains("deny_fields = [\"exec:path\"] under [policy.fixture]"),
        "{printed:?}"
    );
}

#[test]
fn an_empty_a_missing_and_an_open_directory_are_told() {
    let place = Place::new("");
    assert_eq!(
        place.check(&[]),
        (1, vec!["policies: there is no .wasm file in this directory".to_owned()])
    );
    mode(&place.path("policies"), 0o777);
    let (code, printed) = place.check(&[]);
    assert_eq!(code, 1);
    assert!(printed[0].contains("policies can be written by others (mode 0777)"), "{printed:?}");
    fs::remove_dir(place.path("policies")).unwrap();
    let (code, printed) = place.check(&[]);
    assert_eq!(
        (code, &*printed[0]),
        (1, "cannot open policies: No such file or directory (os error 2)")
    );
}

#[test]
fn a_configuration_that_others_can_write_or_that_is_missing_ends_with_2() {
    let place = Place::new("");
    mode(&place.path("t.toml"), 0o664);
    let (code, printed) = place.check(&[]);
    assert_eq!(code, 2);
    assert!(printed[0].ends_with("who could change it: chmod go-w t.toml"), "{printed:?}");
    fs::remove_file(place.path("t.toml")).unwrap();
    let (code, printed) = place.check(&[]);
    assert_eq!(
        (code, &*printed[0]),
        (2, "cannot open t.toml: No such file or directory (os error 2)")
    );
}

#[test]
fn two_policies_that_use_a_metric_s_name_otherwise_are_told() {
    let place = Place::new("[policy.heir.settings]\nupon = \"gauge ticks\"\n");
    place.put_fixture("policies/a.wasm");
    place.write("policies/b.wasm", fs::read(court::build("heir")).unwrap());
    let (code, printed) = place.check(&[]);
    assert_eq!((code, printed.len()), (1, 2), "{printed:?}");
    assert!(
        printed[1].contains("b.wasm") && printed[1].contains("metric `ticks` has"),
        "{printed:?}"
    );
    assert!(printed[1].contains("policy `fixture` uses the name with"), "{printed:?}");
}

#[test]
fn fields_of_a_tracepoint_from_the_configuration_are_checked_where_it_is() {
    let probe =
        |name: &str| format!("[[probe]]\nname = \"run\"\nattach = \"tracepoint:sched:{name}\"\n");
    let check = |configuration: &str| {
        let place = Place::new(configuration);
        let policy = fs::read(court::build("tally-tracepoint")).unwrap();
        place.write("policies/a.wasm", policy);
        place.check(&[])
    };
    let (code, printed) = check(&probe("no_such_thing"));
    assert_eq!(code, 0, "{printed:?}");
    assert!(
        printed[0].contains("fields of `run` are checked when the agent runs: "),
        "{printed:?}"
    );
    if !rustix::process::geteuid().is_root() {
        here::skip("the rest", "only root reads the formats of tracepoints");
        return;
    }
    let (code, printed) = check(&probe("sched_process_exec"));
    assert_eq!((code, printed.len()), (0, 1), "{printed:?}");
    assert!(printed[0].contains("subscribes to run"), "{printed:?}");
    // One without the field that the policy needs.
    let (code, printed) = check(&probe("sched_switch"));
    assert_eq!(code, 1, "{printed:?}");
    assert!(printed[0].contains("event `run` has no field `filename`"), "{printed:?}");
}

#[test]
fn json_has_one_object_a_line() {
    let place = Place::new("policy.absent.limits.series = 1");
    place.put_fixture("policies/a.wasm");
    place.write("policies/empty.wasm", "");
    let (code, printed) = place.check(&["--format", "json"]);
    assert_eq!(code, 1);
    let lines: Vec<serde_json::Value> =
        printed.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["policy", "problem", "note"]);
    assert_eq!(lines[0]["policy"], "fixture");
    assert_eq!(lines[0]["events"], serde_json::json!(["exec"]));
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    let code = |args: &[&str]| tipstaff().args(args).output().unwrap().status.code();
    assert_eq!(code(&["check", "--nonsense"]), Some(2));
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["check", "--help"]), Some(0));
    assert_eq!(code(&["--version"]), Some(0));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tipstaff().args(["man"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
