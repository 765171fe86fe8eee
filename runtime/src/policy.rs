//! Policies: from a file to a component, from a component to instances, and how these are called.
//! The only user of `wasmtime`.
//!
//! ```text
//! Compiler::load(path)        -> Loaded       file read once, compiled by a child, described
//! Loaded::configure(settings) -> Configured   an instance with its settings; manifest in force
//! Pool::start(configured)     -> Running      its queue takes batches, workers call it
//! Running::replace(next)                      the next generation, between two batches
//! Running::stop(bound)                        queue drained, last tick
//! ```
//!
//! | module | what happens there |
//! |---|---|
//! | `file` | what a file is, before anything looks inside; its digest |
//! | `compile` | the compiler child and the cache |
//! | `component` | a core module becomes a component and describes itself |
//! | `host` | what guests may call |
//! | `limits`, `limiter`, `deadline`, `ticker` | what they may use |
//! | `instance` | calls |
//! | `load` | all of this in order |
//! | `pool`, `slot` | worker threads, and what they do with one policy |
//! | `life`, `health`, `share` | its states; what becomes of one that fails; its share of a core |
//! | `succession` | one generation takes the place of another |

mod bindings;
pub mod compile;
mod component;
mod counts;
mod deadline;
mod error;
mod file;
mod health;
mod host;
mod inspect;
mod instance;
mod life;
mod limiter;
mod limits;
mod load;
mod pool;
mod share;
mod slot;
mod succession;
mod ticker;

pub use compile::{CompileLimits, Workshop};
pub use counts::Numbers;
pub use error::{CallError, LoadError, Reason, Refusal};
pub use file::{Digest, MAX_FILE};
pub use host::{Outcome, wasi::interface as wasi};
pub use inspect::{Inspection, ManifestFrom, inspect, inspect_bytes};
pub use life::{Generation, Life};
pub use limits::Limits;
pub use load::{Compiler, Configured, Loaded, grants};
pub use pool::{Pool, Running};
pub use succession::Next;
