//! What tests of files share.

use std::{os::unix::ffi::OsStrExt as _, path::Path, process::Stdio};

use tipstaff_events::catalogue::{open, rename, unlink};
use tipstaff_runtime::probe::RingSizes;

use super::kernel::{self, Event, Recording};

/// Sees all of files.
pub fn recording() -> Recording {
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[open::KIND, unlink::KIND, rename::KIND]);
    recording
}

/// Runs a Python script in a folder, to its end, and returns its pid.
pub fn python(script: &str, folder: &Path) -> u32 {
    let mut command = kernel::python(script);
    let mut child = command.current_dir(folder).stdout(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    child.id()
}

pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The events whose given path is this, in order.
pub fn given<'a>(events: &'a [Event], path: &[u8]) -> Vec<&'a Event> {
    events.iter().filter(|event| event.text("path_given") == path).collect()
}
