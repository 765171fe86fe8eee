//! open, unlink and rename on the running kernel, with exact counts. Needs root: elsewhere each test
//! says why it is skipped, except in CI, where it fails.

mod kernel;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kernel::{Event, Recording, alone, ways};
use tipstaff_events::{
    catalogue::{FILE_STATE, VIA, open, rename, unlink},
    wire::MAX_TEXT,
};
use tipstaff_runtime::probe::RingSizes;

/// Not the `python3` that is first on PATH, which may be a script that runs others.
const PYTHON: &str = "/usr/bin/python3";
const ENOENT: i64 = 2;
const ENAMETOOLONG: i64 = 36;

/// Opens, renames and removes files all the time until it is dropped.
struct Load(Child);

impl Load {
    fn start(folder: &Path) -> Self {
        let script = "while :; do echo > load; mv load other; rm other; done";
        let mut shell = Command::new("/bin/sh");
        Self(shell.args(["-c", script]).current_dir(folder).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn recording() -> Recording {
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[open::KIND, unlink::KIND, rename::KIND]);
    recording
}

/// Runs a Python script in a folder, to its end, and returns its pid.
fn python(script: &str, folder: &Path) -> u32 {
    let mut command = Command::new(PYTHON);
    command.args(["-I", "-S", "-c", script]).current_dir(folder).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    assert!(child.wait().unwrap().success());
    child.id()
}

fn result(event: &Event) -> i64 {
    i64::from(i32::try_from(event.number("result").cast_signed() << 32 >> 32).unwrap())
}

fn state(event: &Event) -> &'static str {
    FILE_STATE[usize::try_from(event.number("file_state")).unwrap()]
}

fn via(event: &Event) -> &'static str {
    VIA[usize::try_from(event.number("via")).unwrap()]
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Events of a process whose path ends like this.
fn of(recording: &mut Recording, kind: u16, pid: u32) -> Vec<Event> {
    recording.of(kind).into_iter().filter(|event| event.number("pid") == u64::from(pid)).collect()
}

/// The events whose given path is this, in order.
fn given<'a>(events: &'a [Event], path: &[u8]) -> Vec<&'a Event> {
    events.iter().filter(|event| event.text("path_given") == path).collect()
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
    for round in 0..20 {
        let mut recording = recording();
        let load = Load::start(others.path());
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
            let failed = seen.iter().filter(|event| result(event) < 0).count();
            assert_eq!((seen.len() as u64, failed as u64), expected, "kind {kind}, round {round}");
        }
        assert_eq!(recording.lost(), []);
    }
}

#[test]
fn paths_are_absolute_whatever_was_given() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("real")).unwrap();
    symlink("real", root.join("link")).unwrap();
    let pid = python(
        "
import os
os.close(os.open('link/new', os.O_CREAT | os.O_WRONLY, 0o640))
here = os.open('real', os.O_DIRECTORY)
os.close(os.open('new', os.O_RDONLY, dir_fd=here))
os.close(os.open('../real/./new', os.O_RDONLY, dir_fd=here))
os.close(os.open('/dev/null', os.O_WRONLY))
os.close(os.open('.', os.O_RDONLY))
os.rename('link/new', 'newer', dst_dir_fd=here)
os.unlink('newer', dir_fd=here)
os.mkdir('empty')
os.rmdir('empty')
os.close(os.open(b'a\\nb\\x1b[31m\\xff', os.O_CREAT))
os.unlink(b'a\\nb\\x1b[31m\\xff')
",
        &root,
    );
    let opens = of(&mut recording, open::KIND, pid);
    let new = root.join("real/new");
    for (path_given, path) in [
        (&b"link/new"[..], &new),
        (b"new", &new),
        (b"../real/./new", &new),
        (b"/dev/null", &"/dev/null".into()),
        (b".", &root),
        (b"a\nb\x1b[31m\xff", &root.join(OsStr::from_bytes(b"a\nb\x1b[31m\xff"))),
    ] {
        let [event] = given(&opens, path_given)[..] else { panic!("{path_given:?}: {opens:?}") };
        assert_eq!(event.text("path"), bytes(path));
        assert_eq!((state(event), via(event)), ("present", "syscall"));
        assert!(result(event) > 2);
    }
    let [created] = given(&opens, b"link/new")[..] else { panic!() };
    assert_eq!((created.number("mode"), created.is_absent("mode")), (0o640, false));
    let [read] = given(&opens, b"new")[..] else { panic!() };
    assert!(read.is_absent("mode"));

    let renames = of(&mut recording, rename::KIND, pid);
    let [only] = &renames[..] else { panic!("{renames:?}") };
    assert_eq!(only.text("path"), bytes(&root.join("link/new")));
    assert_eq!(only.text("new_path"), bytes(&root.join("real/newer")));
    assert_eq!(
        (only.text("path_given"), only.text("new_path_given")),
        (&b"link/new"[..], &b"newer"[..])
    );

    let unlinks = of(&mut recording, unlink::KIND, pid);
    let seen: Vec<_> = unlinks
        .iter()
        .map(|event| (event.text("path"), event.number("directory"), result(event)))
        .collect();
    assert_eq!(
        seen,
        [
            (bytes(&root.join("real/newer")), 0, 0),
            (bytes(&root.join("empty")), 1, 0),
            (bytes(&root.join(OsStr::from_bytes(b"a\nb\x1b[31m\xff"))), 0, 0),
        ]
    );
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
    let opens = of(&mut recording, open::KIND, pid);
    let long_name = "n".repeat(256);
    for (path_given, path, error) in [
        ("missing", root.join("missing"), ENOENT),
        ("/missing/too", "/missing/too".into(), ENOENT),
        (&long_name, root.join(&long_name), ENAMETOOLONG),
    ] {
        let [event] = given(&opens, path_given.as_bytes())[..] else { panic!("{path_given}") };
        assert_eq!((event.text("path"), result(event)), (bytes(&path), -error));
        assert!(event.is_absent("file_state") && !event.is_cut("path"));
    }
    let long: Vec<_> = opens.iter().filter(|event| event.is_cut("path_given")).collect();
    let [long] = long[..] else { panic!("{long:?}") };
    assert_eq!(long.text("path_given").len(), MAX_TEXT);
    assert!(long.text("path_given").starts_with(b"d/d/d/"));
    assert!(long.is_cut("path") && long.text("path").starts_with(bytes(&root.join("d/d"))));
    assert_eq!((long.text("path").len(), result(long)), (MAX_TEXT, -ENAMETOOLONG));
}

#[test]
fn deep_paths_arrive_whole_or_flagged_as_cut() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let pid = python(
        "
import os
for level in range(1, 301):
    name = f'{level:03}'
    os.mkdir(name)
    os.chdir(name)
    if level in (200, 300): os.close(os.open(f'at{level}', os.O_CREAT))
for i in range(300): os.chdir('..')
for i in range(30):
    name = 'x' * 200
    os.mkdir(name)
    os.chdir(name)
os.close(os.open('far', os.O_CREAT))
",
        &root,
    );
    let opens = of(&mut recording, open::KIND, pid);
    let path = |levels: std::ops::RangeInclusive<u32>| {
        levels.map(|level| format!("{level:03}")).collect::<Vec<_>>().join("/")
    };
    let [whole] = given(&opens, b"at200")[..] else { panic!() };
    assert_eq!(whole.text("path"), bytes(&root.join(path(1..=200)).join("at200")));
    assert!(!whole.is_cut("path"));
    // Deeper than is followed: the end is known, and that it is not all.
    let [deep] = given(&opens, b"at300")[..] else { panic!() };
    assert!(deep.is_cut("path") && state(deep) == "unreachable");
    let end = path(260..=300) + "/at300";
    assert!(deep.text("path").ends_with(end.as_bytes()) && deep.text("path")[0] != b'/');
    // Longer than a text may be: the beginning is kept.
    let [far] = given(&opens, b"far")[..] else { panic!() };
    assert!(far.is_cut("path") && state(far) == "present");
    assert_eq!(far.text("path").len(), MAX_TEXT);
    assert!(far.text("path").starts_with(bytes(&root.join("x".repeat(200)))));
}

#[test]
fn a_file_that_is_opened_by_its_handle_has_its_path() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("file"), "").unwrap();
    let pid = python(
        "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer(136)
ctypes.memmove(handle, (128).to_bytes(4, 'little'), 4)
mount = ctypes.c_int()
if libc.name_to_handle_at(-100, b'file', handle, ctypes.byref(mount), 0): os._exit(2)
here = os.open('.', os.O_DIRECTORY)
if libc.open_by_handle_at(here, handle, os.O_RDONLY) < 0: os._exit(3)
if libc.open_by_handle_at(999, handle, os.O_RDONLY) >= 0: os._exit(4)
",
        &root,
    );
    let opens = of(&mut recording, open::KIND, pid);
    let handles: Vec<_> = opens.iter().filter(|event| event.is_absent("path_given")).collect();
    let [opened, failed] = handles[..] else { panic!("{handles:?}") };
    assert_eq!((opened.text("path"), state(opened)), (bytes(&root.join("file")), "present"));
    assert!(result(opened) > 2 && result(failed) < 0 && failed.is_absent("path"));
}

#[test]
fn a_file_without_a_name_is_said_to_be_one() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let pid = python(
        "
import os
gone = os.open('gone', os.O_CREAT | os.O_RDWR)
os.unlink('gone')
memory = os.memfd_create('name')
pipe, _ = os.pipe()
for fd in (gone, memory, pipe): os.close(os.open(f'/dev/fd/{fd}', os.O_RDONLY))
os.close(os.open('/proc/self/ns/pid', os.O_RDONLY))
",
        &root,
    );
    let opens = of(&mut recording, open::KIND, pid);
    let nameless: Vec<_> = opens
        .iter()
        .filter(|event| {
            event.text("path_given").starts_with(b"/dev/fd/")
                || event.text("path_given").ends_with(b"/ns/pid")
        })
        .map(|event| (event.text("path"), state(event)))
        .collect();
    let gone = root.join("gone");
    assert_eq!(
        nameless,
        [
            (bytes(&gone), "deleted"),
            (&b"memfd:name"[..], "memfd"),
            (b"", "not_a_file"),
            (b"", "not_a_file")
        ]
    );
}

#[test]
fn in_a_chroot_paths_begin_at_its_root_and_what_lies_outside_is_unreachable() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("jail/inner")).unwrap();
    fs::write(root.join("outside"), "").unwrap();
    let pid = python(
        "
import os
outside = os.open('.', os.O_DIRECTORY)
os.chroot('jail')
os.chdir('/inner')
os.close(os.open('file', os.O_CREAT))
os.rename('file', '/moved')
os.unlink('/moved')
os.close(os.open('outside', os.O_RDONLY, dir_fd=outside))
",
        &root,
    );
    let opens = of(&mut recording, open::KIND, pid);
    let [file] = given(&opens, b"file")[..] else { panic!() };
    assert_eq!((file.text("path"), state(file)), (&b"/inner/file"[..], "present"));
    let renames = of(&mut recording, rename::KIND, pid);
    assert_eq!(
        (renames[0].text("path"), renames[0].text("new_path")),
        (&b"/inner/file"[..], &b"/moved"[..])
    );
    let [outside] = given(&opens, b"outside")[..] else { panic!() };
    assert_eq!(state(outside), "unreachable");
    assert!(
        outside.text("path").ends_with(&bytes(&root.join("outside"))[1..])
            && outside.text("path")[0] != b'/'
    );
}

#[test]
fn calls_by_the_32_bit_table_are_decoded_with_it() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let (pid, results) = ways(&["compat", root.to_str().unwrap()]);
    assert_eq!(results[..4], [-ENOENT, 0, 0, 0]);
    let opens = of(&mut recording, open::KIND, pid);
    let ones = given(&opens, b"one");
    assert_eq!(ones.len(), 1000);
    for event in ones {
        assert_eq!((event.text("path"), via(event)), (bytes(&root.join("one")), "compat"));
        assert_eq!((event.number("mode"), event.number("flags") & 0o103), (0o600, 0o102));
    }
    let [two] = given(&opens, b"two")[..] else { panic!() };
    assert_eq!((result(two), two.text("path")), (-ENOENT, bytes(&root.join("two"))));
    let renames = of(&mut recording, rename::KIND, pid);
    let [only] = &renames[..] else { panic!("{renames:?}") };
    assert_eq!(
        (only.text("path"), only.text("new_path")),
        (bytes(&root.join("one")), bytes(&root.join("two")))
    );
    let unlinks = of(&mut recording, unlink::KIND, pid);
    let seen: Vec<_> = unlinks
        .iter()
        .map(|event| (event.text("path_given"), event.number("directory"), via(event)))
        .collect();
    assert_eq!(seen, [(&b"two"[..], 0, "compat"), (b"folder", 1, "compat")]);
}

#[test]
fn operations_by_io_uring_are_seen() {
    let Some(_guard) = alone() else { return };
    let mut recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for _ in 0..20 {
        let (pid, results) = ways(&["uring", root.to_str().unwrap(), "1"]);
        assert_eq!(results[1..5], [-ENOENT, 0, 0, -ENOENT]);
        let opens: Vec<Event> = of(&mut recording, open::KIND, pid)
            .into_iter()
            .filter(|event| via(event) == "io_uring")
            .collect();
        let [one, missing] = &opens[..] else { panic!("{opens:?}") };
        assert_eq!(
            (one.text("path"), one.text("path_given")),
            (bytes(&root.join("one")), &b"one"[..])
        );
        assert_eq!((result(one), one.number("mode"), state(one)), (results[0], 0o640, "present"));
        assert_eq!(
            (missing.text("path"), result(missing)),
            (bytes(&root.join("missing")), -ENOENT)
        );
        assert!(missing.is_absent("mode") && missing.is_absent("file_state"));
        let renames = of(&mut recording, rename::KIND, pid);
        let [only] = &renames[..] else { panic!("{renames:?}") };
        assert_eq!(only.text("path"), bytes(&root.join("one")));
        assert_eq!((only.text("new_path"), via(only)), (bytes(&root.join("two")), "io_uring"));
        let unlinks = of(&mut recording, unlink::KIND, pid);
        let seen: Vec<_> = unlinks
            .iter()
            .map(|event| (event.text("path_given"), result(event), via(event)))
            .collect();
        assert_eq!(seen, [(&b"two"[..], 0, "io_uring"), (b"two", -ENOENT, "io_uring")]);
    }
    let (pid, _) = ways(&["uring-many", root.to_str().unwrap(), "1000"]);
    let opens = of(&mut recording, open::KIND, pid);
    assert_eq!(given(&opens, b"many").len(), 1000);
    assert_eq!(recording.lost(), []);
}
