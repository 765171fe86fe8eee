//! Compiled code, mapped from the file that it is kept in.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::AsRawFd as _,
    path::Path,
    sync::Once,
};

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use wasmtime::{Engine, component::Component};

use crate::{
    policy::Digest,
    trust::{Trust, TrustError},
};

/// Said once.
static NOT_MAPPED: Once = Once::new();

/// Maps a component's compiled code. Its pages are those of the file, read when they are needed and
/// given up when memory is short; nothing of it is copied. Only a file that nobody but its owner (root,
/// or who runs the agent) can change, and that has this digest.
pub fn component(engine: &Engine, path: &Path, digest: &Digest) -> Result<Component, TrustError> {
    let unusable = |error: io::Error| TrustError::io(path, "use", error);
    let mut file = Trust::code().file(path)?;
    if fstatvfs(&file).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        NOT_MAPPED.call_once(|| {
            tracing::warn!(
                "{} is on a file system that is mounted noexec: compiled code is copied into memory instead of being mapped; `agent.cache_dir` can be elsewhere",
                path.display()
            );
        });
        return copied(engine, &mut file, digest).map_err(unusable);
    }
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

/// Takes the code from where nothing can be mapped that is to run.
fn copied(engine: &Engine, file: &mut File, digest: &Digest) -> io::Result<Component> {
    let mut code = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut code)?;
    if Digest::of(&code) != *digest {
        return Err(io::Error::other("it is not what the compiler made"));
    }
    // SAFETY: the bytes are those that this program's compiler child made, as above, and they are copied.
    unsafe { Component::deserialize(engine, code) }
        .map_err(|error| io::Error::other(format!("{error:#}")))
}
