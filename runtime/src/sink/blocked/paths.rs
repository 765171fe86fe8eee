//! Attempts on files that rules denied. Landlock tells nobody what it denies: that is inferred from what events
//! show, the path and the result, and from the tables.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

use super::Said;
use crate::{
    guard::{
        Desk, GuardMode,
        paths::{Access, DeniedPath},
    },
    kind::Kinds,
    manifest::Subscription,
};

/// Which events are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Those that failed as if they had been denied.
    Denied,
    /// All, as nothing is denied and much would be.
    All,
}

/// The kinds, and whether they tell of what failed.
const KINDS: [(&str, bool); 4] =
    [("open", true), ("unlink", true), ("rename", true), ("exec", false)];
/// What is asked for of them.
const FIELDS: [&str; 7] = ["pid", "comm", "path", "new_path", "flags", "result", "proc.args"];
/// As which numbers fail: `EACCES`, and `EXDEV` for what would get more rights elsewhere.
const DENIED: &str = "result = -13 or result = -18";

/// Asks for the events that tell of attempts on files.
pub fn subscriptions(files: Files, kinds: &Kinds) -> Vec<Subscription> {
    let asked = KINDS.iter().filter(|(_, fails)| files == Files::All || *fails);
    asked
        .filter_map(|(name, _)| kinds.named(name))
        .map(|kind| {
            let has = |name: &&str| kind.field(name).is_some();
            let asked = crate::decode::subscription(kind, FIELDS.into_iter().filter(has));
            let condition = (files == Files::Denied).then(|| DENIED.to_owned());
            Subscription { condition, optional: true, ..asked }
        })
        .collect()
}

/// An attempt that a table denies.
pub struct Attempt {
    /// What the table says of it.
    pub denied: DeniedPath,
    /// The path, without symbolic links as far as they are there.
    pub path: PathBuf,
}

/// Whether an event is about files.
pub fn is_about_files(kind: &str) -> bool {
    KINDS.iter().any(|(name, _)| *name == kind)
}

/// What the tables say of an event: nothing where they do not deny it, or it went otherwise than their mode
/// has it.
pub fn attempt(said: &Said<'_>, kind: &str, desk: &Desk) -> Option<Attempt> {
    let result = said.signed("result").unwrap_or(0);
    let is = |error: Errno| result == -i64::from(error.raw_os_error());
    let mode = if is(Errno::ACCESS) || is(Errno::XDEV) {
        GuardMode::Enforce
    } else if result >= 0 {
        GuardMode::Audit
    } else {
        return None;
    };
    let path = |name| said.bytes(name).map(|bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)));
    let given = path("path").filter(|path| path.is_absolute())?;
    let mut tried: Vec<(Access, PathBuf)> = Vec::new();
    match kind {
        "open" => {
            let path = followed(given);
            let accesses = opened(u32::try_from(said.number("flags")).unwrap_or(0), &path);
            tried.extend(accesses.into_iter().map(|access| (access, path.clone())));
        }
        "exec" => {
            let path = followed(given);
            tried.extend([Access::Execute, Access::Read].map(|access| (access, path.clone())));
        }
        _ => {
            let old = named(given);
            let new = path("new_path").filter(|path| path.is_absolute()).map(named);
            tried.push((Access::Write, old.clone()));
            tried.extend(new.map(|path| (Access::Write, path)));
            // Where it is moved to it would have rights that it has not here.
            if is(Errno::XDEV) {
                tried.extend([Access::Read, Access::Execute].map(|access| (access, old.clone())));
            }
        }
    }
    tried.into_iter().find_map(|(access, path)| {
        let tables = desk.denied_paths(access, &path);
        let denied = tables.into_iter().find(|denied| denied.mode == mode)?;
        Some(Attempt { denied, path })
    })
}

/// What an open asks for.
fn opened(flags: u32, path: &Path) -> Vec<Access> {
    let has = |flag: OFlags| flags & flag.bits() != 0;
    if has(OFlags::PATH) {
        return Vec::new();
    }
    let mode = flags & (OFlags::WRONLY | OFlags::RDWR).bits();
    let writes = mode != 0 || has(OFlags::TRUNC) || has(OFlags::CREATE) && !path.exists();
    let reads = mode != OFlags::WRONLY.bits();
    let reading = if path.is_dir() { Access::List } else { Access::Read };
    [(writes, Access::Write), (reads, reading)]
        .into_iter()
        .filter_map(|(does, access)| does.then_some(access))
        .collect()
}

/// Where a path leads, or what it names where nothing is there.
fn followed(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| named(path))
}

/// The name itself, in a directory without symbolic links.
fn named(path: &Path) -> PathBuf {
    match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_an_open_asks_for() {
        let there = tempfile::tempdir().unwrap();
        let (file, new) = (there.path().join("file"), there.path().join("new"));
        fs::write(&file, "").unwrap();
        let of = |flags: OFlags, path: &Path| opened(flags.bits(), path);
        assert_eq!(of(OFlags::RDONLY, &file), [Access::Read]);
        assert_eq!(of(OFlags::RDONLY, there.path()), [Access::List]);
        assert_eq!(of(OFlags::WRONLY, &file), [Access::Write]);
        assert_eq!(of(OFlags::RDWR, &file), [Access::Write, Access::Read]);
        assert_eq!(of(OFlags::RDONLY | OFlags::TRUNC, &file), [Access::Write, Access::Read]);
        assert_eq!(of(OFlags::RDONLY | OFlags::CREATE, &file), [Access::Read]);
        assert_eq!(of(OFlags::WRONLY | OFlags::CREATE, &new), [Access::Write]);
        assert_eq!(of(OFlags::PATH, &file), []);
    }

    #[test]
    fn links_are_followed_where_the_call_does() {
        let there = tempfile::tempdir().unwrap();
        let root = there.path().canonicalize().unwrap();
        fs::create_dir(root.join("a")).unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        assert_eq!(followed(&root.join("link/../link")), root.join("a"));
        assert_eq!(followed(&root.join("link/new")), root.join("a/new"));
        assert_eq!(named(&root.join("link")), root.join("link"));
        assert_eq!(named(&root.join("link/x")), root.join("a/x"));
        assert_eq!(named(&root.join("none/x/y")), root.join("none/x/y"));
    }
}
