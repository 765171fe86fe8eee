//! Giving memory back to the machine.

/// Allocations from this size on are mapped of their own, and given back when they are freed. Batches
/// are smaller: they would cost a page fault per 4 KiB.
const MAPPED: libc::c_int = 2 << 20;
/// Most that each thread's part of the heap keeps at its end.
const KEPT: libc::c_int = 1 << 20;

/// Keeps the heap small. Else the allocator learns from the first large allocation that is freed (a
/// policy's file) to keep twice as much, which no later [`trim`] takes from the parts of other threads.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers and changes the allocator's own parameters, under its lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives back what was freed. The allocator keeps it otherwise, and some tasks (reading the
/// kernel's types) need for a moment many times what the agent needs to live.
/// Takes a millisecond or so; threads that allocate at the same time may wait for it.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and looks at nothing but the allocator's own structures, which it
    // locks; it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
