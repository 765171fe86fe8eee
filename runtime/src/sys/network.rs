//! What the safe libraries do not know of the network.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `SO_NETNS_COOKIE` (Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `SO_MEMINFO` (Linux 4.12).
const SO_MEMINFO: libc::c_int = 55;
/// Numbers in it, and the index of `SK_MEMINFO_DROPS`.
const MEMINFO: usize = 9;
const DROPS: usize = 8;

/// Leaves the network of the machine for an empty one, which has no interface that is up. Needs
/// `CAP_SYS_ADMIN`.
pub fn leave() -> io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, after which threads have different descriptor tables;
    // this flag changes which network new sockets belong to, and no memory or descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Cookie of the network namespace that a socket is in, as `bpf_get_netns_cookie` gives it.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = [0_u64; 1];
    option(socket, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie[0])
}

/// Packets that the socket had no room for.
pub fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut numbers = [0_u32; MEMINFO];
    option(socket, SO_MEMINFO, &mut numbers)?;
    Ok(numbers[DROPS])
}

/// Reads an option that is numbers. Those that this kernel does not have stay.
fn option<T: Number>(socket: BorrowedFd<'_>, name: libc::c_int, value: &mut [T]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0);
    // SAFETY: `value` has `length` writable bytes, all patterns of which are numbers; the kernel writes no
    // more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Types for which every pattern of bytes is a value.
trait Number {}
impl Number for u32 {}
impl Number for u64 {}
