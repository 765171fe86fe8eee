//! What rules about files and programs do not keep: each of these limits stands in docs/guardrails.md.

use std::{fs, os::unix::net::UnixListener};

use super::{FILES, PYTHON, Place, SECRET, can_confine, support::copy_program};

#[test]
fn code_that_is_brought_along_runs_whatever_programs_are_allowed() {
    if !can_confine("code_that_is_brought_along_runs_whatever_programs_are_allowed") {
        return;
    }
    let place = Place::new(
        "",
        &format!(
            "default deny\nallow execute /bin/sh\nallow execute {PYTHON}\nallow execute -/lib64/ld-linux-x86-64.so.2\n"
        ),
    );
    fs::write(place.path("work/script"), "echo from a script").unwrap();
    copy_program("/bin/echo", place.path("work/echo"));
    let scripts = [
        ("./echo denied", None),
        ("/lib64/ld-linux-x86-64.so.2 ./echo by the loader", Some("by the loader\n")),
        ("sh script", Some("from a script\n")),
        (
            "/usr/bin/python3 -I -S -c 'import os; f = os.memfd_create(\"x\"); os.write(f, open(\"echo\", \"rb\").read()); os.execve(f, [\"echo\", \"from memory\"], {})'",
            Some("from memory\n"),
        ),
    ];
    let results = place.each(&["--enforce"], scripts.map(|(script, _)| script));
    for ((script, expected), (said, code)) in scripts.iter().zip(results) {
        match expected {
            Some(expected) => assert_eq!(said, *expected, "{script}"),
            None => assert_eq!(code, 126, "{script}: {said}"),
        }
    }
}

#[test]
fn what_is_no_reading_listing_or_writing_goes_on() {
    if !can_confine("what_is_no_reading_listing_or_writing_goes_on") {
        return;
    }
    let place = Place::new(FILES, "");
    let socket = UnixListener::bind(place.path("outside/socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let scripts = [
        "stat -c %s ROOT/outside/secret/key",
        "chmod 600 ROOT/outside/file",
        "touch -d 2001-01-01 ROOT/outside/file",
        "test -r ROOT/outside/secret/key && test -w ROOT/outside/file",
        "cd ROOT/outside/secret",
        "/usr/bin/python3 -I -S -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"ROOT/outside/socket\")'",
    ];
    for (script, (said, code)) in scripts.iter().zip(place.each(&["--enforce"], scripts)) {
        assert_eq!(code, 0, "{script}: {said}");
    }
    assert!(socket.accept().is_ok());
    let modified = fs::metadata(place.path("outside/file")).unwrap().modified().unwrap();
    assert!(modified.elapsed().unwrap().as_secs() > 86_400 * 365);
}

#[test]
fn another_name_of_the_same_file_that_was_there_before_is_another_path() {
    if !can_confine("another_name_of_the_same_file_that_was_there_before_is_another_path") {
        return;
    }
    let place = Place::new(FILES, "");
    fs::hard_link(place.path("outside/secret/key"), place.path("work/name")).unwrap();
    let (said, output) = place.sh(&["--enforce"], "cat name");
    assert_eq!(output.stdout, SECRET.as_bytes(), "{said}");
}

#[test]
fn a_descriptor_that_was_open_before_stays_open() {
    if !can_confine("a_descriptor_that_was_open_before_stays_open") {
        return;
    }
    let place = Place::new(FILES, "");
    let mut exec = place.exec(&["--enforce"], &["/bin/cat"]);
    let output =
        exec.stdin(fs::File::open(place.path("outside/secret/key")).unwrap()).output().unwrap();
    assert_eq!(output.stdout, SECRET.as_bytes());
}

#[test]
fn what_is_made_later_beside_what_is_denied_is_denied_as_well() {
    if !can_confine("what_is_made_later_beside_what_is_denied_is_denied_as_well") {
        return;
    }
    let files = FILES.replace("allow write .", "allow write .\nallow write ROOT/outside");
    let place = Place::new(&files, "");
    // `outside` is on the way to the secret: files beside it that were there are read, new ones are not.
    let scripts = [
        ("cat ROOT/outside/file && cat ROOT/outside/open/file", 0),
        ("echo new > ROOT/outside/open/new && cat ROOT/outside/open/new", 0),
        ("echo new > ROOT/outside/new", 0),
        ("cat ROOT/outside/new", 1),
        // Under another name the directory is the same.
        ("mv ROOT/outside/secret ROOT/outside/other && cat ROOT/outside/other/key", 1),
    ];
    let results = place.each(&["--enforce"], scripts.map(|(script, _)| script));
    for ((script, expected), (said, code)) in scripts.iter().zip(results) {
        assert_eq!(code, *expected, "{script}: {said}");
    }
}

#[test]
fn nobody_gains_rights_by_running_a_program() {
    if !can_confine("nobody_gains_rights_by_running_a_program") {
        return;
    }
    let place = Place { user: "nobody", ..Place::new(FILES, "") };
    let setuid = place.path("outside/id");
    copy_program("/usr/bin/id", &setuid);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs::set_permissions(&setuid, mode).unwrap();
    for (flags, user) in [(&["--enforce"][..], "nobody"), (&["--audit"], "root"), (&[], "root")] {
        let (said, _) = place.sh(flags, "ROOT/outside/id -un");
        assert_eq!(said.lines().next(), Some(user), "{flags:?}: {said}");
    }
}
