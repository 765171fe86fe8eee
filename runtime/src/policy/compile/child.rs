//! The compiler child itself: `tipstaff compile --into DIR FILE`.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use super::{Answer, COMPONENT, Said, confine::confine};
use crate::policy::{
    component,
    error::Refusal,
    file::{self, MAX_FILE},
    ticker::Clocked,
};

/// Compiles the file (`-`: standard input) into an empty folder and writes one line of JSON. The
/// error is one of the process or the folder, not of the file.
pub fn run(folder: &Path, path: &Path) -> io::Result<()> {
    // Afterwards nothing can be opened.
    let mut input: Box<dyn io::Read> = match path {
        path if path == Path::new("-") => Box::new(io::stdin()),
        path => Box::new(File::open(path)?),
    };
    let unconfined = confine(folder)?;
    let mut bytes = Vec::new();
    input.by_ref().take(MAX_FILE).read_to_end(&mut bytes)?;
    let said = match make(folder, &bytes) {
        Ok(manifest) => Said::Manifest(manifest),
        Err(refusal) => Said::Refused(refusal.to_string()),
    };
    let mut line = serde_json::to_string(&Answer { said, unconfined })?;
    line.push('\n');
    io::stdout().write_all(line.as_bytes())
}

/// Does the work: encodes, compiles into the folder, describes. What the policy says of itself.
pub(super) fn make(folder: &Path, bytes: &[u8]) -> Result<String, Refusal> {
    file::check_magic(bytes)?;
    let clocked = Clocked::new(folder).map_err(|error| Refusal::Engine(format!("{error:#}")))?;
    let encoded = component::encode(bytes)?;
    let compiled = component::compile(&clocked, &encoded)?;
    let manifest = component::describe(&clocked, &compiled)?;
    fs::write(folder.join(COMPONENT), &encoded)?;
    Ok(manifest)
}
