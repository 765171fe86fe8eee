//! Descriptors that must not reach a child, and those that this process was given.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Marks every descriptor of this process above standard error to be closed when a program is
/// executed. Ours are opened so; this is for those that whoever started us left open.
pub fn close_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(descriptor) =
            entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if descriptor > 2 {
            // SAFETY: F_SETFD touches no memory and does not change what the descriptor means to this
            // process. One that was closed in the meantime (or the directory's own) gives EBADF.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor above standard error that a child would inherit: those that whoever started
/// us left open for the program that we run, which has its own by now.
///
/// Must be called while no other thread opens anything, before anything of ours can have opened one
/// that children inherit.
pub fn close_inherited() -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: only asked for its flags; one that was closed in the meantime (the directory's own)
        // gives EBADF.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
        if flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            // SAFETY: ours are all closed on exec, so this one belongs to nothing in this process.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(())
}

/// Makes standard input and output /dev/null.
pub fn let_go_of_input_and_output() -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    for number in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: touches no memory; these two numbers stay open, whoever uses them.
        if unsafe { libc::dup2(nothing.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The descriptor of that number, which whoever started this process gave to it and to nobody in it.
/// From now on no child inherits it.
pub fn given(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only asked for its flags, which fails if it is not open.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and by the caller's word nothing in this process has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
