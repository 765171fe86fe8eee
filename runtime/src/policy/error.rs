//! Why a policy does not load, and how a call of a guest ends badly.

use std::{fmt, io, path::PathBuf, time::Duration};

use wasmtime::{Trap, WasmBacktrace, component::ResourceTableError};

use super::{Digest, deadline::TooLong, limiter::LimitReached};
use crate::{escape, manifest::ManifestError, outcome::MetricError, trust::TrustError};

/// A policy's file does not load.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", escape::control(&path.to_string_lossy()))]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Why. Not a source: the message has it already.
    pub reason: Refusal,
}

/// Why a policy does not load.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Not a file.
    #[error("is not a regular file, expected a WebAssembly component or module")]
    NotAFile,
    /// Longer than [`super::file::MAX_FILE`].
    #[error("has {0} bytes, at most {limit} are allowed", limit = super::file::MAX_FILE)]
    TooLarge(u64),
    /// No bytes.
    #[error("is empty, expected a WebAssembly component or module")]
    Empty,
    /// Text, perhaps source code.
    #[error("is a text file, expected a compiled WebAssembly component or module")]
    Text,
    /// Something else.
    #[error("is not WebAssembly: it begins with {0}, expected `00 61 73 6d` (\"\\0asm\")")]
    NotWasm(String),
    /// Broken, or of another world; said by the compiler child.
    #[error("{0}")]
    Component(String),
    /// The compiler child came to an end of its own.
    #[error("could not be compiled: {0}")]
    Compiler(String),
    /// Wasmtime or the cache; not the file's fault.
    #[error("the compiled code could not be used: {0}")]
    Engine(String),
    /// Someone else could change what the agent runs.
    #[error("is no directory for compiled policies (`cache_dir` under [agent]): {0}")]
    Cache(#[from] TrustError),
    /// An import that is not granted.
    #[error(
        "imports `{import}`, which is not granted; to grant it, write\n    [policy.{policy}]\n    grants = [{grants}]"
    )]
    NotGranted {
        /// Name of the policy.
        policy: String,
        /// What it imports.
        import: String,
        /// What is granted already, and this capability, as the configuration writes them.
        grants: String,
    },
    /// In enforce mode, what is granted to whatever file has the name.
    #[error(
        "may act on this machine in enforce mode only if that is granted to this very file; to grant it, write\n    [policy.{policy}]\n    grants = [{grants}]\n    digest = [\"{digest}\"]\n  or, for any file of this name, `unpinned = true` instead of `digest`"
    )]
    NotPinned {
        /// Name of the policy.
        policy: String,
        /// What is granted, as the configuration writes it.
        grants: String,
        /// Digest of the file.
        digest: Digest,
    },
    /// An import that this agent does not have.
    #[error("imports `{import}`, which this agent does not have; it has {known}")]
    UnknownImport {
        /// What it imports.
        import: String,
        /// What there is.
        known: String,
    },
    /// The manifest is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The policy refuses its settings.
    #[error("the policy `{policy}` refuses its settings: {message}")]
    Configure {
        /// Name of the policy.
        policy: String,
        /// What it says.
        message: String,
    },
    /// `describe` and `configure` do not agree on who the policy is.
    #[error(
        "says in `configure` that its name is `{configured}`, but in `describe` that it is `{described}`"
    )]
    Renamed {
        /// Name from `describe`.
        described: String,
        /// Name from `configure`.
        configured: String,
    },
    /// A new instance of a running policy subscribes to something else.
    #[error("returned another manifest from `configure` than its first instance")]
    Changed,
    /// A limit is too small for any guest.
    #[error(
        "the policy `{policy}` is limited to {given} bytes of memory, at least {least} are needed: raise `memory` in [policy.{policy}.limits]"
    )]
    TooLittleMemory {
        /// Name of the policy.
        policy: String,
        /// The limit.
        given: usize,
        /// The least that makes sense.
        least: usize,
    },
    /// It has more of something than it may.
    #[error(
        "the policy `{policy}` has {found} {what}, its limit is {limit}; if it may have more, write\n    [policy.{policy}.limits]\n    {key} = {found}"
    )]
    Beyond {
        /// Name of the policy.
        policy: String,
        /// What it has.
        what: &'static str,
        /// How much.
        found: usize,
        /// How much it may have.
        limit: usize,
        /// Key of the limit.
        key: &'static str,
    },
    /// A metric of another policy has the same name.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A call ended badly.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A call of a guest ended badly. The instance is lost, whatever the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The function that was called.
    pub function: &'static str,
    /// Why it ended.
    pub reason: Reason,
    /// The guest's functions, innermost first, where their names are known.
    pub backtrace: Vec<String>,
}

/// Why a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Too long.
    Time {
        /// How long it ran.
        ran: Duration,
        /// Processor time allowed.
        limit: Duration,
        /// Key of the limit.
        key: &'static str,
    },
    /// Too much memory.
    Memory(LimitReached),
    /// Too much of something else, with the key of its limit.
    Limit(&'static str),
    /// The guest trapped: a panic, a division by zero, an access out of bounds.
    Trap(String),
    /// A function of the host refused, or the guest broke the rules of the component model.
    Host(String),
}

/// What Wasmtime says when a guest passes too much; it has no type for this.
const NO_FUEL: &str = "fuel allocated for hostcalls";

/// Frames of a backtrace that are worth a line in a log.
const FRAMES: usize = 8;

impl CallError {
    /// What Wasmtime says.
    pub(super) fn new(function: &'static str, error: &wasmtime::Error) -> Self {
        let reason = if let Some(&TooLong { ran, limit, key }) = error.downcast_ref() {
            Reason::Time { ran, limit, key }
        } else if let Some(&limit) = error.downcast_ref::<LimitReached>() {
            Reason::Memory(limit)
        } else if let Some(trap) = error.downcast_ref::<Trap>() {
            Reason::Trap(trap.to_string().trim_start_matches("wasm trap: ").to_owned())
        } else if let Some(ResourceTableError::Full) = error.downcast_ref() {
            Reason::Limit("handles")
        } else if error.root_cause().to_string().contains(NO_FUEL) {
            Reason::Limit("host_call")
        } else {
            Reason::Host(
                escape::control(escape::prefix(&error.root_cause().to_string(), 1024)).into_owned(),
            )
        };
        let frames =
            error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
        let names =
            frames.iter().filter_map(|frame| frame.func_name()).filter(|name| !is_noise(name));
        let backtrace =
            names.take(FRAMES).map(|name| escape::control(&demangled(name)).into_owned()).collect();
        Self { function, reason, backtrace }
    }
}

/// Functions that every panic of a Rust guest passes through.
fn is_noise(name: &str) -> bool {
    ["rust_panic", "panicking", "rust_begin_unwind", "__rust_end_short_backtrace"]
        .iter()
        .any(|noise| name.contains(noise))
}

/// The name without the hash that rustc puts behind it.
fn demangled(name: &str) -> String {
    let name = rustc_demangle::demangle(name);
    escape::prefix(&format!("{name:#}"), 128).to_owned()
}

impl CallError {
    /// Key of the limit that was reached, if it was one.
    #[must_use]
    pub const fn limit(&self) -> Option<&'static str> {
        match &self.reason {
            Reason::Time { key, .. } | Reason::Limit(key) => Some(key),
            Reason::Memory(limit) => Some(limit.key()),
            Reason::Trap(_) | Reason::Host(_) => None,
        }
    }
}

impl Refusal {
    /// Key of the limit that was reached, if it was one.
    #[must_use]
    pub const fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Call(error) => error.limit(),
            Self::Beyond { key, .. } => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.function, self.reason)?;
        if !self.backtrace.is_empty() {
            write!(f, " (in {})", self.backtrace.join(" < "))?;
        }
        Ok(())
    }
}

impl std::error::Error for CallError {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time { ran, limit, key } => TooLong { ran: *ran, limit: *limit, key }.fmt(f),
            Self::Memory(limit) => limit.fmt(f),
            Self::Limit(key) => write!(f, "it reached its limit (`{key}`)"),
            Self::Trap(trap) => write!(f, "the guest trapped: {trap}"),
            Self::Host(reason) => f.write_str(reason),
        }
    }
}
