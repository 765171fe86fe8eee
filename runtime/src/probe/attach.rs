//! Climbs a ladder: loads and attaches programs, and takes them off again.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, RawTracePoint, TracePoint},
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
    /// Detaches when it is closed; raw tracepoints are aya's.
    _event: Option<OwnedFd>,
    _watch: Watch,
}

/// Takes the first rung of the part's ladder that works.
pub(super) fn climb(part: &Part, ebpf: &mut Ebpf, kernel: &Kernel) -> Result<Attached, KindReport> {
    let mut report = KindReport::default();
    for rung in part.ladder {
        match step(part, rung, ebpf, kernel) {
            Ok(hooks) => {
                report.hooks = rung.hooks.iter().map(name).collect();
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
                unload(ebpf, hook.program);
                for attached in hooks {
                    unload(ebpf, attached.program);
                }
                return Err(Rejected { hook: name(hook), reason });
            }
        }
    }
    Ok(hooks)
}

impl Attached {
    /// Takes the programs off their hooks and out of the kernel.
    pub(super) fn detach(self, ebpf: &mut Ebpf) {
        for AttachedHook { program, _event: event, _watch: watch } in self.hooks {
            drop(event);
            // The last misses are counted before the program is gone.
            drop(watch);
            unload(ebpf, program);
        }
    }
}

fn name(hook: &Hook) -> String {
    match hook.at {
        At::Raw { name, .. } => format!("raw_tracepoint:{name}"),
        At::Classic { category, name } => format!("tracepoint:{category}:{name}"),
    }
}

/// Attaches one program; the error says why it does not work.
fn attach(
    part: &Part,
    hook: &Hook,
    ebpf: &mut Ebpf,
    kernel: &Kernel,
) -> Result<AttachedHook, String> {
    let program = ebpf
        .program_mut(hook.program)
        .ok_or_else(|| format!("the object has no program {}", hook.program))?;
    let (event, fd) = match hook.at {
        At::Raw { name, passes } => {
            let found = kernel.btf.tracepoint(name).ok_or("this kernel has no such tracepoint")?;
            if found != passes {
                return Err(format!(
                    "it passes ({}), expected ({})",
                    found.join(", "),
                    passes.join(", ")
                ));
            }
            let program: &mut RawTracePoint = program.try_into().map_err(reason)?;
            program.load().map_err(reason)?;
            program.attach(name).map_err(reason)?;
            (None, program.fd().map_err(reason)?.as_fd().try_clone_to_owned())
        }
        At::Classic { category, name } => {
            let id = tracepoint_id(kernel, category, name).map_err(|error| error.to_string())?;
            let program: &mut TracePoint = program.try_into().map_err(reason)?;
            program.load().map_err(reason)?;
            let fd = program.fd().map_err(reason)?.as_fd();
            let event = perf::attach_tracepoint(id, fd).map_err(|error| error.to_string())?;
            (Some(event), fd.try_clone_to_owned())
        }
    };
    let fd = fd.map_err(|error| error.to_string())?;
    Ok(AttachedHook {
        program: hook.program,
        _event: event,
        _watch: kernel.losses.watch(fd, part.kinds),
    })
}

fn unload(ebpf: &mut Ebpf, program: &str) {
    // Not loaded is as good as unloaded.
    let _ = match ebpf.program_mut(program) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::TracePoint(program)) => program.unload(),
        _ => Ok(()),
    };
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
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
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
