//! Processes as `/proc` shows them.

use std::{fs, os::unix::ffi::OsStringExt};

use crate::{
    clock,
    process::{Seen, stat::Stat},
};

/// What the kernel puts behind the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";
/// Most bytes of arguments that are kept: as many as an `exec` event holds.
const MOST_ARGS: usize = tipstaff_events::wire::MAX_ARGS;

/// All processes.
pub fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process. `None`: it has gone, or is hidden from us.
pub fn look_at(pid: u32) -> Option<Seen> {
    let looked = clock::monotonic_ns();
    let Stat { parent, start_ticks, .. } = Stat::of_process(pid)?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| {
        let path = path.into_os_string().into_vec();
        path.strip_suffix(DELETED).unwrap_or(&path).into()
    });
    let args = fs::read(format!("/proc/{pid}/cmdline")).ok().map(|mut args| {
        args.truncate(MOST_ARGS);
        args.into()
    });
    // The pid may have changed hands while we looked.
    (Stat::of_process(pid)?.start_ticks == start_ticks).then_some(Seen {
        looked,
        pid,
        parent,
        start_ticks,
        exe,
        args,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_see_ourselves() {
        let pid = std::process::id();
        assert!(pids().any(|other| other == pid));
        let seen = look_at(pid).unwrap();
        let exe = std::env::current_exe().unwrap().into_os_string().into_vec();
        assert_eq!(seen.exe.as_deref(), Some(exe.as_slice()));
        assert_eq!(seen.parent, std::os::unix::process::parent_id());
    }
}
