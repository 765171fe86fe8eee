//! The same by `io_uring`. The kernel copies the paths when a request is submitted and drops them
//! before it completes, so they are kept in between.

use tipstaff_probes::{
    aya_ebpf::{
        helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str},
        macros::{btf_tracepoint, map},
        maps::{HashMap, PerCpuArray},
        programs::BtfTracePointContext,
    },
    events::{
        catalogue::{Open, Rename, Unlink, open, rename, unlink},
        wire::{Header, LOST_MAP, LOST_MISSED, Text},
    },
    kernel::{Pointer, filename, io_open, io_rename, io_unlink, open_how},
    map::{lost, wanted},
    path,
    record::Draft,
    task,
    uring::{IO_URING, PLACES, Request, Tag, operation, result_in},
};

use super::{AT_REMOVEDIR, absent_without, has_mode, joined_text};

/// Longest path that is kept; of longer ones the rest is cut.
const KEPT: usize = 1024;

/// A path that was given.
#[repr(C)]
struct Given {
    directory: i32,
    /// Length in bytes; 0 if there is none.
    length: u32,
    /// Bytes, a NUL, and one more, by which a longer path is known.
    bytes: [u8; KEPT + 2],
    pad: [u8; 6],
}

/// A request under way.
#[repr(C)]
struct Submitted {
    owner: Header,
    flags: u32,
    mode: u32,
    /// The operation.
    operation: u32,
    /// 1 if the file goes to `io_uring`'s own table and not to a descriptor.
    in_own_table: u32,
    given: Given,
    new: Given,
}

/// Those under way. Those beyond are counted as lost.
#[map]
static REQUESTS: HashMap<u64, Submitted> = HashMap::with_max_entries(PLACES, 0);
/// Where a [`Submitted`] is put together: it is too large for the stack.
#[map]
static SUBMITTED: PerCpuArray<Submitted> = PerCpuArray::with_max_entries(1, 0);

/// The operation and its kind, if events come of it.
#[inline(always)]
fn watched(request: Request) -> Option<(u8, u16)> {
    let operation = request.operation()?;
    let kind = match operation {
        operation::OPENAT | operation::OPENAT2 => open::KIND,
        operation::UNLINKAT => unlink::KIND,
        operation::RENAMEAT => rename::KIND,
        _ => return None,
    };
    Some((operation, kind))
}

#[btf_tracepoint(function = "io_uring_submit_req")]
fn submit(ctx: BtfTracePointContext) -> i32 {
    let request = Request(ctx.arg(0));
    let Some((operation, kind)) = watched(request) else { return 0 };
    if task::wanted(kind).is_some() && on_submit(request, operation, kind).is_none() {
        lost(kind, LOST_MAP);
    }
    0
}

#[inline(always)]
fn on_submit(request: Request, operation: u8, kind: u16) -> Option<()> {
    // SAFETY: a map value that nothing else on this CPU uses while this program runs.
    let submitted = unsafe { &mut *SUBMITTED.get_ptr_mut(0)? };
    // All of it: when the request completes, more may be wanted than now.
    submitted.owner = task::header(kind, u64::MAX);
    submitted.operation = operation.into();
    let at = request.0;
    match kind {
        open::KIND => {
            let how = io_open::how.of(at)?;
            submitted.flags = open_how::flags.read::<u64>(how)? as u32;
            submitted.mode = open_how::mode.read::<u64>(how)? as u32;
            submitted.in_own_table = u32::from(io_open::file_slot.read::<u32>(at)? != 0);
            submitted.given.keep(io_open::dfd.read(at)?, io_open::filename.read(at)?);
        }
        unlink::KIND => {
            submitted.flags = io_unlink::flags.read(at)?;
            submitted.given.keep(io_unlink::dfd.read(at)?, io_unlink::filename.read(at)?);
        }
        _ => {
            submitted.flags = io_rename::flags.read(at)?;
            submitted.given.keep(io_rename::old_dfd.read(at)?, io_rename::oldpath.read(at)?);
            submitted.new.keep(io_rename::new_dfd.read(at)?, io_rename::newpath.read(at)?);
        }
    }
    if request.completes_silently() {
        emit(submitted, None);
        return Some(());
    }
    // SAFETY: an entry is of one request only.
    if let Some(left_behind) = unsafe { REQUESTS.get(request.key()) } {
        // What was here before has completed, and nobody told us. Its place would be found for this one.
        lost(left_behind.owner.kind, LOST_MISSED);
        request.forget();
    }
    if !request.keep() {
        return None;
    }
    let inserted = REQUESTS.insert(&request.key(), &*submitted, 0);
    if inserted.is_err() {
        request.forget();
    }
    inserted.ok()
}

impl Given {
    /// Copies the path of a `struct filename`.
    #[inline(always)]
    fn keep(&mut self, directory: i32, given: Pointer) {
        self.directory = directory;
        self.length = 0;
        if let Some(name) = filename::name.read::<Pointer>(given) {
            // SAFETY: the bytes are that many.
            let read = unsafe {
                bpf_probe_read_kernel_str(self.bytes.as_mut_ptr().cast(), KEPT as u32 + 2, name)
            };
            if read > 0 {
                self.length = read as u32 - 1;
            }
        }
    }

    /// Appends the path to a record; without an offset there is none.
    #[inline(always)]
    fn append<R>(&self, draft: &mut Draft<R>) -> Text {
        let length = self.length as usize;
        let mut text = Text::default();
        if length != 0
            && let Some(found) = draft.kernel_bytes(self.bytes.as_ptr().cast(), length.min(KEPT))
        {
            text = found;
        }
        if length > KEPT {
            text.length |= Text::CUT;
        }
        text
    }

    /// Appends what the path means in the directory that it starts from; without an offset that is
    /// not known.
    #[inline(always)]
    fn join<R>(&self, draft: &mut Draft<R>, given: Text, is_caller: bool) -> Text {
        joined_text(draft, self.directory, given, is_caller)
    }
}

/// Where the completion is passed as a whole.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_entry(ctx: BtfTracePointContext) -> i32 {
    if let Some(result) = result_in(ctx.arg(2)) {
        on_room(Request(ctx.arg(1)), result);
    }
    0
}

/// Where it is passed in pieces.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_result(ctx: BtfTracePointContext) -> i32 {
    on_room(Request(ctx.arg(1)), ctx.arg(3));
    0
}

/// Where the completion finds no room.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
fn overflow(ctx: BtfTracePointContext) -> i32 {
    let (result, flags) = (ctx.arg(2), ctx.arg(3));
    if let Some(request) = Request::completed(Tag::new(ctx.arg(0), ctx.arg(1)), result, flags) {
        on_complete(request, result);
    }
    0
}

/// Where it finds room.
#[inline(always)]
fn on_room(request: Request, result: i32) {
    // SAFETY: only asked whether it is there.
    let mut known = unsafe { REQUESTS.get(request.key()) }.is_some().then_some(request);
    if known.is_none()
        && let Some((_, kind)) = watched(request)
        && wanted(kind) != 0
    {
        known = request.exchanged(result);
    }
    if let Some(request) = known {
        on_complete(request, result);
    }
}

#[inline(always)]
fn on_complete(request: Request, result: i32) {
    // SAFETY: an entry is of one request only, which is not given to another as long as it lives.
    let Some(submitted) = (unsafe { REQUESTS.get(request.key()) }) else { return };
    request.forget();
    emit(submitted, Some(result));
    let _ = REQUESTS.remove(&request.key());
}

#[inline(always)]
fn emit(submitted: &Submitted, result: Option<i32>) {
    match submitted.operation as u8 {
        operation::OPENAT | operation::OPENAT2 => emit_open(submitted, result),
        operation::UNLINKAT => emit_unlink(submitted, result),
        _ => emit_rename(submitted, result),
    }
}

/// A request can also complete in the context of another process than the one that submitted it.
#[inline(always)]
fn is_caller(submitted: &Submitted) -> bool {
    task::current_pid() == submitted.owner.pid
}

#[inline(always)]
fn header(submitted: &Submitted) -> Header {
    // SAFETY: no arguments.
    Header { time: unsafe { bpf_ktime_get_ns() }, ..submitted.owner }
}

#[inline(always)]
fn emit_open(submitted: &Submitted, result: Option<i32>) {
    let word = wanted(open::KIND);
    if word == 0 {
        return;
    }
    let Some(mut draft) = Draft::new(Open {
        header: header(submitted),
        flags: submitted.flags,
        mode: submitted.mode,
        result: result.unwrap_or(0),
        via: IO_URING,
        ..Open::default()
    }) else {
        return;
    };
    let is_caller = is_caller(submitted);
    let mut absent = open::file_state;
    if result.is_none() {
        absent |= open::result;
    }
    if !has_mode(submitted.flags) {
        absent |= open::mode;
    }
    let given = submitted.given.append(&mut draft);
    let mut path = Text::default();
    if is_caller
        && submitted.in_own_table == 0
        && let Some(file) = result.and_then(path::file_of)
        && let Some(found) = path::of_file(&mut draft, file)
    {
        path = found.text;
        draft.record().file_state = found.state;
        absent &= !open::file_state;
    }
    if path.offset == 0 {
        path = submitted.given.join(&mut draft, given, is_caller);
    }
    let record = draft.record();
    record.path_given = given;
    record.path = path;
    record.header.absent =
        absent | absent_without(given, open::path_given) | absent_without(path, open::path);
    draft.emit(word);
}

#[inline(always)]
fn emit_unlink(submitted: &Submitted, result: Option<i32>) {
    let word = wanted(unlink::KIND);
    if word == 0 {
        return;
    }
    let Some(mut draft) = Draft::new(Unlink {
        header: header(submitted),
        result: result.unwrap_or(0),
        directory: u8::from(u64::from(submitted.flags) & AT_REMOVEDIR != 0),
        via: IO_URING,
        ..Unlink::default()
    }) else {
        return;
    };
    let given = submitted.given.append(&mut draft);
    let path = submitted.given.join(&mut draft, given, is_caller(submitted));
    let record = draft.record();
    record.path_given = given;
    record.path = path;
    record.header.absent = if result.is_none() { unlink::result } else { 0 }
        | absent_without(given, unlink::path_given)
        | absent_without(path, unlink::path);
    draft.emit(word);
}

#[inline(always)]
fn emit_rename(submitted: &Submitted, result: Option<i32>) {
    let word = wanted(rename::KIND);
    if word == 0 {
        return;
    }
    let Some(mut draft) = Draft::new(Rename {
        header: header(submitted),
        flags: submitted.flags,
        result: result.unwrap_or(0),
        via: IO_URING,
        ..Rename::default()
    }) else {
        return;
    };
    let is_caller = is_caller(submitted);
    let given = submitted.given.append(&mut draft);
    let path = submitted.given.join(&mut draft, given, is_caller);
    let new_given = submitted.new.append(&mut draft);
    let new_path = submitted.new.join(&mut draft, new_given, is_caller);
    let record = draft.record();
    record.path_given = given;
    record.path = path;
    record.new_path_given = new_given;
    record.new_path = new_path;
    record.header.absent = if result.is_none() { rename::result } else { 0 }
        | absent_without(given, rename::path_given)
        | absent_without(path, rename::path)
        | absent_without(new_given, rename::new_path_given)
        | absent_without(new_path, rename::new_path);
    draft.emit(word);
}
