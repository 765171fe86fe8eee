//! Climbs a ladder: loads and attaches programs, and takes them off again.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{BtfTracePoint, Program, ProgramError, ProgramFd, RawTracePoint, TracePoint},
};

use super::{
    coverage::{KindReport, Rejected},
    family::{At, Hook, Part, Rung},
    kernel::Kernel,
    losses::Watch,
};
use crate::sys::perf;

/// A part whose programs run. Dropping it leaves the programs loaded: call [`Attached::detach`].
pub(super) struct Attached {
    hooks: Vec<AttachedHook>,
    /// How well its kinds are seen.
    pub(super) report: KindReport,
}

struct AttachedHook {
    program: &'static str,
    /// The program array that it is called from, and its slot.
    slot: Option<(&'static str, u32)>,
    /// Detaches when it is closed; links of other types are aya's.
    event: Option<OwnedFd>,
    watch: Watch,
}

/// Takes the first rung of the part's ladder that works.
pub(super) fn climb(part: &Part, ebpf: &mut Ebpf, kernel: &Kernel) -> Result<Attached, KindReport> {
    let mut report = KindReport::default();
    for rung in part.ladder {
        match step(part, rung, ebpf, kernel) {
            Ok(hooks) => {
                report.hooks = rung.hooks.iter().map(name).collect();
                report.programs = programs(rung);
                if let Some(lacks) = rung.lacks {
                    report.lacks(lacks);
                }
                if rung.hooks.iter().any(|hook| !kernel.counts_misses(hook.at)) {
                    report.lacks("misses not counted");
                }
                return Ok(Attached { hooks, report });
            }
            Err(rejected) => report.rejected.push(rejected),
        }
    }
    Err(report)
}

/// Attaches all hooks of a rung, or none.
fn step(
    part: &Part,
    rung: &Rung,
    ebpf: &mut Ebpf,
    kernel: &Kernel,
) -> Result<Vec<AttachedHook>, Rejected> {
    let mut hooks = Vec::new();
    for hook in rung.hooks {
        match attach(part, hook, ebpf, kernel) {
            Ok(attached) => hooks.push(attached),
            Err(reason) => {
                unload(ebpf, hook.program, slot(hook));
                Attached { hooks, report: KindReport::default() }.detach(ebpf);
                return Err(Rejected { hook: name(hook), reason });
            }
        }
    }
    Ok(hooks)
}

impl Attached {
    /// Takes the programs off their hooks and out of the kernel.
    pub(super) fn detach(self, ebpf: &mut Ebpf) {
        // The caller stands behind the programs that it calls: it stops first.
        for AttachedHook { program, slot, event, watch } in self.hooks.into_iter().rev() {
            drop(event);
            // The last misses are counted before the program is gone.
            drop(watch);
            unload(ebpf, program, slot);
        }
    }
}

/// The programs of a rung, as PROGRAM@HOOK.
pub(super) fn programs(rung: &Rung) -> Vec<String> {
    rung.hooks.iter().map(|hook| format!("{}@{}", hook.program, name(hook))).collect()
}

fn name(hook: &Hook) -> String {
    match hook.at {
        At::Raw { name, .. } | At::Twice { name, .. } => format!("raw_tracepoint:{name}"),
        At::Typed { name, .. } => format!("tp_btf:{name}"),
        At::Beside(at) => name(&Hook { at: *at, ..*hook }),
        At::Called { array, .. } => format!("{array}:{}", hook.program),
        At::Classic { category, name } => format!("tracepoint:{category}:{name}"),
    }
}

/// Loads and attaches one program; the error says why it does not work.
fn attach(
    part: &Part,
    hook: &Hook,
    ebpf: &mut Ebpf,
    kernel: &Kernel,
) -> Result<AttachedHook, String> {
    let fd = load(hook.program, hook.at, ebpf, kernel)?;
    let mut event = None;
    match hook.at.place() {
        At::Raw { name, .. } | At::Twice { name, .. } => {
            let program: &mut RawTracePoint = program(hook.program, ebpf)?;
            program.attach(name).map_err(reason)?;
        }
        At::Typed { .. } => {
            let program: &mut BtfTracePoint = program(hook.program, ebpf)?;
            program.attach().map_err(reason)?;
        }
        At::Called { array, slot, .. } => {
            let map =
                ebpf.map_mut(array).ok_or_else(|| format!("the object has no map {array}"))?;
            let mut array = ProgramArray::try_from(map).map_err(|error| error.to_string())?;
            array.set(slot, &fd, 0).map_err(|error| error.to_string())?;
        }
        At::Beside(_) => unreachable!("a place is none itself"),
        At::Classic { category, name } => {
            let id = tracepoint_id(kernel, category, name).map_err(|error| error.to_string())?;
            event =
                Some(perf::attach_tracepoint(id, fd.as_fd()).map_err(|error| error.to_string())?);
        }
    }
    let fd = fd.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    Ok(AttachedHook {
        program: hook.program,
        slot: slot(hook),
        event,
        watch: kernel.losses.watch(fd, part.kinds, hook.at.loses()),
    })
}

/// Loads a program for where it sits.
fn load(name: &str, at: At, ebpf: &mut Ebpf, kernel: &Kernel) -> Result<ProgramFd, String> {
    if let At::Raw { name, passes } | At::Typed { name, passes } | At::Twice { name, passes } = at {
        let btf = kernel.btf().map_err(|error| error.to_string())?;
        let found = btf.tracepoint(name).ok_or("this kernel has no such tracepoint")?;
        if found != passes {
            return Err(format!(
                "it passes ({}), expected ({})",
                found.join(", "),
                passes.join(", ")
            ));
        }
    }
    match at {
        At::Raw { .. } | At::Twice { .. } => {
            let program: &mut RawTracePoint = program(name, ebpf)?;
            program
                .load()
                .and_then(|()| program.fd()?.try_clone().map_err(Into::into))
                .map_err(reason)
        }
        At::Typed { name: tracepoint, .. } => {
            let program: &mut BtfTracePoint = program(name, ebpf)?;
            let btf = kernel.types().map_err(|error| error.to_string())?;
            program
                .load(tracepoint, btf)
                .and_then(|()| program.fd()?.try_clone().map_err(Into::into))
                .map_err(reason)
        }
        At::Called { caller: at, .. } | At::Beside(at) => load(name, *at, ebpf, kernel),
        At::Classic { .. } => {
            let program: &mut TracePoint = program(name, ebpf)?;
            program
                .load()
                .and_then(|()| program.fd()?.try_clone().map_err(Into::into))
                .map_err(reason)
        }
    }
}

fn program<'a, P>(name: &str, ebpf: &'a mut Ebpf) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the object has no program {name}"))?
        .try_into()
        .map_err(reason)
}

/// Takes a program off its hook and out of the kernel.
fn unload(ebpf: &mut Ebpf, program: &str, slot: Option<(&str, u32)>) {
    if let Some((array, slot)) = slot
        && let Some(map) = ebpf.map_mut(array)
        && let Ok(mut array) = ProgramArray::try_from(map)
    {
        // Empty is as good as emptied, here and below.
        let _ = array.clear_index(&slot);
    }
    let _ = match ebpf.program_mut(program) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::TracePoint(program)) => program.unload(),
        _ => Ok(()),
    };
}

fn slot(hook: &Hook) -> Option<(&'static str, u32)> {
    match hook.at {
        At::Called { array, slot, .. } => Some((array, slot)),
        At::Raw { .. }
        | At::Typed { .. }
        | At::Twice { .. }
        | At::Beside(_)
        | At::Classic { .. } => None,
    }
}

fn tracepoint_id(kernel: &Kernel, category: &str, name: &str) -> io::Result<u64> {
    let path = kernel.tracefs().map_err(io::Error::other)?.event(category, name).join("id");
    let text = fs::read_to_string(&path).map_err(|error| {
        io::Error::new(error.kind(), format!("{category}:{name}/id in tracefs: {error}"))
    })?;
    text.trim().parse().map_err(io::Error::other)
}

/// Lines of the verifier's log that are worth showing: the last ones say what it objects to.
const VERIFIER_LINES: usize = 6;

/// What the kernel said, without aya's frame and without most of the verifier's log.
pub(super) fn reason(error: ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> =
                log.lines().filter(|line| !line.starts_with("processed ")).collect();
            let last = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" | ");
            if last.is_empty() { io_error.to_string() } else { format!("{io_error}: {last}") }
        }
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}
