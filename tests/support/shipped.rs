//! Where the shipped policies are.

use std::path::{Path, PathBuf};

/// The path of a shipped policy, built by `make build`.
pub fn shipped(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/policies/{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}
