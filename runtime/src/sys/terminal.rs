//! Which process group a terminal is for.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::process::Pid;

/// The foreground process group of the terminal.
pub fn foreground(terminal: BorrowedFd<'_>) -> Option<Pid> {
    // SAFETY: asks, and touches no memory.
    Pid::from_raw(unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) }.max(0))
}

/// Makes a process group the foreground one of the terminal.
pub fn set_foreground(terminal: BorrowedFd<'_>, group: Pid) -> io::Result<()> {
    // SAFETY: touches no memory.
    if unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group.as_raw_nonzero().get()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
