//! What is kept of a policy's file: its component and its manifest, by the file's digest.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::NamedTempFile;

use super::{COMPONENT, Prepared};
use crate::{
    policy::{file::Digest, ticker::Clocked},
    trust::{Trust, TrustError},
};

/// Most bytes of a manifest, or of what is noted of the code.
const MAX_TEXT: u64 = 1 << 20;
/// Most bytes of a component, or of compiled code.
const MAX_CODE: u64 = 1 << 30;

/// Most bytes that are kept of all files together: dozens of Python's, thousands of Rust's. What was
/// written longest ago goes first, and is made anew if it is needed again.
const KEPT: u64 = 2 << 30;

/// Directory of components and manifests, in the cache.
pub const COMPONENTS: &str = "components";
/// Directory of compiled code, in the cache, as Wasmtime has it.
pub const CODE: &str = "code";

/// The files that are kept of one policy's file. The manifest is written last: it says that all is there.
pub struct Entry {
    cache: PathBuf,
    component: PathBuf,
    manifest: PathBuf,
    /// Where the compiled code is, and its digest.
    code: PathBuf,
}

impl Entry {
    /// The place of a file with this digest. Nothing need be there.
    pub fn new(cache: &Path, clocked: &Clocked, digest: Digest) -> Self {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        // Code of another Wasmtime is of no use: then the child compiles again.
        let mut hasher = DefaultHasher::new();
        clocked.engine().precompile_compatibility_hash().hash(&mut hasher);
        let stem = format!("{}-{:016x}", digest.hex(), hasher.finish());
        let path = |suffix| cache.join(COMPONENTS).join(format!("{stem}.{suffix}"));
        Self {
            cache: cache.to_owned(),
            component: path("wasm"),
            manifest: path("toml"),
            code: path("code"),
        }
    }

    /// What was made earlier, if all of it is there and nobody else can have changed it. What is
    /// not as it was made is removed.
    pub fn read(&self) -> Option<Prepared> {
        match self.try_read() {
            Ok(prepared) => Some(prepared),
            Err(error) => {
                if !error.is_missing() {
                    tracing::warn!("a compiled policy is made anew: {error}");
                }
                for path in [&self.manifest, &self.component, &self.code] {
                    let _ = fs::remove_file(path);
                }
                None
            }
        }
    }

    fn try_read(&self) -> Result<Prepared, TrustError> {
        let trust = Trust::code();
        let text = |path: &Path| {
            let bytes = trust.read(path, MAX_TEXT)?;
            String::from_utf8(bytes)
                .map_err(|_| TrustError::io(path, "use", io::Error::other("it is not UTF-8")))
        };
        let manifest = text(&self.manifest)?;
        let component = trust.read(&self.component, MAX_CODE)?;
        let code = text(&self.code)?;
        let (digest, path) = code.split_once(' ').unwrap_or_default();
        let path = self.cache.join(CODE).join(path);
        if Digest::of(&trust.read(&path, MAX_CODE)?).to_string() != digest {
            // Else the next one to be compiled would not be put there.
            let _ = fs::remove_file(&path);
            let changed = io::Error::other("it is not what the compiler made");
            return Err(TrustError::io(&path, "use", changed));
        }
        Ok(Prepared { component, manifest })
    }

    /// Takes over what a compiler left in its folder, with the manifest that it told. Makes room for
    /// the next.
    pub fn take(&self, folder: &Path, manifest: &str) -> io::Result<()> {
        let made = folder.join(CODE);
        let code = only_file(&made)?;
        let below = code.strip_prefix(&made).map_err(io::Error::other)?;
        let to = self.cache.join(CODE).join(below);
        // The child is not trusted to have made the code of its own policy: never over another's.
        if !to.exists() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(to.parent().unwrap_or(Path::new("/")))?;
            fs::set_permissions(&code, fs::Permissions::from_mode(0o600))?;
            fs::rename(&code, &to)?;
        }
        let digest = Digest::of(&fs::read(&to)?);
        replace(&self.code, format!("{digest} {}", below.display()).as_bytes())?;
        replace(&self.component, &fs::read(folder.join(COMPONENT))?)?;
        replace(&self.manifest, manifest.as_bytes())?;
        prune(&self.cache.join(COMPONENTS), KEPT)
    }
}

/// The one file of compiled code below a directory. Wasmtime keeps notes beside it, whose names have
/// a dot.
fn only_file(directory: &Path) -> io::Result<PathBuf> {
    let (mut directories, mut files) = (vec![directory.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if entry.file_type()?.is_file()
                && !entry.file_name().as_encoded_bytes().contains(&b'.')
            {
                files.push(entry.path());
            }
        }
    }
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (_, others) => Err(io::Error::other(format!(
            "the compiler left {} files of code, expected one",
            others + usize::from(others > 0)
        ))),
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
    use std::time::Duration;

    use super::*;
    use crate::policy::compile::{Workshop, directories, prepare};

    #[test]
    fn what_is_corrupt_missing_or_not_ours_alone_is_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        directories(cache).unwrap();
        let clocked = Clocked::new(cache).unwrap();
        let bytes =
            fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies/exec-audit.wasm"))
                .expect("built by `make build`");
        let digest = Digest::of(&bytes);
        let entry = Entry::new(cache, &clocked, digest);
        assert!(entry.read().is_none());
        // What must not be compiled again is refused because it is no policy any more.
        let make = || prepare(&Workshop::Here, &clocked, cache, &bytes, digest).unwrap().manifest;
        let keep = || prepare(&Workshop::Here, &clocked, cache, b"", digest).unwrap().manifest;
        let manifest = make();
        assert_eq!(keep(), manifest);
        let code = only_code(cache);
        let as_made = fs::read(&code).unwrap();

        fs::write(&code, b"other code").unwrap();
        assert!(entry.read().is_none(), "changed code");
        assert!(!code.exists());
        assert_eq!(make(), manifest);
        assert_eq!(fs::read(&code).unwrap(), as_made);

        fs::remove_file(&code).unwrap();
        assert!(entry.read().is_none(), "code that is gone");
        assert_eq!(make(), manifest);

        fs::set_permissions(&entry.component, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(entry.read().is_none(), "a component that others could change");
        assert_eq!(make(), manifest);
        assert_eq!(keep(), manifest);

        for below in [COMPONENTS, CODE] {
            let directory = cache.join(below);
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
            let error = directories(cache).unwrap_err().to_string();
            assert!(error.contains("can be written by others"), "{error}");
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    fn only_code(cache: &Path) -> PathBuf {
        only_file(&cache.join(CODE)).unwrap()
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
