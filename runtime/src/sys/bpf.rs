//! bpf(2): what aya does not tell about a loaded program.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Bytes of `struct bpf_prog_info` up to and with `recursion_misses`. The kernel fills in as much
/// as it has and leaves the rest.
const INFO_BYTES: u32 = 224;
/// Offset of `recursion_misses` (u64).
const RECURSION_MISSES: usize = 208;

/// The start of `union bpf_attr` for this command.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// How often the program was due and was not run, because it, or another on the same kind of hook,
/// was running on that CPU. 0 before Linux 5.12, which does not count.
pub fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = [0_u64; INFO_BYTES as usize / 8];
    let mut attributes = InfoAttributes {
        fd: program.as_raw_fd().cast_unsigned(),
        length: INFO_BYTES,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `attributes` is what the command takes, of the size given; `info` points at
    // INFO_BYTES writable bytes that live until after the call, and `length` says so. The kernel
    // writes no more than that, and reads pointers in `info`, all of which are null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size_of::<InfoAttributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info[RECURSION_MISSES / 8])
}
