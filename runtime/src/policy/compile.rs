//! The compiler child, seen from the agent.
//!
//! Compiling takes what a hostile file makes it take (346 KB: 10 s and 353 MiB), so it is done by a
//! child process with limits and without rights, which reads the file on its standard input and
//! writes compiled code to its standard output. The agent keeps that in its cache, and maps it from
//! there: it never compiles in its own process.

mod child;
mod confine;
mod entry;

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;

use super::{error::Refusal, file::Digest, ticker::Clocked};
use crate::{
    sys,
    trust::{Trust, TrustError},
};

pub use child::run as child;
use entry::Entry;

/// What compiling one file may take. What takes more does not load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Processor time. The kernel counts in whole seconds.
    pub cpu: Duration,
    /// Wall time. Much more, because the child has a low priority: it counts where a busy machine
    /// hardly lets it run.
    pub wall: Duration,
    /// Private writable memory, in bytes.
    pub memory: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        // Python's take 11 s and 350 MiB.
        Self { cpu: Duration::from_secs(30), wall: Duration::from_mins(5), memory: 1 << 30 }
    }
}

impl CompileLimits {
    fn seconds(&self) -> u64 {
        seconds(self.cpu)
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Said once.
static UNCONFINED: Once = Once::new();
/// Most that is read of what the child says, in bytes.
const ANSWER: u64 = 1 << 20;

/// What the child answers, one line of JSON on standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    said: Said,
    /// What could not be taken from the child.
    unconfined: Option<String>,
}

/// What the child says of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    /// What `describe` returned.
    Manifest(String),
    /// Why the file is no policy.
    Refused(String),
}

/// Where unknown files are compiled.
#[derive(Debug, Clone)]
pub enum Workshop {
    /// In a child that runs this program with the argument `compile`, within these limits.
    Child(PathBuf, CompileLimits),
    /// In this process, without limits. For tests, and for files that their user wrote.
    Here,
}

impl Workshop {
    /// A child that runs the program of this process, which must have the command `compile`. Not by
    /// its path: the file may be another one when the first policy comes.
    #[must_use]
    pub fn this_program(limits: CompileLimits) -> Self {
        Self::Child("/proc/self/exe".into(), limits)
    }
}

/// A component, and what it said when it was asked to describe itself.
pub struct Prepared {
    /// The component, its code mapped from the cache.
    pub component: Component,
    /// Its manifest.
    pub manifest: String,
}

/// Makes a component of a file's bytes, or finds what was made earlier.
pub fn prepare(
    workshop: &Workshop,
    clocked: &Clocked,
    cache: &Path,
    bytes: &[u8],
    digest: Digest,
) -> Result<Prepared, Refusal> {
    let entry = Entry::new(cache, clocked, digest);
    if let Some(known) = entry.read(clocked) {
        return Ok(known);
    }
    match workshop {
        Workshop::Here => {
            let child::Made { manifest, code } = child::make(bytes)?;
            entry.keep(&code[..], manifest)?;
        }
        Workshop::Child(program, limits) => {
            // On the disk that it is going to be kept on, without a name.
            let mut output = tempfile::tempfile_in(cache)?;
            let Answer { said, unconfined } = run(program, limits, &mut output, bytes)?;
            if let Some(why) = unconfined {
                UNCONFINED.call_once(|| {
                    tracing::warn!("the compiler child has more rights than it needs: {why}");
                });
            }
            match said {
                Said::Manifest(manifest) => entry.keep(output, manifest)?,
                Said::Refused(reason) => return Err(Refusal::Component(reason)),
            }
        }
    }
    entry.read(clocked).ok_or_else(|| {
        Refusal::Compiler(format!("what the compiler made cannot be used: see {}", cache.display()))
    })
}

/// Makes the directories of the cache, and checks that nobody else can change what is in them.
pub fn directories(cache: &Path) -> Result<(), TrustError> {
    let trust = Trust::code();
    trust.directory(cache)?;
    trust.directory(&cache.join(entry::COMPILED))
}

/// Runs the child and takes its answer. What can be read of `output` afterwards is the compiled code.
fn run(
    program: &Path,
    limits: &CompileLimits,
    output: &mut File,
    bytes: &[u8],
) -> Result<Answer, Refusal> {
    // Files, not pipes: nobody has to read while the other writes.
    let (mut input, mut errors) = (memory("input")?, memory("errors")?);
    input.write_all(bytes)?;
    input.rewind()?;
    sys::descriptors::close_on_exec()?;
    let child = Command::new(program)
        .arg("compile")
        .arg(format!("--cpu={}", limits.seconds()))
        .arg(format!("--memory={}", limits.memory))
        .arg(format!("--wall={}", seconds(limits.wall)))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(errors.try_clone()?))
        .spawn()?;
    let status = wait(child, limits.wall)?;

    output.rewind()?;
    let mut answer = Vec::new();
    BufReader::new(&*output).take(ANSWER).read_until(b'\n', &mut answer)?;
    output.seek(SeekFrom::Start(answer.len() as u64))?;
    if let Some(status) = status
        && status.success()
        && let Ok(answer) = serde_json::from_slice(&answer)
    {
        return Ok(answer);
    }
    let mut said = Vec::new();
    errors.rewind()?;
    errors.take(ANSWER).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    let says = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
    let last = said.lines().rfind(says).unwrap_or("it said nothing");
    Err(Refusal::Compiler(how_it_ended(status, limits, last)))
}

/// For the log. `None` is a child that was killed because it took too long.
fn how_it_ended(status: Option<ExitStatus>, limits: &CompileLimits, last: &str) -> String {
    let too_long = |what: &str| {
        let more = limits.seconds() * 2;
        format!(
            "it took more than {what}; if it may take longer, write\n    [compiler]\n    cpu = \"{more}s\""
        )
    };
    match status {
        None => too_long(&format!("{:?} of wall time", limits.wall)),
        Some(status) if status.signal() == Some(Signal::ALARM.as_raw()) => {
            too_long(&format!("{:?} of wall time", limits.wall))
        }
        Some(status) if status.signal() == Some(Signal::XCPU.as_raw()) => {
            too_long(&format!("{} s of processor time", limits.seconds()))
        }
        Some(status) => format!(
            "the compiler ended with {status}, it may use {} MiB of memory (`memory` under [compiler]): {last}",
            limits.memory >> 20
        ),
    }
}

fn memory(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// Waits until the child ends. Kills it when its time is over, or when it cannot be waited for.
fn wait(mut child: Child, wall: Duration) -> io::Result<Option<ExitStatus>> {
    let ended = ends_in_time(&child, wall);
    if matches!(ended, Ok(true)) {
        return child.wait().map(Some);
    }
    if let Err(error) = child.kill() {
        tracing::error!(
            pid = child.id(), %error,
            "the compiler child cannot be killed, it ends by its own alarm; give the agent CAP_KILL"
        );
        // Nobody else waits for it.
        thread::Builder::new().name("compiled".into()).spawn(move || child.wait())?;
    } else {
        child.wait()?;
    }
    ended.map(|_| None)
}

/// Waits until the child ends or its time is over. Whether it ended.
fn ends_in_time(child: &Child, wall: Duration) -> io::Result<bool> {
    let descriptor = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let until = Instant::now() + wall;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut wanted = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
        match poll(&mut wanted, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
