//! What is kept of a policy's file: its component and its manifest, by the file's digest.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
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

/// Most files and directories in what a compiler leaves. Wasmtime makes a few.
const MOST_LEFT: usize = 64;

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
    /// the next. The child is not trusted: no link of its is followed, and its files are copied, as
    /// it may still have them open.
    pub fn take(&self, folder: &Path, manifest: &str) -> io::Result<()> {
        let folder = open_in(CWD, folder.as_os_str(), OFlags::DIRECTORY)?;
        let component = read_in(&folder, OsStr::new(COMPONENT))?;
        let (below, mut code) = only_file(&folder)?;
        let to = self.cache.join(CODE).join(&below);
        // It may not have made the code of its own policy: never over another's.
        if to.exists() {
            code = Trust::code().read(&to, MAX_CODE).map_err(io::Error::other)?;
        } else {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(to.parent().unwrap_or(Path::new("/")))?;
            replace(&to, &code)?;
        }
        let digest = Digest::of(&code);
        replace(&self.code, format!("{digest} {}", below.display()).as_bytes())?;
        replace(&self.component, &component)?;
        replace(&self.manifest, manifest.as_bytes())?;
        prune(&self.cache.join(COMPONENTS), KEPT)
    }
}

/// Opens what is in a directory, but not what a link there leads to, and without waiting.
fn open_in(directory: impl AsFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map_err(|error| {
        io::Error::other(format!(
            "what the compiler left, {}, cannot be used: {error}",
            name.display()
        ))
    })
}

/// Reads a regular file in a directory.
fn read_in(directory: impl AsFd, name: &OsStr) -> io::Result<Vec<u8>> {
    let refused = |why: &str| {
        Err(io::Error::other(format!("what the compiler left, {}, {why}", name.display())))
    };
    let file = fs::File::from(open_in(directory, name, OFlags::empty())?);
    if !file.metadata()?.is_file() {
        return refused("is no regular file");
    }
    let mut bytes = Vec::new();
    if u64::try_from(file.take(MAX_CODE + 1).read_to_end(&mut bytes)?).is_ok_and(|n| n > MAX_CODE) {
        return refused("is too large");
    }
    Ok(bytes)
}

/// The one file of compiled code in the compiler's folder, and where it is below [`CODE`]. Wasmtime
/// keeps notes beside it, whose names have a dot.
fn only_file(folder: &OwnedFd) -> io::Result<(PathBuf, Vec<u8>)> {
    let top = open_in(folder, OsStr::new(CODE), OFlags::DIRECTORY)?;
    let (mut directories, mut files, mut seen) = (vec![(PathBuf::new(), top)], Vec::new(), 0);
    while let Some((below, directory)) = directories.pop() {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            seen += 1;
            if seen > MOST_LEFT {
                return Err(io::Error::other("the compiler left too many files"));
            }
            let kind = FileType::from_raw_mode(
                statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            );
            if kind == FileType::Directory {
                let inner = open_in(&directory, name, OFlags::DIRECTORY)?;
                directories.push((below.join(name), inner));
            } else if kind == FileType::RegularFile && !name.as_bytes().contains(&b'.') {
                files.push((below.join(name), directory.try_clone()?));
            }
        }
    }
    let [(below, directory)] = &files[..] else {
        let found = files.len();
        return Err(io::Error::other(format!(
            "the compiler left {found} files of code, expected one"
        )));
    };
    let bytes = read_in(directory, below.file_name().unwrap_or_default())?;
    Ok((below.clone(), bytes))
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
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        time::Duration,
    };

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
        let (below, _) = only_file(&fs::File::open(cache).unwrap().into()).unwrap();
        cache.join(CODE).join(below)
    }

    #[test]
    fn what_a_compiler_leaves_that_is_no_plain_file_is_refused_at_once() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        directories(cache).unwrap();
        let entry = Entry::new(cache, &Clocked::new(cache).unwrap(), Digest::of(b""));
        let elsewhere = cache.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("file"), "secret").unwrap();
        // What `leave` makes is taken, or refused with these words.
        let take = |leave: &dyn Fn(&Path, &Path)| {
            let folder = tempfile::tempdir_in(cache).unwrap();
            let (component, code) = (folder.path().join(COMPONENT), folder.path().join(CODE));
            leave(&component, &code);
            entry.take(folder.path(), "").map_err(|error| error.to_string())
        };
        let file = |path: &Path| fs::write(path, "made").unwrap();
        let link = |to: &Path, path: &Path| symlink(to, path).unwrap();
        let fifo = |path: &Path| {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
        };
        let folder_with = |path: &Path, make: &dyn Fn(&Path)| {
            fs::create_dir(path).unwrap();
            make(&path.join("file"));
        };
        let refused = |found: Result<(), String>, why: &str| {
            let error = found.unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!cache.join(CODE).join("file").exists() && !entry.component.exists());
        };
        refused(
            take(&|component, code| {
                link(Path::new("/dev/zero"), component);
                folder_with(code, &file);
            }),
            "component.wasm, cannot be used",
        );
        refused(
            take(&|component, code| {
                fifo(component);
                folder_with(code, &file);
            }),
            "component.wasm, is no regular file",
        );
        refused(
            take(&|component, code| {
                file(component);
                link(&elsewhere, code);
            }),
            "code, cannot be used",
        );
        refused(
            take(&|component, code| {
                file(component);
                folder_with(code, &|inside| link(&elsewhere.join("file"), inside));
            }),
            "left 0 files of code",
        );
        refused(
            take(&|component, code| {
                file(component);
                folder_with(code, &fifo);
            }),
            "left 0 files of code",
        );
        refused(
            take(&|component, code| {
                file(component);
                folder_with(code, &|inside| {
                    for number in 0..=MOST_LEFT {
                        file(&inside.with_file_name(number.to_string()));
                    }
                });
            }),
            "too many files",
        );
        take(&|component, code| {
            file(component);
            folder_with(code, &file);
        })
        .unwrap();
        assert_eq!(fs::read(cache.join(CODE).join("file")).unwrap(), b"made");
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
