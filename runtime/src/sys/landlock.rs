//! Landlock, as far as the crate `landlock` does not go: it puts only those rulesets in force that the same
//! process has made, and ours are made by whoever prepares a command and entered by whoever becomes it.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: libc::c_uint = 1;

/// The version of Landlock that this kernel has.
pub fn version() -> io::Result<u32> {
    let (nothing, none) = (ptr::null::<u8>(), 0_usize);
    // SAFETY: with this flag the kernel takes no attributes, and only tells a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, none, VERSION) };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

/// Puts this thread, and all that comes of it, under a ruleset for good. Needs `no_new_privs`, or
/// `CAP_SYS_ADMIN`.
pub fn restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
