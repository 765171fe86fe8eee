//! The compiler child itself: `tipstaff compile`.

use std::io::{self, Read as _, Write as _};

use super::{Answer, CompileLimits, Said, confine::confine};
use crate::policy::{
    component,
    error::Refusal,
    file::{self, MAX_FILE},
    ticker::Clocked,
};

/// Compiles what it reads on standard input. Writes one line of JSON, and then the compiled code. The
/// error is one of the process, not of the file.
pub fn run(limits: &CompileLimits) -> io::Result<()> {
    let unconfined = confine(limits)?;
    let mut bytes = Vec::new();
    io::stdin().take(MAX_FILE).read_to_end(&mut bytes)?;
    let (said, code) = match make(&bytes) {
        Ok(Made { manifest, code }) => (Said::Manifest(manifest), code),
        Err(refusal) => (Said::Refused(refusal.to_string()), Vec::new()),
    };
    let mut line = serde_json::to_string(&Answer { said, unconfined })?;
    line.push('\n');
    let mut out = io::stdout();
    out.write_all(line.as_bytes())?;
    out.write_all(&code)?;
    out.flush()
}

/// What is made of a file.
pub(super) struct Made {
    /// What the policy says of itself.
    pub manifest: String,
    /// Compiled code, as Wasmtime writes it.
    pub code: Vec<u8>,
}

/// Does the work: encodes, compiles, describes.
pub(super) fn make(bytes: &[u8]) -> Result<Made, Refusal> {
    let engine = |error: wasmtime::Error| Refusal::Engine(format!("{error:#}"));
    file::check_magic(bytes)?;
    let clocked = Clocked::new().map_err(engine)?;
    let compiled = component::compile(&clocked, &component::encode(bytes)?)?;
    let manifest = component::describe(&clocked, &compiled)?;
    let code = compiled.serialize().map_err(engine)?;
    Ok(Made { manifest, code })
}
