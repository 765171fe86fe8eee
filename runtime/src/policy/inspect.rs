//! What a policy's file says of itself, without running it where that can be avoided.

use std::path::Path;

use super::{Digest, LoadError, Loaded, Refusal, component, file};
use crate::manifest::Manifest;

/// What a policy's file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The manifest before any setting is known.
    pub manifest: Manifest,
    /// Where the manifest was read.
    pub from: ManifestFrom,
    /// Digest of the file.
    pub digest: Digest,
    /// Size of the file, in bytes.
    pub size: usize,
    /// Interfaces that it imports: the capabilities that it asks for.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
}

/// Where a manifest was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFrom {
    /// The custom section, which anyone can change: nothing was run.
    Section,
    /// `describe`, which ran in an instance without any capability.
    Describe,
}

/// Inspects a file. `load` is called where there is no custom section to read.
pub fn inspect(
    path: &Path,
    load: impl FnOnce(&Path, &[u8]) -> Result<Loaded, LoadError>,
) -> Result<Inspection, LoadError> {
    let bytes = file::read(path).map_err(|reason| LoadError { path: path.to_owned(), reason })?;
    inspect_bytes(path, &bytes, load)
}

/// Inspects what was read from a file.
pub fn inspect_bytes(
    path: &Path,
    bytes: &[u8],
    load: impl FnOnce(&Path, &[u8]) -> Result<Loaded, LoadError>,
) -> Result<Inspection, LoadError> {
    let refuse = |reason: Refusal| LoadError { path: path.to_owned(), reason };
    file::check_magic(bytes).map_err(refuse)?;
    if let Some(text) = file::sections(bytes).map_err(refuse)?.manifest {
        let manifest =
            text.parse().map_err(|error: crate::manifest::ManifestError| refuse(error.into()))?;
        let component = component::encode(bytes).map_err(refuse)?;
        let (imports, exports) = file::interfaces(&component).map_err(refuse)?;
        let (digest, size) = (Digest::of(bytes), bytes.len());
        return Ok(Inspection {
            manifest,
            from: ManifestFrom::Section,
            digest,
            size,
            imports,
            exports,
        });
    }
    let Loaded { manifest, digest, size, imports, exports, .. } = load(path, bytes)?;
    Ok(Inspection { manifest, from: ManifestFrom::Describe, digest, size, imports, exports })
}
