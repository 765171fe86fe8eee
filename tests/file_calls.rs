//! open, unlink and rename on the running kernel, with exact counts. Needs root:
//! elsewhere each test says why it is skipped, except in CI, where it fails.

#[path = "kernel/files.rs"]
mod files;
mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use files::{bytes, given, python, recording};
use kernel::{
    Event, Load, PYTHON, Recording, alone, here::ways_program, sees_uring, vm::rounds, ways,
};
use rustix::fs::{FileType, Mode};
use tipstaff_events::{
    catalogue::{open, rename, unlink},
    wire::{MAX_TEXT, ON_BIT},
};
use tipstaff_runtime::{probe::RingSizes, queue::Cause};

const ENOENT: i64 = 2;
const ENAMETOOLONG: i64 = 36;

/// Opens, renames and removes files all the time.
fn load(folder: &Path) -> Load {
    let script = "while :; do echo > load; mv load other; rm other; done";
    Load::start(Command::new("/bin/sh").args(["-c", script]).current_dir(folder))
}

/// Calls and errors by system call, as `strace -f -c` counts them.
fn strace_counts(summary: &str) -> BTreeMap<String, (u64, u64)> {
    summary
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (calls, errors) = match words.len() {
                5 => (words[3].parse().ok()?, 0),
                6 => (words[3].parse().ok()?, words[4].parse().ok()?),
                _ => return None,
            };
            Some((words[words.len() - 1].to_owned(), (calls, errors)))
        })
        .collect()
}

#[test]
fn calls_and_failures_are_as_many_as_strace_counts_while_others_call() {
    let Some(_guard) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let others = tempfile::tempdir().unwrap();
    let script = "
import os, threading
def work(name):
    for i in range(50):
        path = f'{name}{i}'
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.rename(path, path + 'x')
        os.unlink(path + 'x')
        for call in (os.unlink, os.rmdir, lambda path: os.rename(path, 'y')):
            try: call('missing')
            except OSError: pass
        os.mkdir(path)
        os.rmdir(path)
threads = [threading.Thread(target=work, args=(name,)) for name in 'abc']
for thread in threads: thread.start()
for thread in threads: thread.join()
pid = os.fork()
if pid == 0:
    work('child')
    os._exit(0)
os.wait()
print(os.getpid(), pid)
";
    for round in 0..rounds(20) {
        let mut recording = recording();
        let load = load(others.path());
        let summary = folder.path().join("summary");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-c", "-o"])
            .arg(&summary)
            .args([PYTHON, "-I", "-S", "-c", script])
            .current_dir(folder.path())
            .stdout(Stdio::piped());
        let mut strace = strace.spawn().unwrap();
        while strace.try_wait().unwrap().is_none() {
            recording.drain();
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = strace.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        drop(load);
        let pids: Vec<u64> = String::from_utf8(output.stdout)
            .unwrap()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        let counts = strace_counts(&fs::read_to_string(summary).unwrap());
        for (kind, names) in [
            (open::KIND, &["open", "openat", "openat2", "creat"][..]),
            (unlink::KIND, &["unlink", "unlinkat", "rmdir"]),
            (rename::KIND, &["rename", "renameat", "renameat2"]),
        ] {
            let expected = names
                .iter()
                .filter_map(|&name| counts.get(name))
                .fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
            let seen: Vec<Event> = recording
                .of(kind)
                .into_iter()
                .filter(|event| pids.contains(&event.number("pid")))
                .collect();
            let failed = seen.iter().filter(|event| event.result() < 0).count();
            assert_eq!((seen.len() as u64, failed as u64), expected, "kind {kind}, round {round}");
        }
        assert_eq!(recording.lost(), []);
    }
}

#[test]
fn failed_opens_say_what_was_asked_for() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let pid = python(
        "
import os
for path in ('missing', '/missing/too', 'n' * 256, 'd/' * 3000):
    try: os.open(path, os.O_RDONLY)
    except OSError: pass
",
        &root,
    );
    let opens = recording.of_process(open::KIND, pid);
    let long_name = "n".repeat(256);
    for (path_given, path, error) in [
        ("missing", root.join("missing"), ENOENT),
        ("/missing/too", "/missing/too".into(), ENOENT),
        (&long_name, root.join(&long_name), ENAMETOOLONG),
    ] {
        let [event] = given(&opens, path_given.as_bytes())[..] else { panic!("{path_given}") };
        assert_eq!((event.text("path"), event.result()), (bytes(&path), -error));
        assert!(event.is_absent("file_state") && !event.is_cut("path"));
    }
    let long: Vec<_> = opens.iter().filter(|event| event.is_cut("path_given")).collect();
    let [long] = long[..] else { panic!("{long:?}") };
    assert_eq!(long.text("path_given").len(), MAX_TEXT);
    assert!(long.text("path_given").starts_with(b"d/d/d/"));
    assert!(long.is_cut("path") && long.text("path").starts_with(bytes(&root.join("d/d"))));
    assert_eq!((long.text("path").len(), long.result()), (MAX_TEXT, -ENAMETOOLONG));
}

#[test]
fn calls_by_the_32_bit_table_are_decoded_with_it() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let (pid, results) = ways(&["compat", root.to_str().unwrap()]);
    assert_eq!(results[..4], [-ENOENT, 0, 0, 0]);
    let opens = recording.of_process(open::KIND, pid);
    let ones = given(&opens, b"one");
    assert_eq!(ones.len(), 1000);
    for event in ones {
        assert_eq!((event.text("path"), event.name("via")), (bytes(&root.join("one")), "compat"));
        assert_eq!((event.number("mode"), event.number("flags") & 0o103), (0o600, 0o102));
    }
    let [two] = given(&opens, b"two")[..] else { panic!() };
    assert_eq!((two.result(), two.text("path")), (-ENOENT, bytes(&root.join("two"))));
    let renames = recording.of_process(rename::KIND, pid);
    let [only] = &renames[..] else { panic!("{renames:?}") };
    assert_eq!(
        (only.text("path"), only.text("new_path")),
        (bytes(&root.join("one")), bytes(&root.join("two")))
    );
    let unlinks = recording.of_process(unlink::KIND, pid);
    let seen: Vec<_> = unlinks
        .iter()
        .map(|event| (event.text("path_given"), event.number("directory"), event.name("via")))
        .collect();
    assert_eq!(seen, [(&b"two"[..], 0, "compat"), (b"folder", 1, "compat")]);
}

#[test]
fn operations_by_io_uring_are_seen() {
    let Some(_guard) = alone() else { return };
    if !sees_uring() {
        return;
    }
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for _ in 0..rounds(20) {
        let (pid, results) = ways(&["uring", root.to_str().unwrap(), "1"]);
        assert_eq!(results[1..5], [-ENOENT, 0, 0, -ENOENT]);
        let opens: Vec<Event> = recording
            .of_process(open::KIND, pid)
            .into_iter()
            .filter(|event| event.name("via") == "io_uring")
            .collect();
        let [one, missing] = &opens[..] else { panic!("{opens:?}") };
        assert_eq!(
            (one.text("path"), one.text("path_given")),
            (bytes(&root.join("one")), &b"one"[..])
        );
        assert_eq!(
            (one.result(), one.number("mode"), one.name("file_state")),
            (results[0], 0o640, "present")
        );
        assert_eq!(
            (missing.text("path"), missing.result()),
            (bytes(&root.join("missing")), -ENOENT)
        );
        assert!(missing.is_absent("mode") && missing.is_absent("file_state"));
        let renames = recording.of_process(rename::KIND, pid);
        let [only] = &renames[..] else { panic!("{renames:?}") };
        assert_eq!(only.text("path"), bytes(&root.join("one")));
        assert_eq!(
            (only.text("new_path"), only.name("via")),
            (bytes(&root.join("two")), "io_uring")
        );
        let unlinks = recording.of_process(unlink::KIND, pid);
        let seen: Vec<_> = unlinks
            .iter()
            .map(|event| (event.text("path_given"), event.result(), event.name("via")))
            .collect();
        assert_eq!(seen, [(&b"two"[..], 0, "io_uring"), (b"two", -ENOENT, "io_uring")]);
    }
    let (pid, _) = ways(&["uring-many", root.to_str().unwrap(), "1000"]);
    let opens = recording.of_process(open::KIND, pid);
    assert_eq!(given(&opens, b"many").len(), 1000);
    assert_eq!(recording.lost(), []);
}

#[test]
fn operations_by_io_uring_whose_completions_find_no_room_are_seen() {
    let Some(_guard) = alone() else { return };
    if !sees_uring() {
        return;
    }
    let mut recording = recording();
    // In between more than can be under way at the same time: what has ended takes no room. Where all have
    // the same tag, and some find room and some do not, one may be taken for the other.
    for (same, count) in
        [("0", 20), ("1", 20), ("0", 600), ("1", 600), ("1", 600), ("0", 20), ("1", 20)]
    {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let before = recording.lost();
        let mut command = Command::new(ways_program());
        command.args(["files-full", root.to_str().unwrap(), &count.to_string(), same]);
        let (pid, results) = recording.run(&mut command);
        let lost = recording.lost();
        for (kind, said) in
            [open::KIND, rename::KIND, unlink::KIND].into_iter().zip(results.chunks(count))
        {
            let since = |cause| {
                let count = |lost: &[(u16, Cause, u64)]| {
                    let found = lost.iter().find(|&&(of, by, _)| (of, by) == (kind, cause));
                    found.map_or(0, |&(_, _, count)| usize::try_from(count).unwrap())
                };
                count(&lost) - count(&before)
            };
            let missing = since(Cause::MapFull);
            // A program that was kept from running may have been so for somebody else, and what others
            // do at the same time may fill the rings.
            let missed = since(Cause::ProgramMissed) + since(Cause::RingFull);
            let mut events = recording.of_process(kind, pid);
            events.retain(|event| event.name("via") == "io_uring");
            let told = events.len() + missing;
            assert!(
                (told..=told + missed).contains(&count),
                "kind {kind}, same {same}: {told} of {count}; {before:?}, then {lost:?}"
            );
            assert!(count > 512 || missing == 0);
            let mut left = said.to_vec();
            for event in &events {
                let at = left.iter().position(|&result| result == event.result());
                left.swap_remove(at.unwrap_or_else(|| panic!("{event:?} {said:?}")));
                let name = event.text("path_given");
                let fails = match kind {
                    unlink::KIND => event.result() == -ENOENT,
                    _ => name.starts_with(b"missing"),
                };
                assert_eq!(event.result() == -ENOENT, fails, "{event:?}");
                let path = root.join(std::str::from_utf8(name).unwrap());
                assert_eq!(event.text("path"), bytes(&path));
            }
            let names: BTreeSet<&[u8]> =
                events.iter().map(|event| event.text("path_given")).collect();
            assert_eq!(names.len(), events.len());
        }
    }
}

#[test]
fn a_request_says_whose_it_was_when_it_was_submitted_whatever_was_asked_for_then() {
    let Some(_guard) = alone() else { return };
    if !sees_uring() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from(0o644), 0).unwrap();
    let mut recording = Recording::open(RingSizes::default());
    let few = BTreeMap::from([(open::KIND, ON_BIT | u64::from(open::path_given))]);
    recording.probes.apply(&few.into()).unwrap();
    let mut child = Command::new(ways_program())
        .args(["uring-waits", fifo.to_str().unwrap(), "12345"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "0");
    recording.want(&[open::KIND]);
    // For both directions, as that waits for nobody.
    let both = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let result: i64 = said.next().unwrap().unwrap().parse().unwrap();
    drop(both);
    assert!(child.wait().unwrap().success());
    let opens = recording.of_process(open::KIND, child.id());
    let [open] = given(&opens, bytes(&fifo))[..] else { panic!("{opens:?}") };
    assert_eq!((open.result(), open.name("via")), (result, "io_uring"));
    assert_eq!(open.number("uid"), 12345);
    let comm = usize::from(open.field("comm").offset);
    assert!(open.bytes()[comm..].starts_with(b"ways\0"), "{open:?}");
    assert_ne!(open.number("cgroup"), 0);
}
