//! Guards: programs of ours at a cgroup, which deny what a table denies.
//!
//! One guard is one cgroup and one table, with programs and maps of its own; see
//! `docs/decisions/0011`. A table is put in as a new generation beside the old one, one word switches,
//! and when no program can be reading the old one any more its nodes go.

mod count;
mod known;
mod maps;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{Ebpf, programs::CgroupSockAddr};
use tipstaff_events::{
    catalogue::denied,
    guard::{DEADMAN, DENY_BIT, ENFORCE, GUARD, MODE, SCOPE, TABLE},
};

pub use count::{Counted, RuleCount};
pub use known::Known;

use super::{
    attach::reason,
    coverage::KindReport,
    error::ProbeError,
    losses::{Losses, Watch},
};
use crate::{
    clock,
    guard::{GuardMode, Table, Verdict, nanoseconds},
    mountinfo,
    sys::{
        bpf::{self, CgroupHook},
        programs,
    },
};
use count::Carried;
use maps::{Key, Maps};

/// Name of the object.
pub(super) const OBJECT: &str = "guard_network";

/// Its programs, and where they sit.
const PROGRAMS: [(&str, CgroupHook, &str); 6] = [
    ("guard_connect4", CgroupHook::Connect4, "cgroup:connect4"),
    ("guard_connect6", CgroupHook::Connect6, "cgroup:connect6"),
    ("guard_sendmsg4", CgroupHook::Sendmsg4, "cgroup:sendmsg4"),
    ("guard_sendmsg6", CgroupHook::Sendmsg6, "cgroup:sendmsg6"),
    ("guard_bind4", CgroupHook::Bind4, "cgroup:bind4"),
    ("guard_bind6", CgroupHook::Bind6, "cgroup:bind6"),
];

/// How the kind is seen that guards make, if it is one: wherever there is a guard.
pub(super) fn report(kind: u16) -> Option<KindReport> {
    (kind == denied::KIND).then(|| KindReport {
        hooks: PROGRAMS.iter().map(|(_, _, hook)| (*hook).to_owned()).collect(),
        programs: PROGRAMS.iter().map(|(program, _, hook)| format!("{program}@{hook}")).collect(),
        ..KindReport::default()
    })
}

/// The network of a cgroup is guarded until this is dropped.
pub struct NetworkGuard {
    /// Stand first: they are closed first, and with them nothing is decided any more.
    links: Vec<OwnedFd>,
    maps: Maps,
    known: Known,
    /// Holds the programs, which are gone from the kernel with this.
    _ebpf: Ebpf,
    _watches: Vec<Watch>,
    cgroup: PathBuf,
    installed: Option<Installed>,
    /// Generation of the newest table.
    generation: u64,
    /// Nodes of tables that are not in force, which could not be taken out yet.
    stale: Vec<Key>,
    carried: Carried,
}

/// The table in force.
struct Installed {
    table: Table,
    keys: Vec<Key>,
}

impl NetworkGuard {
    pub(super) fn new(
        mut ebpf: Ebpf,
        cgroup: &Path,
        number: u32,
        mode: GuardMode,
        losses: &Losses,
    ) -> Result<Self, ProbeError> {
        let failed = |reason: String| ProbeError::Guard { cgroup: cgroup.to_owned(), reason };
        let directory = open(cgroup).map_err(failed)?;
        let told = |error: io::Error| failed(error.to_string());
        // The id of a cgroup is the inode of its directory.
        let id = directory.metadata().map_err(told)?.ino();
        let maps = Maps::of(&ebpf).map_err(told)?;
        let known = known::map(&ebpf).map_err(told)?;
        for (word, value) in [(GUARD, number.into()), (SCOPE, id), (MODE, word(mode))] {
            maps.set(word, value).map_err(told)?;
        }
        let links = PROGRAMS
            .iter()
            .map(|(program, hook, name)| {
                attach(&mut ebpf, program, *hook, &directory)
                    .map_err(|reason| failed(format!("{program} at {name}: {reason}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            links,
            maps,
            known,
            _watches: losses.watch_all(&ebpf),
            _ebpf: ebpf,
            cgroup: cgroup.to_owned(),
            installed: None,
            generation: 0,
            stale: Vec::new(),
            carried: Carried::default(),
        })
    }

    /// Puts a table in force instead of the one before. Every operation is decided by the one or the
    /// other. Times to live begin now. After an error the one before is still in force.
    pub fn install(&mut self, table: &Table) -> Result<(), ProbeError> {
        let nodes = table
            .nodes(clock::since_boot())
            .map_err(Box::new)
            .map_err(|source| ProbeError::Table { cgroup: self.cgroup.clone(), source })?;
        self.sweep();
        self.carried
            .collect(&self.maps)
            .map_err(|error| self.failed(format!("what a table before counted: {error}")))?;
        let generation = (self.generation + 1) & !DENY_BIT;
        let keys: Vec<Key> =
            nodes.iter().map(|(prefix, _)| maps::key(generation, *prefix)).collect();
        let default = if table.default == Verdict::Deny { DENY_BIT } else { 0 };
        let mut put =
            keys.iter().zip(&nodes).try_for_each(|(key, (_, node))| self.maps.put(key, node));
        if put.is_ok() {
            put = self.maps.set(TABLE, generation | default);
        }
        if let Err(error) = put {
            self.stale.extend(keys);
            self.sweep();
            return Err(self.failed(format!("a table of {} nodes: {error}", nodes.len())));
        }
        let before = self.installed.replace(Installed { table: table.clone(), keys });
        let generation_before = std::mem::replace(&mut self.generation, generation);
        if let Some(before) = before {
            // A program that began under the word before may still be looking at the old nodes.
            programs::wait();
            self.stale.extend(before.keys);
            self.sweep();
            self.carried.retire(generation_before, &before.table, table);
            if let Err(error) = self.carried.collect(&self.maps) {
                tracing::warn!(
                    cgroup = %self.cgroup.display(), %error,
                    "what the table before counted cannot be taken over yet: until it can, there is no other table"
                );
            }
        }
        Ok(())
    }

    /// Whether what the table denies fails, or is only told of. Holds for every operation from now on.
    pub fn set_mode(&mut self, mode: GuardMode) -> Result<(), ProbeError> {
        self.maps.set(MODE, word(mode)).map_err(|error| self.failed(error.to_string()))
    }

    /// What its events bear from now on.
    pub fn set_number(&mut self, number: u32) -> Result<(), ProbeError> {
        self.maps.set(GUARD, number.into()).map_err(|error| self.failed(error.to_string()))
    }

    /// Denies nothing any more, also where copies of its links hold it, until another table is put in force.
    pub fn rest(&mut self) -> Result<(), ProbeError> {
        // One word, for which there is always room.
        self.set_mode(GuardMode::Audit)?;
        let emptied = self
            .install(&Table::new(Verdict::Allow))
            .map_err(|error| error.to_string())
            .and_then(|()| self.known.forget().map_err(|error| error.to_string()));
        if let Err(error) = emptied {
            tracing::warn!(cgroup = %self.cgroup.display(), %error, "a table that denies nothing any more stays");
        }
        Ok(())
    }

    /// From when on the table does not count any more, unless this is called again before: so that it
    /// goes when nobody is there who would take it away. `None`: never.
    pub fn set_deadman(&mut self, lasts: Option<Duration>) -> Result<(), ProbeError> {
        let until = lasts.map_or(0, |lasts| nanoseconds(clock::since_boot().saturating_add(lasts)));
        self.maps.set(DEADMAN, until).map_err(|error| self.failed(error.to_string()))
    }

    /// What was denied so far: by each rule of the table in force and its default, in their order, then by
    /// rules that are not there any more. Rules that were in the table before keep their counts.
    pub fn counts(&self) -> Result<Vec<RuleCount>, ProbeError> {
        let table = self.installed.as_ref().map(|installed| &installed.table);
        self.carried
            .counts(&self.maps, self.generation, table)
            .map_err(|error| self.failed(format!("counts: {error}")))
    }

    /// Peers that it lets through beside what the table says.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// What keeps the programs attached: copies of these do so after this is dropped, with the table that
    /// was in force then.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(OwnedFd::as_fd)
    }

    /// Directory of the cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Takes out nodes that no program looks at.
    fn sweep(&mut self) {
        let maps = &self.maps;
        self.stale.retain(|key| match maps.remove(key) {
            Ok(()) => false,
            Err(error) => {
                tracing::debug!(%error, "a node of an old table stays for now");
                true
            }
        });
    }

    fn failed(&self, reason: String) -> ProbeError {
        ProbeError::Guard { cgroup: self.cgroup.clone(), reason }
    }
}

fn word(mode: GuardMode) -> u64 {
    match mode {
        GuardMode::Audit => 0,
        GuardMode::Enforce => ENFORCE,
    }
}

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: u64 = 0x6367_7270;

/// The directory of a cgroup, which must be of the v2 hierarchy.
pub(super) fn open(cgroup: &Path) -> Result<File, String> {
    let directory = File::open(cgroup).map_err(|error| error.to_string())?;
    let found = rustix::fs::fstatfs(&directory).map_err(|error| error.to_string())?;
    if u64::try_from(found.f_type) == Ok(CGROUP2) {
        return Ok(directory);
    }
    Err(match mountinfo::cgroup_v2() {
        Ok(mount) => {
            format!("it is not in the v2 hierarchy, which is mounted at {}", mount.display())
        }
        Err(error) => error.to_string(),
    })
}

/// Loads a program and attaches it to the cgroup.
fn attach(ebpf: &mut Ebpf, name: &str, hook: CgroupHook, cgroup: &File) -> Result<OwnedFd, String> {
    let program = ebpf.program_mut(name).ok_or("the object has no such program")?;
    let program: &mut CgroupSockAddr = program.try_into().map_err(reason)?;
    program.load().map_err(reason)?;
    let fd = program.fd().map_err(reason)?;
    bpf::link_cgroup(fd.as_fd(), cgroup.as_fd(), hook).map_err(|error| error.to_string())
}
