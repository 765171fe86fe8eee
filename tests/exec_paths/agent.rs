//! The shipped policy `agent-guard` with real programs.

use std::net::TcpListener;

use super::{Place, SECRET, can_confine};

/// What stands in the place of the home directory's secrets.
const SETTINGS: &str = "secrets = [\"~/.ssh\", \"ROOT/outside/secret\", \"ROOT/none\"]\n";

fn place() -> Place {
    Place { policy: "agent-guard", ..Place::bare() }
}

#[test]
fn an_agent_keeps_to_its_working_directory_and_its_transcript_says_what_it_did() {
    if !can_confine("an_agent_keeps_to_its_working_directory_and_its_transcript_says_what_it_did") {
        return;
    }
    let place = place();
    let allowed = TcpListener::bind("127.0.0.1:0").unwrap();
    let denied = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (allowed, denied) = (port(&allowed), port(&denied));
    place.configure(&format!("{SETTINGS}allow = [\"tcp 127.0.0.1 {allowed}\"]\n"));
    let connect = |port| {
        format!(
            "/usr/bin/python3 -I -S -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))'"
        )
    };
    let scripts = [
        ("git init -q project && echo x > project/file && cat project/file".to_owned(), true),
        ("cat ROOT/outside/file".to_owned(), true),
        ("ls ROOT/outside/secret".to_owned(), true),
        ("echo x > /dev/null".to_owned(), true),
        (connect(allowed), true),
        ("cat ROOT/outside/secret/key".to_owned(), false),
        ("echo x > ROOT/outside/file".to_owned(), false),
        ("echo x > ROOT/outside/secret/key".to_owned(), false),
        ("touch ROOT/outside/new".to_owned(), false),
        ("mkdir ROOT/none".to_owned(), false),
        (connect(denied), false),
    ];
    let results = place.each(&["--enforce"], scripts.iter().map(|(script, _)| script.as_str()));
    for ((script, works), (said, code)) in scripts.iter().zip(results) {
        assert_eq!(code == 0, *works, "{script}: {said}");
        assert!(!said.contains(SECRET), "{script}: {said}");
    }
    assert!(place.is_untouched());
    let alerts = place.report("alert");
    let root = place.directory.path().display().to_string();
    let said: Vec<String> = alerts
        .iter()
        .map(|alert| alert["message"].as_str().expect("text").replace(&root, "ROOT"))
        .collect();
    let has = |line: &str| said.iter().filter(|said| *said == line).count();
    for line in [
        "ran git init -q project",
        "ran cat project/file",
        "ran cat ROOT/outside/secret/key",
        "opened for writing ROOT/work/project/file",
        "opened for writing /dev/null",
        &format!("contacted tcp 127.0.0.1:{allowed}"),
    ] {
        assert_eq!(has(line), 1, "{line}: {said:#?}");
    }
    for line in [
        "opened for writing ROOT/outside/file",
        "opened for writing ROOT/outside/new",
        &format!("contacted tcp 127.0.0.1:{denied}"),
    ] {
        assert_eq!(has(line), 0, "{line}: {said:#?}");
    }
    let denied_here: Vec<_> = place
        .report("blocked")
        .iter()
        .map(|line| {
            let destination = line["destination"].as_str().expect("text").replace(&root, "ROOT");
            format!("{} {destination}", line["operation"].as_str().expect("text"))
        })
        .collect();
    for line in [
        "read ROOT/outside/secret/key",
        "write ROOT/outside/file",
        "write ROOT/outside/secret/key",
        "write ROOT/outside/new",
        &format!("connect 127.0.0.1:{denied}"),
    ] {
        assert_eq!(
            denied_here.iter().filter(|denied| *denied == line).count(),
            1,
            "{denied_here:#?}"
        );
    }
}

#[test]
fn only_the_programs_of_its_list_are_run_and_the_home_directory_is_its_users() {
    if !can_confine("only_the_programs_of_its_list_are_run_and_the_home_directory_is_its_users") {
        return;
    }
    let place = place();
    place.configure("programs = [\"/bin/sh\", \"/bin/cat\"]\nallow_the_rest = true\n");
    // The home directory of root, in which a test makes nothing.
    let scripts = ["cat /dev/null", "/bin/true", "cat ~root/.ssh/none", "echo x > /root/none"];
    let results = place.each(&["--enforce"], scripts);
    assert_eq!(results.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [0, 126, 1, 2]);
    // An audit changes nothing, and tells.
    let (said, output) = place.sh(&["--audit"], "/bin/true && echo x > ROOT/outside/open/file");
    assert_eq!(output.status.code(), Some(0), "{said}");
    let would = place.report("blocked");
    let told: Vec<_> = would.iter().map(|line| line["operation"].as_str().expect("text")).collect();
    assert_eq!(told, ["execute", "write"], "{would:#?}");
}
