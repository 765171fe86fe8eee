//! The table of probe families: which object holds the programs of which kinds, and where each
//! program can sit. One file per family; a new probe is an entry there.

mod file;
mod io;
mod life;
mod processes;
mod sched;
mod signal;
mod socket;
mod syscalls;
mod uring;

/// An object, and what its programs see.
pub(super) struct Family {
    /// Name of the object: a file or a folder in `ebpf/probes/src/bin`.
    pub(super) object: &'static str,
    /// Attached one by one, each only while one of its kinds is wanted.
    pub(super) parts: &'static [Part<'static>],
    /// The aggregated kind whose maps it has.
    pub(super) aggregates: Option<u16>,
    /// Its maps whose sizes are decided here.
    pub(super) maps: &'static [Sized],
}

/// A map of keys, or of what belongs to keys.
pub(super) struct Sized {
    /// Its name.
    pub(super) name: &'static str,
    /// Most entries, as a fraction of the keys that a kind has room for; fewer where there are many CPUs.
    pub(super) of_keys: (u32, u32),
    /// Bytes of a value.
    pub(super) value: usize,
    /// Whether each CPU has a value.
    pub(super) per_cpu: bool,
}

/// One way by which events of some kinds reach us. A kind may need several.
pub(super) struct Part<'a> {
    /// Numbers of the kinds.
    pub(super) kinds: &'a [u16],
    /// Only for fields with these bits; 0: whenever a kind is wanted.
    pub(super) fields: u32,
    /// What the kinds lack where no rung works; `None`: everything.
    pub(super) without: Option<&'static str>,
    /// The first rung that loads and attaches is taken; every error means: the next one.
    pub(super) ladder: &'a [Rung<'a>],
}

/// Hooks that belong together: all of them work, or none is used.
pub(super) struct Rung<'a> {
    /// The hooks, in the order in which they are attached.
    pub(super) hooks: &'a [Hook<'a>],
    /// What the kinds lack on this rung.
    pub(super) lacks: Option<&'static str>,
}

/// A program and where it sits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook<'a> {
    /// Name of the program's function.
    pub(super) program: &'static str,
    /// Where it sits.
    pub(super) at: At<'a>,
}

/// Where a program can sit. Another attach type is another variant, and the compiler asks for the
/// rest (in `attach.rs`).
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// A raw tracepoint (Linux 4.17).
    Raw {
        /// Name of the tracepoint.
        name: &'static str,
        /// What it must pass, as C writes the types: decoding one prototype as another gives
        /// nonsense without an error.
        passes: &'static [&'static str],
    },
    /// A raw tracepoint whose arguments the verifier knows by type (`tp_btf`, Linux 5.5): the same
    /// hook with the same cost.
    Typed {
        /// Name of the tracepoint.
        name: &'static str,
        /// What it must pass.
        passes: &'static [&'static str],
    },
    /// A raw tracepoint with two programs, of which the second does what the first was kept from
    /// doing: what one of them misses is not lost.
    Twice {
        /// Name of the tracepoint.
        name: &'static str,
        /// What it must pass.
        passes: &'static [&'static str],
    },
    /// No hook of its own: a slot of a program array, called by a program that sits at `caller`.
    /// Stands in front of that program in its rung.
    Called {
        /// Where the caller sits.
        caller: &'static At<'static>,
        /// Name of the program array.
        array: &'static str,
        /// Index in it.
        slot: u32,
    },
    /// A raw tracepoint, typed or not as its program is, whose program adds to what another one counts:
    /// what it misses is not lost.
    Beside(&'static At<'static>),
    /// A classic tracepoint (Linux 4.7).
    Classic {
        /// Category in tracefs.
        category: &'a str,
        /// Name in tracefs.
        name: &'a str,
    },
}

impl<'a> At<'a> {
    /// Where the program is attached.
    pub(super) fn place(self) -> At<'a> {
        if let Self::Beside(at) = self { *at } else { self }
    }

    /// Whether what the program misses is lost.
    pub(super) fn loses(self) -> bool {
        !matches!(self, Self::Twice { .. } | Self::Beside(_))
    }
}

/// What most hooks of processes pass.
const TASK: &str = "struct task_struct *";

/// The return of every system call; docs/decisions/0002 says why there.
const SYS_EXIT: At<'static> =
    At::Typed { name: "sys_exit", passes: &["struct pt_regs *", "long int"] };

/// The program of one kind, called by the one of its family that sits at [`SYS_EXIT`].
const fn called(program: &'static str, slot: u32) -> Hook<'static> {
    Hook { program, at: At::Called { caller: &SYS_EXIT, array: "PROGRAMS", slot } }
}

/// Every family.
pub(super) static FAMILIES: &[&Family] = &[
    &life::FAMILY,
    &signal::FAMILY,
    &file::FAMILY,
    &socket::FAMILY,
    &syscalls::COUNTED,
    &syscalls::TIMED,
    &sched::FAMILY,
    &io::FAMILY,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, io, path::Path};

    fn source(path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn sources(folder: &Path) -> io::Result<String> {
        fs::read_dir(folder)?.map(|entry| source(&entry?.path())).collect()
    }

    #[test]
    fn each_family_has_its_object_and_each_program_its_function() {
        for family in FAMILIES {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf/probes/src/bin");
            let source = source(&folder.join(family.object).with_extension("rs"))
                .or_else(|_| sources(&folder.join(family.object)))
                .unwrap_or_else(|error| panic!("{}: {error}", family.object));
            for hook in family.parts.iter().flat_map(|part| part.ladder).flat_map(|rung| rung.hooks)
            {
                assert!(
                    source.contains(hook.program),
                    "{} has no program {}",
                    family.object,
                    hook.program
                );
            }
        }
    }

    #[test]
    fn no_two_families_have_parts_without_which_a_kind_is_not_seen_at_all() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES {
            let kinds: BTreeSet<u16> = family
                .parts
                .iter()
                .filter(|part| part.without.is_none())
                .flat_map(|part| part.kinds.iter().copied())
                .collect();
            for kind in kinds {
                assert!(seen.insert(kind), "kind {kind} has two families");
            }
        }
    }
}
