//! eBPF programs are loaded, attached and told what is wanted. The only user of `aya`.
//!
//! [`Probes`] belongs to one thread that does nothing else, as attaching and detaching take
//! milliseconds each; the handles that it gives out ([`Ring`], [`Losses`], [`Hidden`]) are used
//! elsewhere at any time. What goes on:
//!
//! - *open*: the shared maps are made in a bpffs of our own, and
//!   we learn who we are as eBPF sees it, and hide.
//! - *apply*: families that are needed are loaded and attached, then the words in the map `WANTED`
//!   change, then what nobody needs any more is taken off. A running program is never replaced.
//! - *drop*: everything is gone from the kernel, as nothing is pinned where others could hold it.

mod aggregate;
mod attach;
pub mod btf;
mod budget;
mod costs;
mod coverage;
mod dns;
mod error;
mod family;
mod guard;
mod handshake;
mod kernel;
mod losses;
mod maps;
mod mount;
mod object;
mod ring;
mod shared;
mod tracepoint;
mod wanted;

use std::{collections::BTreeMap, fs, path::Path};

use aya::Ebpf;
use rustix::thread::CapabilitySet;
use tipstaff_events::{
    catalogue::WANT_CGROUP,
    wire::{self, BUDGET_BIT, ON_BIT},
};

use crate::{
    guard::GuardMode,
    kind::Kind,
    plan::{Union, Wanted},
    source::Handover,
};

pub use aggregate::{Aggregates, KEYS};
pub use budget::Spent;
pub use costs::RunTimes;
pub use coverage::{Coverage, KindReport, Rejected, Report};
pub use dns::{DnsCalls, DnsGuard, Flows};
pub use error::ProbeError;
pub use guard::{Counted, Known, NetworkGuard, RuleCount};
pub use losses::Losses;
pub use maps::MapReport;
pub use ring::Ring;
pub use shared::{Hidden, RingSizes};

use attach::Attached;
use btf::Btf;
use budget::Budgets;
use costs::Costs;
use family::{FAMILIES, Part};
use kernel::Kernel;
use object::Prepared;
use shared::Shared;
use tracepoint::Tracepoint;
use wanted::WantedMap;

/// All probes of this agent.
pub struct Probes {
    kernel: Kernel,
    shared: Shared,
    wanted: WantedMap,
    hidden: Hidden,
    pid: u32,
    tracepoints: BTreeMap<u16, Tracepoint>,
    loaded: BTreeMap<Key, Loaded>,
    aggregates: Aggregates,
    handover: Handover,
    keys: u32,
    budgets: Budgets,
    costs: Option<Costs>,
}

/// What is loaded as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Index in [`FAMILIES`].
    Family(usize),
    /// Number of a kind that is a tracepoint from the configuration.
    Tracepoint(u16),
}

impl Key {
    /// The aggregated kind whose maps the object has.
    fn aggregates(self) -> Option<u16> {
        match self {
            Self::Family(index) => FAMILIES[index].aggregates,
            Self::Tracepoint(_) => None,
        }
    }
}

/// An object that somebody wants.
struct Loaded {
    /// Its programs, or why it does not load.
    ebpf: Result<Ebpf, String>,
    /// What of it is attached, or why not, by index in the family's parts. What does not work is
    /// tried again when nobody has wanted it for a while.
    parts: BTreeMap<usize, Result<Attached, KindReport>>,
}

/// The kind that a tracepoint of the running kernel (`CATEGORY:NAME`) would be, the `number`th of
/// those from the configuration. Reads its `format` and loads nothing.
pub fn tracepoint_kind(spec: &str, number: u16, name: &str) -> Result<Kind, ProbeError> {
    let tracepoint = Tracepoint::find(spec, &mount::Tracefs::find()?)?;
    Ok(tracepoint.kind(wire::FIRST_RUNTIME_KIND.saturating_add(number), name))
}

impl Probes {
    /// Makes the shared maps and hides this process. Attaches nothing.
    pub fn open(sizes: RingSizes) -> Result<Self, ProbeError> {
        Self::open_within(sizes, None)
    }

    /// The same, and only what happens in that cgroup of the v2 hierarchy (its id) and below it is
    /// reported, whatever the kind. Before Linux 6.8 `oom` is reported of the whole machine.
    pub fn open_within(sizes: RingSizes, scope: Option<u64>) -> Result<Self, ProbeError> {
        object::bytes(handshake::OBJECT)?;
        permitted()?;
        let limit = lift_memory_limit();
        let btf = Btf::of_running_kernel()?;
        let shared = Shared::new(sizes, scope)?;
        let object = [Prepared::new(handshake::OBJECT, &btf, &[])?];
        let mut handshake =
            object::load(&object, &shared).remove(0).map_err(|source| match limit {
                Some(limit) => ProbeError::LockedMemory { source: Box::new(source), limit },
                None => source,
            })?;
        let pid = handshake::shake(&mut handshake)?;
        let hidden = shared.hidden()?;
        hidden.hide(pid)?;
        let losses = Losses::new(shared.lost()?);
        let wanted = shared.wanted()?;
        let budgets = shared.budgets()?;
        let handover = Handover::new().map_err(|source| ProbeError::Handover { source })?;
        Ok(Self {
            kernel: Kernel::new(losses),
            shared,
            wanted,
            hidden,
            pid,
            tracepoints: BTreeMap::new(),
            loaded: BTreeMap::new(),
            aggregates: Aggregates::new(handover.clone()),
            handover,
            keys: KEYS,
            budgets,
            costs: None,
        })
    }

    /// Gives aggregated kinds that are loaded from now on room for so many keys each.
    pub fn limit_keys(&mut self, keys: u32) {
        self.keys = keys;
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

    /// The maps that are there for what is wanted now.
    #[must_use]
    pub fn maps(&self) -> Vec<MapReport> {
        let mut all: Vec<MapReport> = Vec::new();
        for (key, loaded) in &self.loaded {
            let object = match key {
                Key::Family(index) => FAMILIES[*index].object,
                Key::Tracepoint(_) => tracepoint::OBJECT,
            };
            for map in loaded.ebpf.iter().flat_map(|ebpf| maps::of(object, ebpf)) {
                if !all.iter().any(|known| known.id == map.id) {
                    all.push(map);
                }
            }
        }
        all
    }

    /// A handle for records that this process makes itself.
    #[must_use]
    pub fn handover(&self) -> Handover {
        self.handover.clone()
    }

    /// A handle for the readings of aggregated kinds.
    #[must_use]
    pub fn aggregates(&self) -> Aggregates {
        self.aggregates.clone()
    }

    /// Makes a tracepoint of the running kernel (`CATEGORY:NAME`) a kind of this name. What its
    /// `format` gives is the kind; nothing is loaded until it is wanted.
    pub fn tracepoint(&mut self, spec: &str, name: &str) -> Result<Kind, ProbeError> {
        let id = (wire::FIRST_RUNTIME_KIND..wire::MAX_KINDS)
            .find(|id| !self.tracepoints.contains_key(id))
            .ok_or_else(|| ProbeError::Tracepoint {
                spec: spec.to_owned(),
                reason: format!(
                    "there are {} already, which is all that there can be",
                    self.tracepoints.len()
                ),
            })?;
        let tracepoint = Tracepoint::find(spec, self.kernel.tracefs()?)?;
        let kind = tracepoint.kind(id, name);
        self.tracepoints.insert(id, tracepoint);
        Ok(kind)
    }

    /// Makes the kernel side deliver what is wanted, and nothing else. Says how well each wanted
    /// kind is seen; a kind that is not seen at all is no error. Takes milliseconds for each hook
    /// that comes or goes, nothing where only words change.
    pub fn apply(&mut self, union: &Union) -> Result<Report, ProbeError> {
        let Union { wanted, filters, pace, bounded } = union;
        self.aggregates.set_pace(pace.clone());
        let told = dns::KINDS.into_iter().chain(budget::KINDS);
        self.handover.set_wanted(told.filter(|kind| wanted.contains_key(kind)));
        self.load_objects(wanted)?;
        let report = self.attach_parts(wanted);
        for kind in 0..wire::MAX_KINDS {
            let word = wanted.get(&kind).map_or(0, |word| word & !BUDGET_BIT | ON_BIT);
            let is_bounded = self.budgets.are_set() && bounded.contains(&kind);
            let word = word | if is_bounded { BUDGET_BIT | WANT_CGROUP } else { 0 };
            let seen = report
                .get(&kind)
                .is_some_and(|report| !matches!(report.coverage, Coverage::None(_)));
            self.wanted.set(kind, if seen { word } else { 0 }, filters.get(&kind))?;
        }
        self.detach_parts(wanted);
        self.kernel.forget();
        Ok(report)
    }

    /// Guards the network of a cgroup (a directory of the v2 hierarchy) and of those below it: nothing is
    /// denied until a table is installed. `number` names the guard in the events `denied`. Needs Linux
    /// 5.8; takes some tens of milliseconds.
    pub fn guard_network(
        &mut self,
        cgroup: &Path,
        number: u32,
        mode: GuardMode,
    ) -> Result<NetworkGuard, ProbeError> {
        let object = [Prepared::new(guard::OBJECT, self.kernel.btf()?, &[])?];
        let ebpf = object::load(&object, &self.shared).remove(0);
        self.kernel.forget();
        NetworkGuard::new(ebpf?, cgroup, number, mode, &self.kernel.losses)
    }

    fn load_objects(&mut self, wanted: &Wanted) -> Result<(), ProbeError> {
        let families = FAMILIES
            .iter()
            .enumerate()
            .filter(|(_, family)| family.parts.iter().any(|part| is_wanted(part, wanted)))
            .map(|(index, _)| Key::Family(index));
        let tracepoints = self
            .tracepoints
            .keys()
            .filter(|kind| wanted.contains_key(kind))
            .map(|&kind| Key::Tracepoint(kind));
        let missing: Vec<Key> =
            families.chain(tracepoints).filter(|key| !self.loaded.contains_key(key)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let btf = self.kernel.btf()?;
        let objects: Vec<Prepared> = missing
            .iter()
            .map(|key| match key {
                Key::Family(index) => Prepared::of(FAMILIES[*index], btf, self.keys),
                Key::Tracepoint(kind) => {
                    Prepared::new(tracepoint::OBJECT, btf, &self.tracepoints[kind].constants(*kind))
                }
            })
            .collect::<Result<_, _>>()?;
        for (key, ebpf) in missing.into_iter().zip(object::load(&objects, &self.shared)) {
            let ebpf = ebpf.map_err(|error| error.to_string()).and_then(|ebpf| {
                if let Some(kind) = key.aggregates() {
                    self.aggregates.watch(kind, &ebpf).map_err(|error| error.to_string())?;
                }
                Ok(ebpf)
            });
            self.loaded.insert(key, Loaded { ebpf, parts: BTreeMap::new() });
        }
        Ok(())
    }

    fn attach_parts(&mut self, wanted: &Wanted) -> Report {
        let mut report = Report::new();
        for (key, loaded) in &mut self.loaded {
            with_parts(*key, &self.tracepoints, |parts| {
                for (number, part) in
                    parts.iter().enumerate().filter(|(_, part)| is_wanted(part, wanted))
                {
                    let found = loaded.attach(number, part, &self.kernel);
                    for kind in part.kinds.iter().filter(|kind| wanted.contains_key(kind)) {
                        report.entry(*kind).or_default().merge(&found);
                    }
                }
            });
        }
        for kind in
            wanted.keys().filter(|kind| !report.contains_key(kind)).copied().collect::<Vec<_>>()
        {
            let none = Coverage::None("no probe sees this kind".to_owned());
            let found = guard::report(kind)
                .or_else(|| dns::report(kind))
                .or_else(|| budget::report(kind))
                .unwrap_or_else(|| KindReport { coverage: none, ..KindReport::default() });
            report.insert(kind, found);
        }
        report
    }

    fn detach_parts(&mut self, wanted: &Wanted) {
        self.loaded.retain(|key, loaded| {
            with_parts(*key, &self.tracepoints, |parts| {
                for (number, part) in std::mem::take(&mut loaded.parts) {
                    if is_wanted(&parts[number], wanted) {
                        loaded.parts.insert(number, part);
                    } else if let (Ok(attached), Ok(ebpf)) = (part, &mut loaded.ebpf) {
                        attached.detach(ebpf);
                    }
                }
            });
            if loaded.parts.is_empty()
                && let (Some(kind), Ok(ebpf)) = (key.aggregates(), &loaded.ebpf)
            {
                self.aggregates.forget(kind, ebpf);
            }
            !loaded.parts.is_empty()
        });
    }
}

impl Loaded {
    /// Attaches a part unless that was tried before, and says how well it sees its kinds.
    fn attach(&mut self, number: usize, part: &Part, kernel: &Kernel) -> KindReport {
        let tried = self.parts.entry(number).or_insert_with(|| {
            let (mut report, reason) = match &mut self.ebpf {
                Ok(ebpf) => match attach::climb(part, ebpf, kernel) {
                    Ok(attached) => return Ok(attached),
                    Err(report) => (report, "no hook works here"),
                },
                Err(reason) => (KindReport::default(), reason.as_str()),
            };
            match part.without {
                Some(lacks) => report.lacks(lacks),
                None => report.coverage = Coverage::None(reason.to_owned()),
            }
            Err(report)
        });
        match tried {
            Ok(attached) => attached.report.clone(),
            Err(report) => report.clone(),
        }
    }
}

/// The parts of what is loaded as one.
fn with_parts(key: Key, tracepoints: &BTreeMap<u16, Tracepoint>, each: impl FnOnce(&[Part])) {
    match key {
        Key::Family(index) => each(FAMILIES[index].parts),
        Key::Tracepoint(kind) => {
            tracepoints[&kind].with_part(kind, |part| each(std::slice::from_ref(part)));
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach_parts(&Wanted::new());
        self.aggregates.end();
    }
}

fn is_wanted(part: &Part, wanted: &Wanted) -> bool {
    let fields = u64::from(part.fields);
    let is_asked = |word: &u64| fields == 0 || word & fields != 0;
    part.kinds.iter().any(|kind| wanted.get(kind).is_some_and(is_asked))
}

/// Every rung of every ladder: the kinds that it is for, and its programs as a [`KindReport`] names
/// them.
pub fn rungs() -> impl Iterator<Item = (&'static [u16], Vec<String>)> {
    let parts = FAMILIES.iter().flat_map(|family| family.parts);
    parts.flat_map(|part| part.ladder.iter().map(|rung| (part.kinds, attach::programs(rung))))
}

/// Says early, and by name, what would fail later as EPERM.
fn permitted() -> Result<(), ProbeError> {
    let effective =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if !effective.contains(CapabilitySet::SYS_ADMIN) {
        return Err(ProbeError::NotPermitted { capability: "CAP_SYS_ADMIN" });
    }
    // Where this is not mounted, each hook says what the kernel did not allow.
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(lockdown) if lockdown.contains("[confidentiality]") => Err(ProbeError::LockedDown),
        _ => Ok(()),
    }
}

/// Before Linux 5.11 maps count as locked memory. Returns the limit where it stays: since then
/// loading works all the same.
fn lift_memory_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit on locked memory cannot be lifted");
        return getrlimit(Resource::Memlock).current;
    }
    None
}
