//! Waiting until eBPF programs have run.

/// `MEMBARRIER_CMD_GLOBAL`.
const GLOBAL: libc::c_int = 1;

/// Returns when every program that was running at the time of the call has ended. Programs run
/// within RCU's read sides, and this command of membarrier(2) waits for those; it takes some
/// milliseconds. Where the kernel was built without it, it waits for longer than a program can run.
pub fn wait() {
    // SAFETY: takes numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
