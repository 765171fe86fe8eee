//! The paths of open, unlink and rename on the running kernel. Needs root:
//! elsewhere each test says why it is skipped, except in CI, where it fails.

#[path = "kernel/files.rs"]
mod files;
mod kernel;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
};

use files::{bytes, given, python, recording};
use kernel::alone;
use tipstaff_events::{
    catalogue::{open, rename, unlink},
    wire::MAX_TEXT,
};

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
    let opens = recording.of_process(open::KIND, pid);
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
        assert_eq!((event.name("file_state"), event.name("via")), ("present", "syscall"));
        assert!(event.result() > 2);
    }
    let [created] = given(&opens, b"link/new")[..] else { panic!() };
    assert_eq!((created.number("mode"), created.is_absent("mode")), (0o640, false));
    let [read] = given(&opens, b"new")[..] else { panic!() };
    assert!(read.is_absent("mode"));

    let renames = recording.of_process(rename::KIND, pid);
    let [only] = &renames[..] else { panic!("{renames:?}") };
    assert_eq!(only.text("path"), bytes(&root.join("link/new")));
    assert_eq!(only.text("new_path"), bytes(&root.join("real/newer")));
    assert_eq!(
        (only.text("path_given"), only.text("new_path_given")),
        (&b"link/new"[..], &b"newer"[..])
    );

    let unlinks = recording.of_process(unlink::KIND, pid);
    let seen: Vec<_> = unlinks
        .iter()
        .map(|event| (event.text("path"), event.number("directory"), event.result()))
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
    let opens = recording.of_process(open::KIND, pid);
    let path = |levels: std::ops::RangeInclusive<u32>| {
        levels.map(|level| format!("{level:03}")).collect::<Vec<_>>().join("/")
    };
    let [whole] = given(&opens, b"at200")[..] else { panic!() };
    assert_eq!(whole.text("path"), bytes(&root.join(path(1..=200)).join("at200")));
    assert!(!whole.is_cut("path"));
    // Deeper than is followed: the end is known, and that it is not all.
    let [deep] = given(&opens, b"at300")[..] else { panic!() };
    assert!(deep.is_cut("path") && deep.name("file_state") == "unreachable");
    let end = path(260..=300) + "/at300";
    assert!(deep.text("path").ends_with(end.as_bytes()) && deep.text("path")[0] != b'/');
    // Longer than a text may be: the beginning is kept.
    let [far] = given(&opens, b"far")[..] else { panic!() };
    assert!(far.is_cut("path") && far.name("file_state") == "present");
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
    let opens = recording.of_process(open::KIND, pid);
    let handles: Vec<_> = opens.iter().filter(|event| event.is_absent("path_given")).collect();
    let [opened, failed] = handles[..] else { panic!("{handles:?}") };
    assert_eq!(
        (opened.text("path"), opened.name("file_state")),
        (bytes(&root.join("file")), "present")
    );
    assert!(opened.result() > 2 && failed.result() < 0 && failed.is_absent("path"));
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
    let opens = recording.of_process(open::KIND, pid);
    let nameless: Vec<_> = opens
        .iter()
        .filter(|event| {
            event.text("path_given").starts_with(b"/dev/fd/")
                || event.text("path_given").ends_with(b"/ns/pid")
        })
        .map(|event| (event.text("path"), event.name("file_state")))
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
    let opens = recording.of_process(open::KIND, pid);
    let [file] = given(&opens, b"file")[..] else { panic!() };
    assert_eq!((file.text("path"), file.name("file_state")), (&b"/inner/file"[..], "present"));
    let renames = recording.of_process(rename::KIND, pid);
    assert_eq!(
        (renames[0].text("path"), renames[0].text("new_path")),
        (&b"/inner/file"[..], &b"/moved"[..])
    );
    let [outside] = given(&opens, b"outside")[..] else { panic!() };
    assert_eq!(outside.name("file_state"), "unreachable");
    assert!(
        outside.text("path").ends_with(&bytes(&root.join("outside"))[1..])
            && outside.text("path")[0] != b'/'
    );
}
