//! Descriptors that must not reach a child.

use std::{fs, io};

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
