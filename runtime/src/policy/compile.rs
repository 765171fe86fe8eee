//! The compiler child, seen from the agent.
//!
//! Compiling takes what a hostile file makes it take (346 KB: 10 s and 353 MiB), so it is done by a
//! child process with limits and without rights, which leaves the compiled code, in Wasmtime's own
//! cache format, and the component in a folder of its own. From there the agent takes both into its
//! cache, and loads only what is there and unchanged: it never compiles in its own process.

mod child;
mod confine;
mod entry;

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};

use super::{error::Refusal, file::Digest, ticker::Clocked};
use crate::{
    sys,
    trust::{Trust, TrustError},
};

pub use child::run as child;
use entry::Entry;

/// Wall time that the child may take.
const WALL: Duration = Duration::from_mins(1);
/// Beginning of the names of folders that children write to.
const FOLDER: &str = ".compile-";
/// A folder that is older than this belongs to no child: see [`WALL`].
const LEFT: Duration = Duration::from_hours(1);
/// Said once.
static UNCONFINED: Once = Once::new();
/// Most that is read of what the child says, in bytes.
const ANSWER: u64 = 1 << 20;

/// Name of the component in the child's folder.
const COMPONENT: &str = "component.wasm";

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
    /// In a child that runs this program with the arguments `compile --into DIR -`.
    Child(PathBuf),
    /// In this process, without limits. For tests, and for files that their user wrote.
    Here,
}

impl Workshop {
    /// A child that runs the program of this process, which must have the command `compile`.
    #[must_use]
    pub fn this_program() -> Self {
        Self::Child("/proc/self/exe".into())
    }
}

/// A component, and what it said when it was asked to describe itself.
#[derive(Debug)]
pub struct Prepared {
    /// Bytes of the component.
    pub component: Vec<u8>,
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
    if let Some(known) = entry.read() {
        return Ok(known);
    }
    // In the cache, so that files are only renamed. It goes when this returns.
    let folder = tempfile::Builder::new()
        .prefix(FOLDER)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(cache)?;
    let manifest = match workshop {
        Workshop::Here => child::make(folder.path(), bytes)?,
        Workshop::Child(program) => {
            let Answer { said, unconfined } = run(program, folder.path(), bytes)?;
            if let Some(why) = unconfined {
                UNCONFINED.call_once(|| {
                    tracing::warn!("the compiler child has more rights than it needs: {why}");
                });
            }
            match said {
                Said::Manifest(manifest) => manifest,
                Said::Refused(reason) => return Err(Refusal::Component(reason)),
            }
        }
    };
    entry.take(folder.path(), &manifest)?;
    entry.read().ok_or_else(|| {
        Refusal::Compiler(format!("the compiler left nothing in {}", cache.display()))
    })
}

/// Makes the directories of the cache, and checks that nobody else can change what is in them.
/// Removes what children left whose agent was killed.
pub fn directories(cache: &Path) -> Result<(), TrustError> {
    let trust = Trust::code();
    trust.directory(cache)?;
    for below in [entry::COMPONENTS, entry::CODE] {
        trust.directory(&cache.join(below))?;
    }
    for name in trust.names(cache)? {
        let folder = cache.join(&name);
        let is_old = || folder.metadata().ok()?.modified().ok()?.elapsed().ok();
        if name.as_encoded_bytes().starts_with(FOLDER.as_bytes())
            && is_old().is_some_and(|age| age > LEFT)
        {
            let _ = fs::remove_dir_all(folder);
        }
    }
    Ok(())
}

/// Runs the child and takes its answer.
fn run(program: &Path, folder: &Path, bytes: &[u8]) -> Result<Answer, Refusal> {
    // Files in memory, not pipes: nobody has to read while the other writes.
    let (mut input, mut output, mut errors) =
        (memory("input")?, memory("output")?, memory("errors")?);
    input.write_all(bytes)?;
    input.rewind()?;
    sys::descriptors::close_on_exec()?;
    let mut child = Command::new(program)
        .args(["compile", "--into"])
        .arg(folder)
        .arg("-")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(errors.try_clone()?))
        .spawn()?;
    let status = wait(&mut child)?;

    let mut answer = String::new();
    output.rewind()?;
    output.take(ANSWER).read_to_string(&mut answer)?;
    if let Some(status) = status
        && status.success()
        && let Ok(answer) = serde_json::from_str(&answer)
    {
        return Ok(answer);
    }
    let mut said = Vec::new();
    errors.rewind()?;
    errors.take(ANSWER).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    let says = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
    let last = said.lines().rfind(says).unwrap_or("it said nothing");
    Err(Refusal::Compiler(match status {
        None => format!("it took longer than {} s", WALL.as_secs()),
        Some(status) => {
            format!("the compiler ended with {status}, its limits are {}: {last}", confine::LIMITS)
        }
    }))
}

fn memory(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// Waits until the child ends. Kills it when its time is over, or when it cannot be waited for.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let ended = ends_in_time(child);
    if matches!(ended, Ok(true)) {
        return child.wait().map(Some);
    }
    child.kill()?;
    child.wait()?;
    ended.map(|_| None)
}

/// Waits until the child ends or its time is over. Whether it ended.
fn ends_in_time(child: &Child) -> io::Result<bool> {
    let descriptor = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let until = Instant::now() + WALL;
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
