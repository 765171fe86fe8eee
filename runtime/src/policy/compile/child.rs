//! The compiler child itself: `tipstaff compile --cache DIR FILE`.

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
};

use rustix::{
    process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};

use super::{Answer, Entry, make};
use crate::policy::{
    error::Refusal,
    file::{self, Digest, MAX_FILE},
    ticker::Clocked,
};

/// The limits below, for a message.
pub const LIMITS: &str = "30 s of processor time and 1 GiB of memory";
/// Processor time, in seconds.
const CPU: u64 = 30;
/// Private writable memory, in bytes.
const DATA: u64 = 1 << 30;
/// Address space, in bytes. Wasmtime reserves 4 GiB for each linear memory without using it.
const ADDRESS_SPACE: u64 = 64 << 30;
/// Largest file, in bytes: compiled code of the largest policy.
const FILE: u64 = 1 << 30;

/// Compiles the file (`-`: standard input) into the cache and writes one line of JSON. The error is
/// one of the process or the cache, not of the file.
pub fn run(cache: &Path, path: &Path) -> io::Result<()> {
    confine()?;
    let mut line = serde_json::to_string(&match answer(cache, path) {
        Ok(manifest) => Answer::Manifest(manifest),
        Err(refusal) => Answer::Refused(refusal.to_string()),
    })?;
    line.push('\n');
    io::stdout().write_all(line.as_bytes())
}

fn answer(cache: &Path, path: &Path) -> Result<String, Refusal> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().take(MAX_FILE).read_to_end(&mut bytes)?;
        bytes
    } else {
        file::read(path)?
    };
    file::check_magic(&bytes)?;
    let clocked = Clocked::new(cache).map_err(|error| Refusal::Engine(format!("{error:#}")))?;
    make(&clocked, &Entry::new(cache, &clocked, Digest::of(&bytes)), &bytes)
}

/// Gives up what compiling does not need. Before any thread is started, because capabilities are
/// those of a thread.
fn confine() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_no_new_privs(true)?;
    for (resource, limit) in [
        (Resource::Cpu, CPU),
        (Resource::Data, DATA),
        (Resource::As, ADDRESS_SPACE),
        (Resource::Fsize, FILE),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    nice(10)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
