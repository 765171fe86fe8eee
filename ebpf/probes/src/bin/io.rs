//! `io_stats`: bytes, calls and errors of reading, writing, opening, making and removing files.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aggregate::{ONLY_NEW, Processes, SET_BY_RUNTIME, add_to_histogram, remember, renew},
    aya_ebpf::{
        macros::{btf_tracepoint, map, raw_tracepoint},
        maps::PerCpuHashMap,
        programs::{BtfTracePointContext, RawTracePointContext},
    },
    call::{Call, Name, Table, user},
    events::{
        aggregate::{BUCKETS, IoKey, IoSums},
        catalogue::{
            FILE_TYPE, IO_OPERATION, PATH_CLASS,
            io_stats::{self, KIND},
        },
        index,
        wire::LOST_MAP,
    },
    kernel::{Pointer, file, inode, io_open, io_unlink, open_how, super_block},
    map::{lost, wanted},
    path, task,
    uring::{Request, operation, result_in},
};

const PLAIN_READ: Name = 1;
const PLAIN_WRITE: Name = 2;
const VECTOR_READ: Name = 3;
const VECTOR_WRITE: Name = 4;
const OPEN_AT_1: Name = 5;
const OPEN_AT_2: Name = 6;
const OPEN_HOW: Name = 7;
const CREAT: Name = 8;
const MAKE_DIRECTORY: Name = 9;
const UNLINK: Name = 10;
const UNLINK_AT: Name = 11;
const REMOVE_DIRECTORY: Name = 12;
const SEND_FILE: Name = 13;
const SPLICE: Name = 14;
const COPY_RANGE: Name = 15;

static CALLS: Table = Table::new(&[
    (PLAIN_READ, 0, 3),
    (PLAIN_READ, 17, 180),
    (PLAIN_WRITE, 1, 4),
    (PLAIN_WRITE, 18, 181),
    (VECTOR_READ, 19, 145),
    (VECTOR_READ, 295, 333),
    (VECTOR_READ, 327, 378),
    (VECTOR_WRITE, 20, 146),
    (VECTOR_WRITE, 296, 334),
    (VECTOR_WRITE, 328, 379),
    (OPEN_AT_1, 2, 5),
    (OPEN_AT_2, 257, 295),
    (OPEN_HOW, 437, 437),
    (CREAT, 85, 8),
    (MAKE_DIRECTORY, 83, 39),
    (MAKE_DIRECTORY, 258, 296),
    (UNLINK, 87, 10),
    (UNLINK_AT, 263, 301),
    (REMOVE_DIRECTORY, 84, 40),
    (SEND_FILE, 40, 187),
    (SEND_FILE, -1, 239),
    (SPLICE, 275, 313),
    (COPY_RANGE, 326, 377),
]);

const SUBMIT: Name = 1;
const MAP_FILE: Name = 2;

/// Those of which is not known how much they move.
static OTHERS: Table = Table::new(&[(SUBMIT, 209, 248), (MAP_FILE, 9, 192)]);

const READ: u8 = index(IO_OPERATION, "read");
const WRITE: u8 = index(IO_OPERATION, "write");
const OPEN: u8 = index(IO_OPERATION, "open");
const CREATE: u8 = index(IO_OPERATION, "create");
const MKDIR: u8 = index(IO_OPERATION, "mkdir");
const REMOVE: u8 = index(IO_OPERATION, "unlink");
const RMDIR: u8 = index(IO_OPERATION, "rmdir");
const SUBMITTED: u8 = index(IO_OPERATION, "submit");
const MAPPED: u8 = index(IO_OPERATION, "map");

const BY_SYSCALL: u8 = index(PATH_CLASS, "syscall");
const BY_VECTOR: u8 = index(PATH_CLASS, "vector");
const BY_AIO: u8 = index(PATH_CLASS, "aio");
const BY_IO_URING: u8 = index(PATH_CLASS, "io_uring");
const BY_SPLICE: u8 = index(PATH_CLASS, "splice");
const BY_SENDFILE: u8 = index(PATH_CLASS, "sendfile");
const BY_COPY_RANGE: u8 = index(PATH_CLASS, "copy_range");
const BY_MMAP: u8 = index(PATH_CLASS, "mmap");

const O_CREAT: u64 = 0o100;
const AT_REMOVEDIR: u64 = 0x200;
const MAP_ANONYMOUS: u64 = 0x20;
const MOST_ERRNO: i64 = 4095;

/// Fields for which the mount is looked for, and those for which any open file is.
const MOUNT: u64 = (io_stats::mount
    | io_stats::device_major
    | io_stats::device_minor
    | io_stats::mountpoint
    | io_stats::fstype) as u64;
const FILE: u64 = MOUNT | io_stats::file as u64;

#[map]
static PROCESSES: Processes = Processes::with_max_entries(SET_BY_RUNTIME, 0);
#[map]
static IO: PerCpuHashMap<IoKey, IoSums> = PerCpuHashMap::with_max_entries(SET_BY_RUNTIME, 0);

/// No value on the stack, which has no room for it.
static ZERO: IoSums = IoSums { calls: 0, bytes: 0, buckets: [0; BUCKETS] };

/// What is counted.
#[derive(Clone, Copy)]
struct Done {
    operation: u8,
    class: u8,
    /// Bytes that were moved, or a negative errno.
    result: i64,
    calls: u64,
}

#[btf_tracepoint(function = "sys_exit")]
fn returned(ctx: BtfTracePointContext) -> i32 {
    let word = wanted(KIND);
    if word == 0 {
        return 0;
    }
    if let Some(call) = Call::of(&ctx, &CALLS) {
        if call.name >= SEND_FILE {
            between_files(&call, word);
        } else if call.name >= OPEN_AT_1 {
            on_names(&call, word);
        } else {
            on_descriptor(&call, word);
        }
    } else if let Some(call) = Call::of(&ctx, &OTHERS) {
        unknown_amount(&call, word);
    }
    0
}

/// read, write and the like: most of all calls.
#[inline(always)]
fn on_descriptor(call: &Call, word: u64) {
    let class = if call.name >= VECTOR_READ { BY_VECTOR } else { BY_SYSCALL };
    let operation = if call.name == PLAIN_READ || call.name == VECTOR_READ { READ } else { WRITE };
    let done = Done { operation, class, result: call.long_result(), calls: 1 };
    add(done, descriptor(call.argument::<0>(), word), word);
}

/// One descriptor is read, another one is written.
#[inline(always)]
fn between_files(call: &Call, word: u64) {
    let (from, to, class) = match call.name {
        SEND_FILE => (call.argument::<1>(), call.argument::<0>(), BY_SENDFILE),
        SPLICE => (call.argument::<0>(), call.argument::<2>(), BY_SPLICE),
        _ => (call.argument::<0>(), call.argument::<2>(), BY_COPY_RANGE),
    };
    let result = call.long_result();
    add(Done { operation: READ, class, result, calls: 1 }, descriptor(from, word), word);
    add(Done { operation: WRITE, class, result, calls: 1 }, descriptor(to, word), word);
}

/// Calls that take a path.
#[inline(always)]
fn on_names(call: &Call, word: u64) {
    let flags = match call.name {
        OPEN_AT_1 => call.argument::<1>(),
        OPEN_AT_2 | UNLINK_AT => call.argument::<2>(),
        OPEN_HOW => user(call.argument::<2>()).unwrap_or(0),
        _ => 0,
    };
    let operation = match call.name {
        OPEN_AT_1 | OPEN_AT_2 | OPEN_HOW if flags & O_CREAT == 0 => OPEN,
        OPEN_AT_1 | OPEN_AT_2 | OPEN_HOW | CREAT => CREATE,
        MAKE_DIRECTORY => MKDIR,
        REMOVE_DIRECTORY => RMDIR,
        UNLINK_AT if flags & AT_REMOVEDIR != 0 => RMDIR,
        _ => REMOVE,
    };
    let result = call.long_result();
    let mut opened = None;
    if call.name <= CREAT && result >= 0 {
        opened = descriptor(result as u64, word);
    }
    // What such a call returns is no number of bytes.
    let result = if result > 0 { 0 } else { result };
    add(Done { operation, class: BY_SYSCALL, result, calls: 1 }, opened, word);
}

/// Requests that are given to aio, and files that are mapped.
#[inline(always)]
fn unknown_amount(call: &Call, word: u64) {
    let result = call.long_result();
    let is_error = (-MOST_ERRNO..0).contains(&result);
    if call.name == SUBMIT {
        let calls = if result > 0 { result as u64 } else { 1 };
        if result != 0 {
            let result = if is_error { result } else { 0 };
            add(Done { operation: SUBMITTED, class: BY_AIO, result, calls }, None, word);
        }
        return;
    }
    if call.argument::<3>() & MAP_ANONYMOUS == 0 {
        let result = if is_error { result } else { 0 };
        let mapped = descriptor(call.argument::<4>(), word);
        add(Done { operation: MAPPED, class: BY_MMAP, result, calls: 1 }, mapped, word);
    }
}

/// The open file behind a descriptor, where anybody wants to know about it.
#[inline(always)]
fn descriptor(number: u64, word: u64) -> Option<Pointer> {
    if word & FILE == 0 { None } else { path::file_of(number as i32) }
}

/// Where the completion is passed as a whole.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_entry(ctx: BtfTracePointContext) -> i32 {
    if let Some(result) = result_in(ctx.arg(2)) {
        completed(Request(ctx.arg(1)), result);
    }
    0
}

/// Where it is passed in pieces.
#[btf_tracepoint(function = "io_uring_complete")]
fn complete_result(ctx: BtfTracePointContext) -> i32 {
    completed(Request(ctx.arg(1)), ctx.arg(3));
    0
}

/// A request completes in a thread of the process that submitted it.
#[inline(always)]
fn completed(request: Request, result: i32) {
    let word = wanted(KIND);
    if word == 0 {
        return;
    }
    let Some(code) = request.operation() else { return };
    let operation = match code {
        operation::READ | operation::READV | operation::READ_FIXED => READ,
        operation::WRITE | operation::WRITEV | operation::WRITE_FIXED => WRITE,
        operation::OPENAT | operation::OPENAT2 => {
            let flags = io_open::how.of(request.0).and_then(|how| open_how::flags.read(how));
            if flags.unwrap_or(0) & O_CREAT == 0 { OPEN } else { CREATE }
        }
        operation::MKDIRAT => MKDIR,
        operation::UNLINKAT => {
            let flags: i32 = io_unlink::flags.read(request.0).unwrap_or(0);
            if flags as u64 & AT_REMOVEDIR == 0 { REMOVE } else { RMDIR }
        }
        _ => return,
    };
    let mut open_file = None;
    let mut result = i64::from(result);
    if operation > WRITE {
        result = result.min(0);
    } else if word & FILE != 0 {
        open_file = request.file();
    }
    add(Done { operation, class: BY_IO_URING, result, calls: 1 }, open_file, word);
}

#[inline(always)]
fn add(done: Done, open_file: Option<Pointer>, word: u64) {
    let mut key = IoKey {
        pid: task::current_pid(),
        operation: done.operation,
        class: done.class,
        ..IoKey::default()
    };
    if word & u64::from(io_stats::errno) != 0 && (-MOST_ERRNO..0).contains(&done.result) {
        key.errno = -done.result as u16;
    }
    if let Some(open_file) = open_file {
        look_at(&mut key, open_file, word);
    }
    let Some(sums) = sums(&key) else { return };
    sums.calls += done.calls;
    if done.result > 0 {
        sums.bytes += done.result as u64;
        add_to_histogram(&mut sums.buckets, done.result as u64);
    }
}

#[inline(always)]
fn look_at(key: &mut IoKey, open_file: Pointer, word: u64) {
    let Some(node) = file::f_inode.read::<Pointer>(open_file) else { return };
    key.file = match inode::i_mode.read::<u16>(node).unwrap_or(0) & 0o170_000 {
        0o100_000 => const { index(FILE_TYPE, "regular") },
        0o040_000 => const { index(FILE_TYPE, "directory") },
        0o060_000 => const { index(FILE_TYPE, "block") },
        0o020_000 => const { index(FILE_TYPE, "char") },
        0o010_000 => const { index(FILE_TYPE, "pipe") },
        0o140_000 => const { index(FILE_TYPE, "socket") },
        0o120_000 => const { index(FILE_TYPE, "link") },
        _ => 0,
    };
    if word & MOUNT == 0 {
        return;
    }
    let system: Option<Pointer> = inode::i_sb.read(node);
    key.device = system.and_then(|system| super_block::s_dev.read(system)).unwrap_or(0);
    key.mount = path::mount_of(open_file).unwrap_or(0);
}

/// The sums of this key on this CPU. Who is hidden has none.
#[inline(always)]
fn sums(key: &IoKey) -> Option<&'static mut IoSums> {
    if let Some(sums) = IO.get_ptr_mut(key) {
        // SAFETY: the value of this CPU. A key is one program's, as classes tell them apart, and the
        // kernel runs a program only once at a time on a CPU.
        return Some(unsafe { &mut *sums });
    }
    if task::is_hidden() {
        return None;
    }
    remember(&PROCESSES, KIND);
    let _ = IO.insert(key, &ZERO, ONLY_NEW);
    let sums = IO.get_ptr_mut(key);
    if sums.is_none() {
        lost(KIND, LOST_MAP);
    }
    // SAFETY: as above.
    sums.map(|sums| unsafe { &mut *sums })
}

/// A process begins, or a thread, whose process is known and stays what it is.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn begin(ctx: RawTracePointContext) -> i32 {
    renew(&PROCESSES, ctx.arg(1), KIND);
    0
}

/// A process runs a new program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn exec(ctx: RawTracePointContext) -> i32 {
    renew(&PROCESSES, ctx.arg(0), KIND);
    0
}

/// A process came into another cgroup.
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
fn moved(ctx: RawTracePointContext) -> i32 {
    renew(&PROCESSES, ctx.arg(2), KIND);
    0
}
