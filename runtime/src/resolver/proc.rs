//! Processes as `/proc` shows them.

use std::{fs, os::unix::ffi::OsStringExt};

use crate::{clock, process::Seen};

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
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (parent, start_ticks) = parent_and_start(&stat)?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| {
        let path = path.into_os_string().into_vec();
        path.strip_suffix(DELETED).unwrap_or(&path).into()
    });
    let args = fs::read(format!("/proc/{pid}/cmdline")).ok().map(|mut args| {
        args.truncate(MOST_ARGS);
        args.into()
    });
    // The pid may have changed hands while we looked.
    let again = fs::read(format!("/proc/{pid}/stat")).ok()?;
    (parent_and_start(&again)?.1 == start_ticks).then_some(Seen {
        looked,
        pid,
        parent,
        start_ticks,
        exe,
        args,
    })
}

/// Fields 4 and 22 of `/proc/PID/stat`. The second field may hold spaces and parentheses.
fn parent_and_start(stat: &[u8]) -> Option<(u32, u64)> {
    let behind = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[behind..]).ok()?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks = fields.nth(17)?.parse().ok()?;
    Some((parent, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_hold_spaces_and_parentheses() {
        let stat = b"42 (a) b (c)) S 7 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0\n";
        assert_eq!(parent_and_start(stat), Some((7, 987_654)));
        assert_eq!(parent_and_start(b"42 (a"), None);
        assert_eq!(parent_and_start(b"42 (a) S 7 1"), None);
    }

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
