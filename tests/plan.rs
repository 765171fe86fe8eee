//! `tipstaff plan`: what would be done for policies on this kernel.

mod kernel;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Plans these policies, by a command that stands before ours.
fn plan(before: &[&str], place: &Path, policies: &[&str], settings: &str, format: &str) -> Output {
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
    let config = place.join("t.toml");
    fs::write(&config, format!("agent.cache_dir = \"cache\"\n{settings}")).unwrap();
    let program = [env!("CARGO_BIN_EXE_tipstaff")];
    let all: Vec<&str> = before.iter().copied().chain(program).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).args(["plan", "--format", format, "--config"]).arg(config);
    for policy in policies {
        command.arg("--policy").arg(kernel::shipped::shipped(policy));
    }
    command.output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn find<'a>(lines: &'a [Value], ty: &str, key: &str, value: &str) -> &'a Value {
    lines
        .iter()
        .find(|line| line["type"] == ty && line[key] == value)
        .unwrap_or_else(|| panic!("no {ty} {value} in {lines:#?}"))
}

#[test]
fn the_plan_says_what_is_attached_collected_and_allocated() {
    let Some(_guard) = kernel::alone() else { return };
    let place = tempfile::tempdir().unwrap();
    let deny = "[policy.syscall-profile]\ndeny_fields = [\"syscall_stats:timed\", \"syscall_stats:latency\"]\n";
    let policies = ["syscall-profile", "exec-audit"];
    let said = lines(&plan(&[], place.path(), &policies, deny, "json"));
    let policy = find(&said, "policy", "policy", "syscall-profile");
    let subscription = &policy["subscriptions"][0];
    assert_eq!(subscription["kind"], "syscall_stats");
    assert_eq!(subscription["every_ns"], 5_000_000_000_u64);
    let kind = find(&said, "kind", "kind", "syscall_stats");
    let hooks = kind["hooks"].as_array().unwrap();
    assert!(hooks.contains(&"count@tp_btf:sys_exit".into()), "{kind:#}");
    // Latencies are withheld: nothing measures them.
    assert!(!hooks.iter().any(|hook| hook.as_str().unwrap().contains("sys_enter")), "{kind:#}");
    let collected = kind["collected"].as_array().unwrap();
    assert!(collected.contains(&"errno".into()) && !collected.contains(&"latency".into()));
    assert!(kind["cost"].as_str().unwrap().contains("ns"));
    let exec = find(&said, "kind", "kind", "exec");
    assert_eq!(exec["cost"], Value::Null, "what was not measured is not made up");
    let map = find(&said, "map", "map", "CALLS");
    assert_eq!(map["entries"], 32_768);
    assert!(map["bytes"].as_u64().unwrap() > 32_768 * 16);
    assert!(!said.iter().any(|line| line["map"] == "LATENCIES"));
    let sum: u64 = said
        .iter()
        .filter(|line| line["type"] == "map")
        .map(|m| m["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(said.last().unwrap()["bytes"], sum);

    let text = plan(&[], place.path(), &policies, "", "text");
    let text = String::from_utf8(text.stdout).unwrap();
    for line in ["policy syscall-profile", "kind syscall_stats: coverage ", "map LATENCIES of"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn without_the_right_to_load_probes_it_says_what_it_cannot_know() {
    let place = tempfile::tempdir().unwrap();
    let before = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    if !rustix::process::geteuid().is_root() {
        kernel::here::skip(
            "without_the_right_to_load_probes",
            "taking a capability away needs root",
        );
        return;
    }
    let said = lines(&plan(&before, place.path(), &["exec-audit"], "", "json"));
    find(&said, "policy", "policy", "exec-audit");
    assert!(!said.iter().any(|line| line["type"] == "kind"));
    let note = said.iter().find(|line| line["type"] == "note").unwrap();
    let message = note["message"].as_str().unwrap();
    assert!(message.starts_with("hooks, coverage and maps are not known: "), "{message}");
    assert!(message.contains("CAP_SYS_ADMIN"), "{message}");
}

#[test]
fn budgets_are_said_with_the_kinds_that_they_are_for() {
    let Some(_guard) = kernel::alone() else { return };
    let place = tempfile::tempdir().unwrap();
    let policies = ["syscall-profile", "exec-audit", "file-watch"];
    let settings = "agent.events_per_cgroup = 5000\nagent.cpu_percent = 3\n[policy.file-watch.settings]\npaths = [\"/nowhere\"]\n";
    let said = lines(&plan(&[], place.path(), &policies, settings, "json"));
    let budget = said.iter().find(|line| line["type"] == "cgroup_budget").unwrap();
    assert_eq!(budget["events_per_second"], 5000);
    let kinds = budget["kinds"].as_array().unwrap();
    assert!(kinds.contains(&"open".into()), "{budget}");
    // Added up in the kernel, and what the process table is kept by.
    assert!(
        !kinds.contains(&"syscall_stats".into()) && !kinds.contains(&"exec".into()),
        "{budget}"
    );
    let own = said.iter().find(|line| line["type"] == "agent_budget").unwrap();
    assert_eq!((&own["cpu_percent"], &own["kinds"]), (&3.into(), &budget["kinds"]));
    let text = plan(&[], place.path(), &policies, settings, "text");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("agent: 3 % of a core, else fewer events are taken of "), "{text}");
    assert!(text.contains("each cgroup: 5000 events per second of "), "{text}");
}
