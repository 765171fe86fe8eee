//! What `/proc/PID/stat` says of a process.

use std::{fs, io, path::Path, time::Duration};

use super::TICK_NS;

/// Set in the flags of threads of the kernel.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A start in nanoseconds since boot, as `/proc` tells it.
#[must_use]
pub const fn ticks(start: u64) -> u64 {
    start / TICK_NS
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What its first thread does: `R` runs, `S` and `D` sleep, `T` stopped, `t` traced, `Z` and `X` ended.
    pub state: u8,
    /// The process that started it, or its reaper.
    pub parent: u32,
    flags: u32,
    /// Start since boot, in ticks of 10 ms.
    pub start_ticks: u64,
}

impl Stat {
    /// Of a process, or by `/proc/PID/task/TID` of a thread.
    pub fn of(directory: impl AsRef<Path>) -> io::Result<Self> {
        let text = fs::read(directory.as_ref().join("stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other("it is not understood"))
    }

    /// Of the process with this number; none: there is none, or nobody may know.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        Self::of(format!("/proc/{pid}")).ok()
    }

    /// The second field, the name, may hold spaces and parentheses.
    #[must_use]
    pub fn parse(stat: &[u8]) -> Option<Self> {
        let behind = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&stat[behind..]).ok()?.split_ascii_whitespace();
        Some(Self {
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            flags: fields.nth(4)?.parse().ok()?,
            start_ticks: fields.nth(12)?.parse().ok()?,
        })
    }

    /// Whether it is a thread of the kernel.
    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Whether it is the process that started then, in nanoseconds since boot, as exactly as `/proc` tells.
    #[must_use]
    pub fn started_at(&self, start: u64) -> bool {
        self.start_ticks == ticks(start)
    }

    /// Start since boot.
    #[must_use]
    pub const fn start(&self) -> Duration {
        Duration::from_nanos(self.start_ticks.saturating_mul(TICK_NS))
    }

    /// Whether it has ended, and only waits for somebody to look.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_hold_spaces_and_parentheses() {
        let stat = b"42 (a) b (c)) S 7 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0\n";
        let found = Stat::parse(stat).unwrap();
        assert_eq!((found.state, found.parent, found.start_ticks), (b'S', 7, 987_654));
        assert!(found.started_at(9_876_540_000_000) && found.started_at(9_876_549_999_999));
        assert!(!found.started_at(9_876_550_000_000) && !found.started_at(9_876_539_999_999));
        for broken in [&b"42 (a"[..], b"42 (a)", b"42 (a) S 7 1"] {
            assert_eq!(Stat::parse(broken), None);
        }
    }

    #[test]
    fn kernel_threads_are_known() {
        // The second process of the machine starts all of them; it is not seen in a container.
        let name = fs::read_to_string("/proc/2/comm").unwrap_or_default();
        if name.trim() == "kthreadd" {
            assert!(Stat::of_process(2).unwrap().is_kernel_thread());
        }
        let own = Stat::of_process(std::process::id()).unwrap();
        assert!(!own.is_kernel_thread() && !own.has_ended());
    }
}
