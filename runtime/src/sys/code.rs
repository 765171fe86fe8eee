//! Compiled code, mapped from the file that it is kept in.

use std::{io, os::fd::AsRawFd as _, path::Path};

use wasmtime::{Engine, component::Component};

use crate::{
    policy::Digest,
    trust::{Trust, TrustError},
};

/// Maps a component's compiled code. Its pages are those of the file, read when they are needed and
/// given up when memory is short; nothing of it is copied. Only a file that nobody but its owner (root,
/// or who runs the agent) can change, and that has this digest.
pub fn component(engine: &Engine, path: &Path, digest: &Digest) -> Result<Component, TrustError> {
    let unusable = |error: io::Error| TrustError::io(path, "use", error);
    let file = Trust::code().file(path)?;
    if Digest::of_copy(&file, io::sink()).map_err(unusable)? != *digest {
        return Err(unusable(io::Error::other("it is not what the compiler made")));
    }
    // The file that was looked at, whatever its name leads to by now.
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the bytes are those that `Component::serialize` of this program's compiler child made,
    // which the digest says, as noted where they were put (`policy::compile::entry`). They stay so while
    // they are mapped: the file can be written by its owner only, as `Trust` has checked on this
    // descriptor and on the way to it, and we never write to it, but put new files in its place. That
    // it was made by this version of Wasmtime with this engine's settings is checked by Wasmtime.
    unsafe { Component::deserialize_file(engine, open) }
        .map_err(|error| unusable(io::Error::other(format!("{error:#}"))))
}
