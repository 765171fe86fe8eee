//! `execvp(3)`: this process becomes another program, with nothing added and nothing changed.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    ptr,
};

/// Runs a program in this process, found in PATH as the C library finds it (a file without a first line
/// for an interpreter is given to /bin/sh). Returns only if it cannot be run.
pub fn exec(program: &OsStr, arguments: &[OsString]) -> io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let all: Result<Vec<CString>, _> =
        [program].into_iter().chain(arguments.iter().map(OsString::as_os_str)).map(text).collect();
    let all = match all {
        Ok(all) => all,
        Err(error) => return error.into(),
    };
    let mut pointers: Vec<_> = all.iter().map(|text| text.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: strings that end with a NUL and a list of them that ends with a null pointer, which
    // live until after the call. No other thread is there to change the environment.
    unsafe { libc::execvp(all[0].as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}
