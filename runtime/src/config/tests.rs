use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use super::*;
use crate::{
    guard::{Grant, OnQuarantine, Strength},
    manifest::{Manifest, Setting, SettingType},
    policy::{CompileLimits, Limits},
};

fn config(text: &str) -> Config {
    Config::resolve_text(Some(Path::new("/etc/t.toml")), text, &Flags::default()).unwrap()
}

/// The problems, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let error = Config::resolve_text(Some(Path::new("t")), text, &Flags::default()).unwrap_err();
    error
        .0
        .iter()
        .map(|problem| problem.to_string().strip_prefix("t:").unwrap().to_owned())
        .collect()
}

#[test]
fn no_file_is_needed() {
    let none = Config::resolve_text(None, "", &Flags::default()).unwrap();
    assert_eq!(none.agent, Agent::default());
    assert_eq!(none.limits, Limits::default());
    assert_eq!(none.metrics, Metrics::default());
    assert_eq!(none.policy("any").limits, Limits::default());
}

#[test]
fn the_defaults_of_the_reference_are_the_defaults() {
    let mut text = String::new();
    for (header, keys) in [
        ("agent", <typed::Agent as document::Section>::keys()),
        ("compiler", <typed::Compiler as document::Section>::keys()),
        ("metrics", <typed::Metrics as document::Section>::keys()),
        ("guard", <typed::Guard as document::Section>::keys()),
        ("limits", <typed::Limits as document::Section>::keys()),
    ] {
        writeln!(text, "[{header}]").unwrap();
        // Words stand where leaving the key out is the only way to say it.
        let is_toml = |default: &str| default.starts_with('"') || !default.contains(' ');
        let keys = keys.iter().filter(|key| is_toml(key.default));
        for key in keys.filter(|key| !key.name.ends_with("_dir")) {
            writeln!(text, "{} = {}", key.name, key.default).unwrap();
        }
    }
    let all = Config { file: None, ..config(&text) };
    let mut none = Config::resolve_text(None, "", &Flags::default()).unwrap();
    assert!(all.metrics.asked && !none.metrics.asked);
    none.metrics.asked = true;
    assert_eq!(all, none);
}

#[test]
fn docs_configuration_md_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, reference()).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == reference(),
        "docs/configuration.md is not what the keys say: run with BLESS=1 to rewrite it"
    );
}

#[test]
fn every_key_is_read() {
    let config = config(
        r#"
        [agent]
        name = "edge-1"
        mode = "observe"
        policies = "policies"
        cache_dir = "/c"
        state_dir = "/s"
        latency = "5ms"
        keys = 4_096
        cpu_percent = 7
        events_per_cgroup = 100_000
        [compiler]
        cpu = "1m"
        memory = "2GiB"
        [metrics]
        listen = "0.0.0.0:1"
        allow_remote = true
        idle_expiry = "1.5h"
        [limits]
        memory = "16MiB"
        queue = 65536
        alerts_per_minute = 0
        [[probe]]
        name = "rq"
        attach = "tracepoint:block:block_rq_complete"
        [policy.my-policy]
        digest = ["sha256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"]
        deny_fields = ["proc.args", "exec:args", "rq:sector"]
        filter = { exec = "uid >= 1000", rq = "sector = 0" }
        limits.memory = "8MiB"
        limits.cpu_per_call = "1s"
        settings = { any = 1 }
        mode = "audit"
        grants = ["guard-network"]
        unpinned = true
        require = "prevent"
        on_quarantine = "release"
        [guard]
        always_allow = ["tcp 10.0.0.53 53"]
        protected = ["cgroup:/system.slice/ssh.service", "/usr/sbin/sshd"]
        actions_per_minute = 5
        breaker = 7
        "#,
    );
    assert_eq!(
        config.guard,
        Guard {
            always_allow: vec![crate::guard::Rule::always_allow("tcp 10.0.0.53 53").unwrap()],
            protected: vec![
                Protected::Cgroup("/system.slice/ssh.service".into()),
                Protected::Executable("/usr/sbin/sshd".into()),
            ],
            actions_per_minute: 5,
            breaker: 7,
        }
    );
    assert_eq!(
        config.agent,
        Agent {
            name: "edge-1".into(),
            mode: Mode::Observe,
            policies: Some("/etc/policies".into()),
            policy_files: vec![],
            cache_dir: "/c".into(),
            state_dir: "/s".into(),
            latency: Duration::from_millis(5),
            keys: 4_096,
            cpu_percent: Some(7),
            events_per_cgroup: Some(100_000),
        }
    );
    let (cpu, wall) = (Duration::from_mins(1), Duration::from_mins(10));
    let compiler = CompileLimits { cpu, wall, memory: 2 << 30 };
    assert_eq!(config.compiler, compiler);
    assert_eq!(config.metrics.listen, Listen::On("0.0.0.0:1".parse().unwrap()));
    assert_eq!(config.metrics.idle_expiry, Duration::from_mins(90));
    let attach = Attach::Tracepoint { category: "block".into(), name: "block_rq_complete".into() };
    assert_eq!(config.probes, [Probe { name: "rq".into(), attach, line: 23 }]);
    let policy = config.policy("my-policy");
    assert_eq!(
        policy.digest,
        ["sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]
    );
    assert_eq!(
        policy.deny_fields.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["proc.args", "exec:args", "rq:sector"]
    );
    assert_eq!((policy.mode, policy.grants), (Mode::Audit, vec![Grant::Network]));
    assert!(policy.unpinned);
    assert_eq!(policy.require, Some(Strength::Prevent));
    assert_eq!(policy.on_quarantine, OnQuarantine::Release);
    let limits =
        Limits { memory: 16 << 20, queue: 1 << 16, alerts_per_minute: 0, ..Limits::default() };
    assert_eq!(config.policy("other").limits, limits);
    assert_eq!(
        policy.limits,
        Limits { memory: 8 << 20, cpu_per_call: Duration::from_secs(1), ..limits.clone() }
    );
}

#[test]
fn the_command_line_goes_over_the_file() {
    let text = "agent.policies = \"/in/file\"\nmetrics.listen = \"127.0.0.1:1\"";
    let resolve =
        |flags| Config::resolve_text(Some(Path::new("/etc/t.toml")), text, &flags).unwrap();
    let flags = Flags {
        name: Some(Name("other".into())),
        policies: Some("here".into()),
        policy: vec![],
        metrics: Some(Listen::Off),
    };
    let config = resolve(flags);
    assert_eq!(config.agent.name, "other");
    assert_eq!(config.agent.policies, Some(PathBuf::from("here")));
    assert_eq!(config.metrics.listen, Listen::Off);
    let config = resolve(Flags { policy: vec!["a.wasm".into()], ..Flags::default() });
    assert_eq!(config.agent.policies, None, "files that are named are all that is loaded");
    assert_eq!(config.agent.policy_files, [PathBuf::from("a.wasm")]);
}

#[test]
fn every_problem_is_told_with_line_key_and_what_was_expected() {
    assert_eq!(
        problems(
            r#"agent.latency = 7
agent.mode = "active"
agent.name = "No"
[metric]
listen = "x"
[metrics]
listn = "off"
listen = "localhost:1"
[limits]
memory = "1KiB"
series = 0
zzzzzzzzzz = 1
[policy.a_b]
[policy.a]
digest = ["sha256:00", 7]
deny_fields = "x"
[guard]
always_allow = ["deny tcp"]
protected = ["4711", "cgroup:/a/../b", "sshd"]
"#
        ),
        [
            r#"1: `agent.latency`: expected a time from "1ms" to "10s" in ms, s, m or h, found the integer 7"#,
            r#"2: `agent.mode`: expected "observe" or "audit" or "enforce", found the string "active""#,
            r#"3: `agent.name`: expected a name of a-z, 0-9 and -, that begins with a letter, at most 64 bytes, found the string "No""#,
            "4: `metric`: unknown key; the nearest is `metrics`",
            "7: `metrics.listn`: unknown key; the nearest is `listen`",
            r#"8: `metrics.listen`: expected "ADDRESS:PORT" such as "127.0.0.1:9470" or "[::1]:9470", or "off", found the string "localhost:1""#,
            r#"10: `limits.memory`: expected a size from "2MiB" to "4GiB" in B, KiB, MiB or GiB, found the string "1KiB""#,
            "11: `limits.series`: expected an integer from 1 to 1000000, found the integer 0",
            "12: `limits.zzzzzzzzzz`: unknown key, expected one of `cpu_per_call`, `cpu_percent`, `start_up`, `memory`, `table_elements`, `parts`, `host_call`, `handles`, `file`, `subscriptions`, `batch`, `queue`, `series`, `alerts_per_minute`, `alerts_burst`, `log_lines_per_minute`, `log_lines_burst`, `state`, `actions_per_minute`, `tables`, `rules`, `table_text`",
            r#"13: `policy.a_b`: "a_b" is not a name: expected a name of a-z, 0-9 and -, that begins with a letter, at most 64 bytes"#,
            r#"15: `policy.a.digest[0]`: expected "sha256:" and 64 hexadecimal digits, as `tipstaff inspect FILE` prints, found the string "sha256:00""#,
            r#"15: `policy.a.digest[1]`: expected "sha256:" and 64 hexadecimal digits, as `tipstaff inspect FILE` prints, found the integer 7"#,
            r#"16: `policy.a.deny_fields`: expected an array, each "FIELD" or "KIND:FIELD", such as "proc.args" or "exec:args", found the string "x""#,
            "18: `guard.always_allow[0]`: protocol: expected `any`, `tcp` or `udp`, found `deny`",
            r#"19: `guard.protected[0]`: 4711 is another process tomorrow: expected its executable or its cgroup, "cgroup:/PATH" or the absolute path of an executable, such as "cgroup:/system.slice/ssh.service" or "/usr/sbin/sshd""#,
            "19: `guard.protected[1]`: expected the path of a cgroup, from `/` and without `.`, `..` and `//`, found `/a/../b`",
            r#"19: `guard.protected[2]`: expected "cgroup:/PATH" or the absolute path of an executable, such as "cgroup:/system.slice/ssh.service" or "/usr/sbin/sshd", found the string "sshd""#,
        ]
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    assert_eq!(
        problems("a = 1\n[agent\n[metrics]\nlisten = \n"),
        [
            "2: not TOML: unclosed table, expected `]`",
            "4: not TOML: string values must be quoted, expected literal string"
        ]
    );
    assert!(
        problems("agent.name = \"a\"\nagent.name = \"b\"")[0]
            .starts_with("2: not TOML: duplicate key")
    );
    assert!(problems("probe = 1")[0].contains("1: `probe`: expected an array"));
    assert!(problems("agent = [[1]]")[0].contains("`agent`: expected a table, found an array"));
}

#[test]
fn probes_need_name_and_attach_and_a_new_name() {
    let text = r#"
[[probe]]
name = "exec"
attach = "kprobe:vfs_read"
[[probe]]
attach = "tracepoint:a:b"
[[probe]]
name = "mine"
attach = "tracepoint:a:../b"
"#;
    assert_eq!(
        problems(text),
        [
            "4: `probe[0].attach`: attach type `kprobe` is not supported yet; there is `tracepoint:CATEGORY:NAME`",
            r#"9: `probe[2].attach`: expected "tracepoint:CATEGORY:NAME", found the string "tracepoint:a:../b""#,
        ]
    );
    let probe = |name: &str| format!("[[probe]]\nname = \"{name}\"\nattach = \"tracepoint:a:b\"\n");
    assert_eq!(
        problems(&format!(
            "[[probe]]\nname = \"a\"\n{}{}{}",
            probe("exec"),
            probe("b"),
            probe("b")
        )),
        [
            "1: `probe`: a probe needs `attach`",
            "4: `probe.name`: `exec` is a built-in event kind, choose another name",
            "10: `probe.name`: there is another probe `b`, choose another name",
        ]
    );
}

#[test]
fn a_denied_field_that_does_not_exist_is_an_error() {
    assert_eq!(
        problems("policy.a.deny_fields = [\"proc.arg\", \"exce:args\", \"exec:argz\"]"),
        [
            "1: `policy.a.deny_fields`: there is no field `proc.arg`; the nearest is `proc.args`",
            "1: `policy.a.deny_fields`: there is no event kind `exce`; the nearest is `exec`",
            "1: `policy.a.deny_fields`: there is no field `argz`; the nearest is `args`",
        ]
    );
}

#[test]
fn conditions_are_checked_against_their_kinds() {
    assert_eq!(
        problems(
            "policy.a.filter = { exce = 'uid = 0', exec = 'uit = 0', connect = 'port = http' }"
        ),
        [
            "1: `policy.a.filter.connect`: field `port` is a number; `http` is not: expected digits, or 0x and hexadecimal digits",
            "1: `policy.a.filter.exce`: there is no event kind `exce`; the nearest is `exec`",
            "1: `policy.a.filter.exec`: event `exec` has no field `uit`; the nearest is `uid`",
        ]
    );
    assert_eq!(
        problems("policy.a.filter.exec = 'uid = 0 and uid = 1'"),
        ["1: `policy.a.filter.exec`: `uid = 0 and uid = 1` holds for no event"]
    );
    assert_eq!(
        problems("policy.a.filter.exec = 1"),
        [
            "1: `policy.a.filter.exec`: expected conditions by event kind, such as `exec = \"uid >= 1000\"`, found the integer 1"
        ]
    );
}

#[test]
fn metrics_are_not_served_to_other_machines_unless_it_says_so() {
    assert_eq!(
        problems("\nmetrics.listen = \"0.0.0.0:80\""),
        [
            "2: `metrics.listen`: 0.0.0.0:80 is not a loopback address, so other machines may read all metrics; \
          add `allow_remote = true` to [metrics] if they may, or listen on 127.0.0.1:80"
        ]
    );
    let flags = Flags { metrics: Some(Listen::On("[::]:80".parse().unwrap())), ..Flags::default() };
    let error = Config::resolve_text(None, "", &flags).unwrap_err().to_string();
    assert!(error.starts_with("--metrics: [::]:80 is not a loopback address"), "{error}");
    assert_eq!(
        config("metrics.listen = \"[::1]:80\"").metrics.listen,
        Listen::On("[::1]:80".parse().unwrap())
    );
}

#[test]
fn no_control_character_of_the_file_reaches_the_terminal() {
    let error = Config::resolve_text(
        Some(Path::new("t")),
        "\"\\u001b[31m\" = 1\nagent.name = \"\\u001b\"",
        &Flags::default(),
    );
    let shown = error.unwrap_err().to_string();
    assert!(!shown.replace('\n', "").contains(char::is_control), "{shown:?}");
}

fn manifest(settings: &[(&str, SettingType, Option<&str>)]) -> Manifest {
    let settings = settings.iter().map(|&(name, ty, default)| Setting {
        name: name.into(),
        ty,
        doc: format!("what {name} does"),
        default: default.map(str::to_owned),
    });
    Manifest {
        name: "p".into(),
        version: "1".into(),
        subscriptions: vec![],
        settings: settings.collect(),
        tick_ns: None,
    }
}

#[test]
fn settings_that_do_not_fit_the_manifest_are_told_with_their_line() {
    let text =
        "[policy.p.settings]\nport = [1]\nports = [1, \"a\"]\nratio = \"x\"\ndate = 2020-01-01\n";
    let manifest = manifest(&[
        ("ports", SettingType::Integers, None),
        ("ratio", SettingType::Number, None),
        ("date", SettingType::Text, None),
        ("needed", SettingType::Texts, None),
    ]);
    let bad = Config::resolve_text(Some(Path::new("t")), text, &Flags::default()).unwrap();
    let error = bad.policy("p").settings.check(&manifest, bad.file.as_deref()).unwrap_err();
    assert_eq!(
        error.to_string().lines().collect::<Vec<_>>(),
        [
            "t:2: `policy.p.settings.port`: the policy `p` has no setting `port`; it takes ports, ratio, date, needed",
            "t:3: `policy.p.settings.ports`: setting `ports` of the policy `p` is array, expected integers as in `ports = [1, 2]`",
            "t:4: `policy.p.settings.ratio`: setting `ratio` of the policy `p` is string, expected number as in `ratio = 0.5`",
            "t:5: `policy.p.settings.date`: setting `date` of the policy `p` is datetime, expected text as in `date = \"a string\"`",
            "t: `policy.p.settings.needed`: the policy `p` needs the setting `needed` (what needed does): \
             give it in [policy.p.settings] as in `needed = [\"a\", \"b\"]`",
        ]
    );
    let good = config("policy.p.settings = { ports = [0x50], ratio = 1, date = 'd', needed = [] }");
    let settings = good.policy("p").settings.check(&manifest, None).unwrap();
    let settings: Vec<_> =
        settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    assert_eq!(settings, ["ports = [80]", "ratio = 1.0", "date = \"d\"", "needed = []"]);
}

#[test]
fn a_file_is_loaded_under_the_rules_of_trust() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("t.toml");
    fs::write(&file, "agent.latency = \"7ms\"\nbad = 1").unwrap();
    let load = || Config::load(Some(&file), &Flags::default()).map_err(|error| error.to_string());
    let shown = file.display();
    assert!(load().unwrap_err().starts_with(&format!("{shown}:2: `bad`: unknown key")));
    fs::write(&file, "agent.latency = \"7ms\"").unwrap();
    assert_eq!(load().unwrap().agent.latency, Duration::from_millis(7));
    fs::write(&file, b"a = 1\nb = \"\xff\"").unwrap();
    assert_eq!(load().unwrap_err(), format!("{shown}:2: expected UTF-8, found other bytes"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load().unwrap_err().ends_with(&format!("chmod go-w {shown}")));
    fs::remove_file(&file).unwrap();
    assert_eq!(
        load().unwrap_err(),
        format!("cannot open {shown}: No such file or directory (os error 2)")
    );
}
