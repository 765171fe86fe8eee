//! What is kept of a policy's file: its compiled code and its manifest, by the file's digest.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::Prepared;
use crate::{
    policy::{file::Digest, ticker::Clocked},
    sys,
    trust::{Trust, TrustError},
};

/// Most bytes of a note. A manifest has one at most, and JSON may make six of each.
const MAX_NOTE: u64 = 8 << 20;

/// Most bytes that are kept of all files together: dozens of Python's, thousands of Rust's. What was
/// written longest ago goes first, and is made anew if it is needed again.
const KEPT: u64 = 2 << 30;

/// Directory of what was compiled, in the cache.
pub const COMPILED: &str = "compiled";

/// The files that are kept of one policy's file. The note is written last: it says that all is there.
pub struct Entry {
    directory: PathBuf,
    code: PathBuf,
    note: PathBuf,
}

/// What is known of the code beside it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// Digest of the code, as it came from the compiler.
    code: Digest,
    manifest: String,
}

impl Entry {
    /// The place of a file with this digest. Nothing need be there.
    pub fn new(cache: &Path, clocked: &Clocked, digest: Digest) -> Self {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        // Code of another Wasmtime is of no use: then the child compiles again.
        let mut hasher = DefaultHasher::new();
        clocked.engine().precompile_compatibility_hash().hash(&mut hasher);
        let directory = cache.join(COMPILED);
        let path =
            |suffix| directory.join(format!("{}-{:016x}.{suffix}", digest.hex(), hasher.finish()));
        Self { code: path("code"), note: path("json"), directory }
    }

    /// What was made earlier, if all of it is there and nobody else can have changed it. What is
    /// not as it was made is removed.
    pub fn read(&self, clocked: &Clocked) -> Option<Prepared> {
        match self.try_read(clocked) {
            Ok(prepared) => Some(prepared),
            Err(error) => {
                if !error.is_missing() {
                    tracing::warn!("a compiled policy is made anew: {error}");
                }
                // What could not be read for a moment may be good.
                if !error.is_the_systems() {
                    for path in [&self.note, &self.code] {
                        let _ = fs::remove_file(path);
                    }
                }
                None
            }
        }
    }

    fn try_read(&self, clocked: &Clocked) -> Result<Prepared, TrustError> {
        let note = Trust::code().read(&self.note, MAX_NOTE)?;
        let Note { code, manifest } = serde_json::from_slice(&note)
            .map_err(|error| TrustError::io(&self.note, "use", io::Error::other(error)))?;
        let component = sys::code::component(clocked.engine(), &self.code, &code)?;
        Ok(Prepared { component, manifest })
    }

    /// Takes over what a compiler made. Makes room for the next. A child is not trusted: its code is
    /// copied, as it may still have the file open that it wrote.
    pub fn keep(&self, code: impl Read, manifest: String) -> io::Result<()> {
        let new = || NamedTempFile::new_in(&self.directory);
        // Put in place when all is there: nobody sees half of it, and what others have mapped stays.
        let mut file = new()?;
        let digest = Digest::of_copy(code, &mut file)?;
        // What is mapped must be what was checked also when its pages were given up and are read again.
        file.as_file().sync_all()?;
        file.persist(&self.code)?;
        let mut file = new()?;
        file.write_all(&serde_json::to_vec(&Note { code: digest, manifest })?)?;
        file.as_file().sync_all()?;
        file.persist(&self.note)?;
        prune(&self.directory, KEPT)
    }
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
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;
    use crate::policy::compile::{Workshop, directories, prepare};

    #[test]
    fn what_is_corrupt_missing_or_not_ours_alone_is_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        directories(cache).unwrap();
        let clocked = Clocked::new().unwrap();
        let bytes =
            fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies/exec-audit.wasm"))
                .expect("built by `make build`");
        let digest = Digest::of(&bytes);
        let entry = Entry::new(cache, &clocked, digest);
        assert!(entry.read(&clocked).is_none());
        // What must not be compiled again is refused because it is no policy any more.
        let make = || prepare(&Workshop::Here, &clocked, cache, &bytes, digest).unwrap().manifest;
        let keep = || prepare(&Workshop::Here, &clocked, cache, b"", digest).unwrap().manifest;
        let manifest = make();
        assert_eq!(keep(), manifest);
        let as_made = fs::read(&entry.code).unwrap();

        let mut changed = as_made.clone();
        *changed.last_mut().unwrap() ^= 1;
        for changed in [&changed[..], b"other code", b""] {
            fs::write(&entry.code, changed).unwrap();
            assert!(entry.read(&clocked).is_none(), "changed code");
            assert!(!entry.code.exists() && !entry.note.exists());
            assert_eq!(make(), manifest);
            assert_eq!(fs::read(&entry.code).unwrap(), as_made);
        }
        for path in [&entry.code, &entry.note] {
            fs::remove_file(path).unwrap();
            assert!(entry.read(&clocked).is_none(), "a file that is gone");
            assert_eq!(make(), manifest);

            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            assert!(entry.read(&clocked).is_none(), "a file that others could change");
            assert_eq!(make(), manifest);
        }
        assert_eq!(keep(), manifest);

        let directory = cache.join(COMPILED);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let error = directories(cache).unwrap_err().to_string();
        assert!(error.contains("can be written by others"), "{error}");
    }

    #[test]
    fn what_is_no_code_is_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        directories(cache.path()).unwrap();
        let clocked = Clocked::new().unwrap();
        let entry = Entry::new(cache.path(), &clocked, Digest::of(b""));
        for code in [&b""[..], b"code", b"\x7fELF\x02\x01\x01\xc8"] {
            entry.keep(code, String::new()).unwrap();
            assert!(entry.read(&clocked).is_none());
            assert!(!entry.code.exists() && !entry.note.exists());
        }
    }

    #[test]
    fn code_that_is_mapped_stays_when_its_file_is_replaced() {
        let cache = tempfile::tempdir().unwrap();
        directories(cache.path()).unwrap();
        let clocked = Clocked::new().unwrap();
        let entry = Entry::new(cache.path(), &clocked, Digest::of(b""));
        let made = |wat: &str| {
            let component =
                wasmtime::component::Component::new(clocked.engine(), wat::parse_str(wat).unwrap())
                    .unwrap();
            component.serialize().unwrap()
        };
        let (first, second) = (made("(component)"), made("(component (component))"));
        entry.keep(&first[..], String::new()).unwrap();
        let prepared = entry.read(&clocked).unwrap();
        entry.keep(&second[..], String::new()).unwrap();
        assert_eq!(fs::read(&entry.code).unwrap(), second);
        fs::remove_file(&entry.code).unwrap();
        assert!(prepared.component.serialize().unwrap() == first, "other code than was mapped");
    }

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
