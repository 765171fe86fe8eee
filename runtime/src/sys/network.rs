//! A process without a network.

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves the network of the machine for an empty one, which has no interface that is up. Needs
/// `CAP_SYS_ADMIN`.
pub fn leave() -> io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, after which threads have different descriptor tables;
    // this flag changes which network new sockets belong to, and no memory or descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}
