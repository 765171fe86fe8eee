//! What is kept of a policy's file: its component and its manifest, by the file's digest.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::NamedTempFile;

use super::Prepared;
use crate::policy::{file::Digest, ticker::Clocked};

/// Most bytes that are kept of all files together: dozens of Python's, thousands of Rust's. What was
/// written longest ago goes first, and is made anew if it is needed again.
const KEPT: u64 = 2 << 30;

/// The files that are kept of one policy's file. The manifest is written last: it says that all is there.
pub struct Entry {
    directory: PathBuf,
    component: PathBuf,
    manifest: PathBuf,
}

impl Entry {
    /// The place of a file with this digest. Nothing need be there.
    pub fn new(cache: &Path, clocked: &Clocked, digest: Digest) -> Self {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        // Code of another Wasmtime is of no use: then the child compiles again.
        let mut hasher = DefaultHasher::new();
        clocked.engine().precompile_compatibility_hash().hash(&mut hasher);
        let stem = format!("{}-{:016x}", digest.hex(), hasher.finish());
        let directory = cache.join("components");
        Self {
            component: directory.join(format!("{stem}.wasm")),
            manifest: directory.join(format!("{stem}.toml")),
            directory,
        }
    }

    /// What was made earlier.
    pub fn read(&self) -> Option<Prepared> {
        let manifest = fs::read_to_string(&self.manifest).ok()?;
        let component = fs::read(&self.component).ok()?;
        Some(Prepared { component, manifest })
    }

    /// Puts the component there.
    pub fn put(&self, component: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        replace(&self.component, component)
    }

    /// Puts the manifest there: all is done. Makes room for the next.
    pub fn finish(&self, manifest: &str) -> io::Result<()> {
        replace(&self.manifest, manifest.as_bytes())?;
        prune(&self.directory, KEPT)
    }
}

/// Writes a file so that nobody sees half of it, also if two policies' files have the same contents.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    partial.write_all(bytes)?;
    partial.persist(path)?;
    Ok(())
}

/// Removes the oldest files until `kept` bytes are left.
fn prune(directory: &Path, kept: u64) -> io::Result<()> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Another agent may prune as well.
        let Ok(metadata) = entry.metadata() else { continue };
        files.push((metadata.modified()?, metadata.len(), entry.path()));
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut total = 0;
    for (_, length, path) in files {
        total += length;
        if total > kept {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_oldest_files_go_when_there_is_no_room_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for age in 0..5 {
            let path = directory.path().join(format!("{age}"));
            fs::write(&path, [0; 10]).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        prune(directory.path(), 30).unwrap();
        let left = |age: u32| directory.path().join(format!("{age}")).exists();
        assert_eq!([0, 1, 2, 3, 4].map(left), [true, true, true, false, false]);
    }
}
