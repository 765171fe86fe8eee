//! eBPF programs are loaded, attached and told what is wanted. The only user of `aya`.
//!
//! [`Probes`] belongs to one thread that does nothing else, as attaching and detaching take
//! milliseconds each; the handles that it gives out ([`Ring`], [`Losses`], [`Hidden`]) are used
//! elsewhere at any time. What goes on:
//!
//! - *open*: the kernel's BTF is parsed once, the shared maps are made in a bpffs of our own, and
//!   we learn who we are as eBPF sees it, and hide.
//! - *apply*: families that are needed are loaded and attached, then the words in the map `WANTED`
//!   change, then what nobody needs any more is taken off. A running program is never replaced.
//! - *drop*: everything is gone from the kernel, as nothing is pinned where others could hold it.

mod attach;
mod btf;
mod coverage;
mod error;
mod family;
mod handshake;
mod kernel;
mod losses;
mod mount;
mod object;
mod ring;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use rustix::thread::CapabilitySet;
use tipstaff_events::wire::{self, ON_BIT};

pub use btf::Btf;
pub use coverage::{Coverage, KindReport, Rejected, Report};
pub use error::ProbeError;
pub use losses::Losses;
pub use ring::Ring;
pub use shared::{Hidden, RingSizes};

use attach::Attached;
use family::{FAMILIES, Family};
use kernel::Kernel;
use object::Prepared;
use shared::{Shared, WantedMap};

/// What is wanted of each kind: its word of bits as `wire` describes it, by the kind's number.
/// Kinds that are not listed are not wanted.
pub type Wanted = BTreeMap<u16, u64>;

/// All probes of this agent.
pub struct Probes {
    kernel: Kernel,
    shared: Shared,
    wanted: WantedMap,
    hidden: Hidden,
    pid: u32,
    /// By index in [`FAMILIES`].
    loaded: BTreeMap<usize, Loaded>,
}

/// A family whose object is loaded.
struct Loaded {
    ebpf: Ebpf,
    /// By index in the family's parts.
    parts: BTreeMap<usize, Attached>,
}

impl Probes {
    /// Makes the shared maps and hides this process. Attaches nothing.
    pub fn open(sizes: RingSizes) -> Result<Self, ProbeError> {
        object::bytes(handshake::OBJECT)?;
        permitted()?;
        lift_memory_limit();
        let btf = Btf::of_running_kernel()?;
        let shared = Shared::new(sizes)?;
        let mut first = object::load(&[Prepared::new(handshake::OBJECT, &btf, &[])?], &shared)?;
        let pid = handshake::shake(&mut first[0])?;
        let hidden = shared.hidden()?;
        hidden.hide(pid)?;
        let losses = Losses::new(shared.lost()?);
        let wanted = shared.wanted()?;
        Ok(Self {
            kernel: Kernel::new(btf, losses),
            shared,
            wanted,
            hidden,
            pid,
            loaded: BTreeMap::new(),
        })
    }

    /// This process as eBPF and /proc see it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle for hiding our children.
    #[must_use]
    pub fn hidden(&self) -> Hidden {
        self.hidden.clone()
    }

    /// A handle for reading what was lost.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.kernel.losses.clone()
    }

    /// The reading ends of the life, the urgent and the bulk ring, in the order in which they are to
    /// be drained. A ring must have one reader only.
    pub fn rings(&self) -> Result<[Ring; 3], ProbeError> {
        Ok([
            self.shared.ring(wire::LIFE)?,
            self.shared.ring(wire::URGENT)?,
            self.shared.ring(wire::BULK)?,
        ])
    }

    /// Makes the kernel side deliver what is wanted, and nothing else. Says how well each wanted
    /// kind is seen; a kind that is not seen at all is no error. Takes milliseconds for each hook
    /// that comes or goes, nothing where only words change.
    pub fn apply(&mut self, wanted: &Wanted) -> Result<Report, ProbeError> {
        self.load_families(wanted)?;
        let report = self.attach_parts(wanted);
        for kind in 0..wire::MAX_KINDS {
            let word = wanted.get(&kind).map_or(0, |word| word | ON_BIT);
            let seen = report
                .get(&kind)
                .is_some_and(|report| !matches!(report.coverage, Coverage::None(_)));
            self.wanted.set(kind, if seen { word } else { 0 })?;
        }
        self.detach_parts(wanted);
        Ok(report)
    }

    fn load_families(&mut self, wanted: &Wanted) -> Result<(), ProbeError> {
        let missing: Vec<usize> = (0..FAMILIES.len())
            .filter(|index| !self.loaded.contains_key(index) && is_needed(FAMILIES[*index], wanted))
            .collect();
        let objects: Vec<Prepared> = missing
            .iter()
            .map(|&index| Prepared::new(FAMILIES[index].object, &self.kernel.btf, &[]))
            .collect::<Result<_, _>>()?;
        let loaded = object::load(&objects, &self.shared)?;
        self.loaded.extend(
            missing
                .into_iter()
                .zip(loaded.into_iter().map(|ebpf| Loaded { ebpf, parts: BTreeMap::new() })),
        );
        Ok(())
    }

    fn attach_parts(&mut self, wanted: &Wanted) -> Report {
        let mut report: Report = wanted.keys().map(|&kind| (kind, KindReport::default())).collect();
        let mut without_family: BTreeSet<u16> = wanted.keys().copied().collect();
        for (&index, loaded) in &mut self.loaded {
            for (number, part) in FAMILIES[index].parts.iter().enumerate() {
                let kinds: Vec<u16> =
                    part.kinds.iter().copied().filter(|kind| wanted.contains_key(kind)).collect();
                if kinds.is_empty() {
                    continue;
                }
                let found = if let Some(attached) = loaded.parts.get(&number) {
                    attached.report.clone()
                } else {
                    match attach::climb(part, &mut loaded.ebpf, &self.kernel) {
                        Ok(attached) => {
                            let found = attached.report.clone();
                            loaded.parts.insert(number, attached);
                            found
                        }
                        Err(mut found) => {
                            match part.without {
                                Some(lacks) => found.lacks(lacks),
                                None => {
                                    found.coverage = Coverage::None("no hook works here".to_owned())
                                }
                            }
                            found
                        }
                    }
                };
                for kind in kinds {
                    without_family.remove(&kind);
                    report.entry(kind).or_default().merge(&found);
                }
            }
        }
        for kind in without_family {
            report.entry(kind).or_default().coverage =
                Coverage::None("no probe sees this kind".to_owned());
        }
        report
    }

    fn detach_parts(&mut self, wanted: &Wanted) {
        self.loaded.retain(|&index, loaded| {
            let parts = FAMILIES[index].parts;
            for (number, attached) in std::mem::take(&mut loaded.parts) {
                if parts[number].kinds.iter().any(|kind| wanted.contains_key(kind)) {
                    loaded.parts.insert(number, attached);
                } else {
                    attached.detach(&mut loaded.ebpf);
                }
            }
            !loaded.parts.is_empty()
        });
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach_parts(&Wanted::new());
    }
}

fn is_needed(family: &Family, wanted: &Wanted) -> bool {
    family.parts.iter().flat_map(|part| part.kinds).any(|kind| wanted.contains_key(kind))
}

/// Says early, and by name, what would fail later as EPERM.
fn permitted() -> Result<(), ProbeError> {
    let effective =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        Ok(())
    } else {
        Err(ProbeError::NotPermitted { capability: "CAP_SYS_ADMIN" })
    }
}

/// Before Linux 5.11 maps count as locked memory. Where this is refused, loading mostly works.
fn lift_memory_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit on locked memory cannot be lifted");
    }
}
