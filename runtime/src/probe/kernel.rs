//! What is read of the running kernel, for all families. Its BTF is large, read within some
//! milliseconds, and needed only while programs are loaded: it is let go in between.

use std::cell::OnceCell;

use aya::BtfError;

use super::{btf::Btf, error::ProbeError, family::At, losses::Losses, mount::Tracefs};
use crate::sys::memory;

/// See the module's documentation.
pub(super) struct Kernel {
    pub(super) losses: Losses,
    btf: OnceCell<Btf>,
    types: OnceCell<aya::Btf>,
    tracefs: OnceCell<Tracefs>,
}

impl Kernel {
    pub(super) fn new(losses: Losses) -> Self {
        Self { losses, btf: OnceCell::new(), types: OnceCell::new(), tracefs: OnceCell::new() }
    }

    /// Where the members of the kernel's structs are, and what its tracepoints pass.
    pub(super) fn btf(&self) -> Result<&Btf, ProbeError> {
        if let Some(found) = self.btf.get() {
            return Ok(found);
        }
        let found = Btf::of_running_kernel()?;
        Ok(self.btf.get_or_init(|| found))
    }

    /// Lets go of what is large, until it is needed again.
    pub(super) fn forget(&mut self) {
        if self.btf.take().is_some() | self.types.take().is_some() {
            memory::trim();
        }
    }

    /// Looked for when it is needed first: most probes do without it.
    pub(super) fn tracefs(&self) -> Result<&Tracefs, ProbeError> {
        if let Some(found) = self.tracefs.get() {
            return Ok(found);
        }
        let found = Tracefs::find()?;
        Ok(self.tracefs.get_or_init(|| found))
    }

    /// The kernel's BTF once more, as aya wants it for typed tracepoints: it takes 13 ms.
    pub(super) fn types(&self) -> Result<&aya::Btf, BtfError> {
        if let Some(found) = self.types.get() {
            return Ok(found);
        }
        let found = aya::Btf::from_sys_fs()?;
        Ok(self.types.get_or_init(|| found))
    }

    /// Whether the kernel counts when a program on that hook was due and could not run. Read from
    /// what its structs hold, as versions say little about distributions' kernels.
    pub(super) fn counts_misses(&self, at: At) -> bool {
        let Ok(btf) = self.btf() else { return false };
        match at {
            // Linux 5.12.
            At::Raw { .. } | At::Typed { .. } => {
                btf.member_offset("bpf_prog_info", "recursion_misses").is_some()
            }
            At::Twice { .. } | At::Beside(_) => true,
            At::Called { caller, .. } => self.counts_misses(*caller),
            // Linux 6.7, which began to tell of missed kprobes and perf events at the same time.
            At::Classic { .. } => btf.has_member_within("bpf_link_info", "missed"),
        }
    }
}
