//! What is read of the running kernel once, and used by all families.

use std::cell::OnceCell;

use super::{btf::Btf, error::ProbeError, family::At, losses::Losses, mount::Tracefs};

/// See the module's documentation.
pub(super) struct Kernel {
    pub(super) btf: Btf,
    pub(super) losses: Losses,
    tracefs: OnceCell<Tracefs>,
}

impl Kernel {
    pub(super) fn new(btf: Btf, losses: Losses) -> Self {
        Self { btf, losses, tracefs: OnceCell::new() }
    }

    /// Looked for when it is needed first: most probes do without it.
    pub(super) fn tracefs(&self) -> Result<&Tracefs, ProbeError> {
        if let Some(found) = self.tracefs.get() {
            return Ok(found);
        }
        let found = Tracefs::find()?;
        Ok(self.tracefs.get_or_init(|| found))
    }

    /// Whether the kernel counts when a program on that hook was due and could not run. Read from
    /// what its structs hold, as versions say little about distributions' kernels.
    pub(super) fn counts_misses(&self, at: At) -> bool {
        match at {
            // Linux 5.12.
            At::Raw { .. } => self.btf.member_offset("bpf_prog_info", "recursion_misses").is_some(),
            // Linux 6.7, which began to tell of missed kprobes and perf events at the same time.
            At::Classic { .. } => self.btf.has_member_within("bpf_link_info", "missed"),
        }
    }
}
