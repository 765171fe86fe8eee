//! Giving memory back to the machine.

/// Gives back what was freed. The allocator keeps it otherwise, and some tasks (reading the
/// kernel's types, loading a policy) need for a moment many times what the agent needs to live.
/// Takes a millisecond or so; threads that allocate at the same time may wait for it.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and looks at nothing but the allocator's own structures, which it
    // locks; it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
