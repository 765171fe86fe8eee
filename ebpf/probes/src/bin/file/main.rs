//! open, unlink, rename.
#![no_std]
#![no_main]

mod uring;

use tipstaff_probes::{
    aya_ebpf::{
        macros::{btf_tracepoint, map},
        maps::ProgramArray,
        programs::BtfTracePointContext,
    },
    call::{Call, Name, Table, hand_over, user},
    events::{
        catalogue::{Open, Rename, Unlink, open, rename, unlink},
        wire::Text,
    },
    path::{self, AT_FDCWD},
    record::Draft,
    task,
};

const OPEN: Name = 1;
const OPENAT: Name = 2;
const OPENAT2: Name = 3;
const CREAT: Name = 4;
const UNLINK: Name = 5;
const UNLINKAT: Name = 6;
const RMDIR: Name = 7;
const RENAME: Name = 8;
const RENAMEAT: Name = 9;
const RENAMEAT2: Name = 10;
const OPEN_BY_HANDLE_AT: Name = 11;

static CALLS: Table = Table::new(&[
    (OPEN, 2, 5),
    (OPENAT, 257, 295),
    (OPENAT2, 437, 437),
    (CREAT, 85, 8),
    (UNLINK, 87, 10),
    (UNLINKAT, 263, 301),
    (RMDIR, 84, 40),
    (RENAME, 82, 38),
    (RENAMEAT, 264, 302),
    (RENAMEAT2, 316, 353),
    (OPEN_BY_HANDLE_AT, 304, 342),
]);

/// The program of each kind, by its slot.
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(3, 0);

const O_CREAT: u32 = 0o100;
const O_WRONLY: u32 = 0o1;
const O_TRUNC: u32 = 0o1000;
/// `O_TMPFILE` without the `O_DIRECTORY` that is in it.
const O_TMPFILE: u32 = 0o20_000_000;
const AT_REMOVEDIR: u64 = 0x200;

/// Sends each call to the program of its kind.
#[btf_tracepoint(function = "sys_exit")]
fn file(ctx: BtfTracePointContext) -> i32 {
    let Some(call) = Call::of(&ctx, &CALLS) else { return 0 };
    let (kind, slot) = match call.name {
        OPEN | OPENAT | OPENAT2 | CREAT | OPEN_BY_HANDLE_AT => (open::KIND, 0),
        UNLINK | UNLINKAT | RMDIR => (unlink::KIND, 1),
        _ => (rename::KIND, 2),
    };
    if task::wanted(kind).is_some() {
        hand_over(&ctx, &PROGRAMS, slot, kind);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
fn open_call(ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = Call::of(&ctx, &CALLS)
        && let Some(word) = task::wanted(open::KIND)
    {
        on_open(&call, word);
    }
    0
}

/// Whether a call with these flags can create a file; else its mode means nothing.
#[inline(always)]
fn has_mode(flags: u32) -> bool {
    flags & (O_CREAT | O_TMPFILE) != 0
}

/// `struct open_how` of openat2.
#[repr(C)]
#[derive(Clone, Copy)]
struct OpenHow {
    flags: u64,
    mode: u64,
}

#[inline(always)]
fn on_open(call: &Call, word: u64) {
    let (directory, given, flags, mode) = match call.name {
        OPEN => (AT_FDCWD, call.argument::<0>(), call.argument::<1>(), call.argument::<2>()),
        CREAT => (
            AT_FDCWD,
            call.argument::<0>(),
            u64::from(O_CREAT | O_WRONLY | O_TRUNC),
            call.argument::<1>(),
        ),
        OPENAT => (
            call.argument::<0>() as i32,
            call.argument::<1>(),
            call.argument::<2>(),
            call.argument::<3>(),
        ),
        // A handle is no path: there is nothing to be read.
        OPEN_BY_HANDLE_AT => (AT_FDCWD, 0, call.argument::<2>(), 0),
        _ => {
            let how = user(call.argument::<2>()).unwrap_or(OpenHow { flags: 0, mode: 0 });
            (call.argument::<0>() as i32, call.argument::<1>(), how.flags, how.mode)
        }
    };
    let flags = flags as u32;
    let Some(mut draft) = Draft::new(Open {
        header: task::header(open::KIND, word),
        flags,
        mode: mode as u32,
        result: call.result(),
        via: call.via,
        ..Open::default()
    }) else {
        return;
    };
    let mut absent = if has_mode(flags) { 0 } else { open::mode };
    let failed = call.result() < 0;
    let wanted = word as u32;
    let want_path = wanted & (open::path | open::file_state) != 0;
    let path_given =
        given_text(&mut draft, given, wanted & open::path_given != 0 || failed && want_path);
    let mut path = Text::default();
    if failed {
        absent |= open::file_state;
        path = joined_text(&mut draft, directory, path_given, want_path);
    } else if want_path
        && let Some(file) = path::file_of(call.result())
        && let Some(found) = path::of_file(&mut draft, file)
    {
        path = found.text;
        draft.record().file_state = found.state;
    } else {
        absent |= open::file_state;
    }
    let record = draft.record();
    record.path_given = path_given;
    record.path = path;
    record.header.absent =
        absent | absent_without(path_given, open::path_given) | absent_without(path, open::path);
    draft.emit(word);
}

/// The path that a call passed; without an offset it is not wanted or cannot be read.
#[inline(always)]
fn given_text<R>(draft: &mut Draft<R>, given: u64, wanted: bool) -> Text {
    if wanted { draft.user_text(given as *const u8).unwrap_or_default() } else { Text::default() }
}

/// What a given path means in the directory that it starts from; without an offset that is not
/// wanted or not known.
#[inline(always)]
fn joined_text<R>(draft: &mut Draft<R>, directory: i32, given: Text, wanted: bool) -> Text {
    if wanted && given.offset != 0 {
        path::joined(draft, directory, given).unwrap_or_default()
    } else {
        Text::default()
    }
}

/// The bit if the record has no such text.
#[inline(always)]
fn absent_without(text: Text, bit: u32) -> u32 {
    if text.offset == 0 { bit } else { 0 }
}

#[btf_tracepoint(function = "sys_exit")]
fn unlink_call(ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = Call::of(&ctx, &CALLS)
        && let Some(word) = task::wanted(unlink::KIND)
    {
        on_unlink(&call, word);
    }
    0
}

#[inline(always)]
fn on_unlink(call: &Call, word: u64) {
    let (directory, given, is_directory) = match call.name {
        UNLINKAT => (
            call.argument::<0>() as i32,
            call.argument::<1>(),
            call.argument::<2>() & AT_REMOVEDIR != 0,
        ),
        name => (AT_FDCWD, call.argument::<0>(), name == RMDIR),
    };
    let Some(mut draft) = Draft::new(Unlink {
        header: task::header(unlink::KIND, word),
        result: call.result(),
        directory: u8::from(is_directory),
        via: call.via,
        ..Unlink::default()
    }) else {
        return;
    };
    let wanted = word as u32;
    let want_path = wanted & unlink::path != 0;
    let given = given_text(&mut draft, given, wanted & unlink::path_given != 0 || want_path);
    let path = joined_text(&mut draft, directory, given, want_path);
    let record = draft.record();
    record.path_given = given;
    record.path = path;
    record.header.absent =
        absent_without(given, unlink::path_given) | absent_without(path, unlink::path);
    draft.emit(word);
}

#[btf_tracepoint(function = "sys_exit")]
fn rename_call(ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = Call::of(&ctx, &CALLS)
        && let Some(word) = task::wanted(rename::KIND)
    {
        on_rename(&call, word);
    }
    0
}

#[inline(always)]
fn on_rename(call: &Call, word: u64) {
    let (directory, given, new_directory, new_given, flags) = match call.name {
        RENAME => (AT_FDCWD, call.argument::<0>(), AT_FDCWD, call.argument::<1>(), 0),
        name => (
            call.argument::<0>() as i32,
            call.argument::<1>(),
            call.argument::<2>() as i32,
            call.argument::<3>(),
            if name == RENAMEAT { 0 } else { call.argument::<4>() as u32 },
        ),
    };
    let Some(mut draft) = Draft::new(Rename {
        header: task::header(rename::KIND, word),
        flags,
        result: call.result(),
        via: call.via,
        ..Rename::default()
    }) else {
        return;
    };
    let wanted = word as u32;
    let (want_old, want_new) = (wanted & rename::path != 0, wanted & rename::new_path != 0);
    let given = given_text(&mut draft, given, wanted & rename::path_given != 0 || want_old);
    let path = joined_text(&mut draft, directory, given, want_old);
    let new_given =
        given_text(&mut draft, new_given, wanted & rename::new_path_given != 0 || want_new);
    let new_path = joined_text(&mut draft, new_directory, new_given, want_new);
    let record = draft.record();
    record.path_given = given;
    record.path = path;
    record.new_path_given = new_given;
    record.new_path = new_path;
    record.header.absent = absent_without(given, rename::path_given)
        | absent_without(path, rename::path)
        | absent_without(new_given, rename::new_path_given)
        | absent_without(new_path, rename::new_path);
    draft.emit(word);
}
