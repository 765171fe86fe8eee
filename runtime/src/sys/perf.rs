//! `perf_event_open(2)`: attaching a program to a classic tracepoint whose tracefs is mounted for
//! nobody but us (aya looks for it at its usual place only).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `PERF_TYPE_TRACEPOINT`.
const TYPE_TRACEPOINT: u32 = 2;
/// Size of the first published `struct perf_event_attr`, which has all that is needed here.
const ATTRIBUTES_BYTES: u32 = 64;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;
/// `PERF_EVENT_IOC_SET_BPF` and `PERF_EVENT_IOC_ENABLE`.
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;

/// The first published `struct perf_event_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    ty: u32,
    size: u32,
    /// For a tracepoint: its id.
    config: u64,
    sample_period: u64,
    rest: [u64; 5],
}

const _: () = assert!(size_of::<Attributes>() == ATTRIBUTES_BYTES as usize);

/// Runs `program` whenever the tracepoint of this id is passed, on every CPU, until the result is
/// closed.
pub fn attach_tracepoint(id: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        ty: TYPE_TRACEPOINT,
        size: ATTRIBUTES_BYTES,
        config: id,
        sample_period: 1,
        ..Attributes::default()
    };
    // One CPU of any task is enough: a program on a tracepoint runs wherever it is passed.
    let (any_task, cpu, no_group) = (-1, 0, -1);
    // SAFETY: `attributes` is as large as its `size` says and lives until after the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            any_task,
            cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    let event =
        i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    control(&event, SET_BPF, program.as_raw_fd())?;
    control(&event, ENABLE, 0)?;
    Ok(event)
}

fn control(event: &OwnedFd, request: libc::c_ulong, argument: i32) -> io::Result<()> {
    // SAFETY: both requests take a number, not a pointer.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
