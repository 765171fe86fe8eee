//! Users as the C library knows them: also those of a directory service.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    ptr,
};

/// Most bytes of what is known of a user.
const MOST_BYTES: usize = 1 << 20;
/// Most groups that a user is in: the kernel's `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65_536;

/// What the user database says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: OsString,
    /// Number.
    pub uid: u32,
    /// First group.
    pub gid: u32,
    /// Home directory.
    pub home: OsString,
}

/// The user of that name.
pub fn named(name: &OsStr) -> io::Result<Option<User>> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: as `find` says; the name ends with a NUL.
    find(|entry, buffer, length, found| unsafe {
        libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found)
    })
}

/// The user of that number.
pub fn numbered(uid: u32) -> io::Result<Option<User>> {
    // SAFETY: as `find` says.
    find(|entry, buffer, length, found| unsafe {
        libc::getpwuid_r(uid, entry, buffer, length, found)
    })
}

/// All groups of a user, with its first one.
pub fn groups(name: &OsStr, gid: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(name.as_bytes())?;
    let mut groups = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
        // SAFETY: writes as many groups as `count` says at most.
        let result =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if result >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        if groups.len() >= MOST_GROUPS {
            return Err(io::Error::other("the user is in too many groups"));
        }
        groups.resize(groups.len() * 4, 0);
    }
}

/// `ask` is one of the C library's questions: it fills the entry, whose strings are in the buffer of
/// that length, and sets the last pointer to the entry if there is one.
fn find(
    ask: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<User>> {
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::uninit();
        let mut found = ptr::null_mut();
        match ask(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: it was found, so the entry is filled, and its strings are in the buffer.
                let (entry, text) = unsafe {
                    let text = |text| OsString::from_vec(CStr::from_ptr(text).to_bytes().to_vec());
                    (entry.assume_init(), text)
                };
                let (name, home) = (text(entry.pw_name), text(entry.pw_dir));
                return Ok(Some(User { name, uid: entry.pw_uid, gid: entry.pw_gid, home }));
            }
            libc::ERANGE if buffer.len() < MOST_BYTES => buffer.resize(buffer.len() * 4, 0),
            // What the C library's sources of users say where there is no such user.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number_and_nobody_else_is() {
        let root = named("root".as_ref()).unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(numbered(0).unwrap(), Some(root.clone()));
        assert!(groups(&root.name, root.gid).unwrap().contains(&0));
        assert_eq!(named("no such user".as_ref()).unwrap(), None);
        assert_eq!(numbered(4_000_000_000).unwrap(), None);
    }
}
