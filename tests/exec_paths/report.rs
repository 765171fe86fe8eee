//! What is told of attempts on files, and that audit changes nothing.

use std::process::Command;

use super::{FILES, Place, SECRET, can_confine};

#[test]
fn each_attempt_is_told_with_who_tried_and_the_rule_and_that_it_is_inferred() {
    if !can_confine("each_attempt_is_told_with_who_tried_and_the_rule_and_that_it_is_inferred") {
        return;
    }
    let place = Place::new(FILES, "");
    let script = "cat ROOT/outside/secret/key; cat ROOT/outside/file; rm -f ROOT/outside/file
                  mv a ROOT/outside/b; ln -s ROOT/outside link; head -c 1 link/secret/key; echo x > ROOT/outside/new
                  cat ROOT/none; echo x > a; ls ROOT/outside/secret; true";
    for (flags, verdict, code) in [
        (&["--enforce"][..], "denied", 0),
        (&["--enforce", "--fail-on-block"], "denied", 123),
        (&["--audit"], "would_deny", 0),
    ] {
        let (said, output) = place.sh(flags, &format!("echo x > a; {script}"));
        assert_eq!(output.status.code(), Some(code), "{said}");
        let root = place.directory.path().display().to_string();
        let mut told: Vec<_> = place
            .report("blocked")
            .iter()
            .map(|line| {
                assert_eq!(line["verdict"], verdict, "{line}");
                assert_eq!(
                    (&line["policy"], &line["scope"]),
                    (&"confined".into(), &"command".into())
                );
                let inferred = line["inferred"].as_str().expect("text");
                let expected = if verdict == "denied" {
                    "it failed, and the table denies it; permissions may deny it, too"
                } else {
                    "the table denies this path"
                };
                assert_eq!(inferred, expected);
                let text = |name: &str| line[name].as_str().expect("text").replace(&root, "ROOT");
                let command = line["command"][0].as_str().expect("text");
                format!("{command} {} {}: {}", text("operation"), text("destination"), text("rule"))
            })
            .collect();
        told.sort();
        let keys = "deny list,read ROOT/outside/secret";
        let expected = [
            "/bin/sh write ROOT/outside/new: default deny".to_owned(),
            format!("cat read ROOT/outside/secret/key: {keys}"),
            format!("head read ROOT/outside/secret/key: {keys}"),
            format!("ls list ROOT/outside/secret: {keys}"),
            "mv rename ROOT/outside/b: default deny".to_owned(),
            "rm remove ROOT/outside/file: default deny".to_owned(),
        ];
        assert_eq!(told, expected, "{flags:?}");
        let reason = place.report("blocked").iter().any(|line| line["reason"] == "keys");
        assert!(reason);
        let totals = place.report("blocked-total");
        let counted = if verdict == "denied" { (6, 0) } else { (0, 6) };
        assert_eq!(totals[0]["inferred_denied"], counted.0);
        assert_eq!(totals[0]["inferred_would_deny"], counted.1);
        assert_eq!((&totals[0]["denied"], &totals[0]["lost"]), (&0.into(), &0.into()));
        let restored = Command::new("sh")
            .arg("-c")
            .arg("rm -rf work/* outside/new outside/b; printf outside > outside/file; chmod 666 outside/file")
            .current_dir(place.directory.path())
            .status();
        assert!(restored.expect("runs").success());
    }
}

#[test]
fn in_audit_nothing_is_put_under_landlock() {
    if !can_confine("in_audit_nothing_is_put_under_landlock") {
        return;
    }
    let place = Place::new(FILES, "default deny\n");
    let script = "cat ../outside/secret/key; grep NoNewPrivs /proc/self/status";
    let trace = place.path("trace");
    // The first run compiles the policy, in a child that is put under Landlock.
    let (said, _) = place.sh(&["--audit"], script);
    assert!(said.contains(SECRET), "{said}");
    for (flag, calls) in [("--audit", false), ("--enforce", true)] {
        let exec = place.exec(&[flag], &["/bin/sh", "-c", script]);
        let mut strace = Command::new("strace");
        let calls_of =
            "trace=landlock_create_ruleset,landlock_add_rule,landlock_restrict_self,prctl";
        strace.args(["-f", "-qq", "-e", calls_of, "-o"]).arg(&trace).arg(exec.get_program());
        let output =
            strace.args(exec.get_args()).current_dir(place.path("work")).output().expect("runs");
        let text = place.text("trace");
        assert_eq!(text.contains("landlock_"), calls, "{flag}: {text}");
        assert_eq!(text.contains("PR_SET_NO_NEW_PRIVS"), calls, "{flag}: {text}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.contains(SECRET), !calls, "{flag}: {said}");
        assert_eq!(said.contains("NoNewPrivs:\t0"), !calls, "{flag}: {said}");
    }
}
