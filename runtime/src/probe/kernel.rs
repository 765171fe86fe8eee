//! What is read of the running kernel once, and used by all families.

use std::cell::OnceCell;

use aya::BtfError;

use super::{btf::Btf, error::ProbeError, family::At, losses::Losses, mount::Tracefs};

/// See the module's documentation.
pub(super) struct Kernel {
    pub(super) btf: Btf,
    pub(super) losses: Losses,
    tracefs: OnceCell<Tracefs>,
    types: OnceCell<aya::Btf>,
}

impl Kernel {
    pub(super) fn new(btf: Btf, losses: Losses) -> Self {
        Self { btf, losses, tracefs: OnceCell::new(), types: OnceCell::new() }
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
        match at {
            // Linux 5.12.
            At::Raw { .. } | At::Typed { .. } => {
                self.btf.member_offset("bpf_prog_info", "recursion_misses").is_some()
            }
            At::Twice { .. } => true,
            At::Called { caller, .. } => self.counts_misses(*caller),
            // Linux 6.7, which began to tell of missed kprobes and perf events at the same time.
            At::Classic { .. } => self.btf.has_member_within("bpf_link_info", "missed"),
        }
    }
}
