//! Where the paths of a table lead: found once, as what Landlock keeps to is the files that are there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Access, Accesses, PathTable};
use crate::{escape, guard::Verdict};

/// Where paths begin that do not begin with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Home {
    /// The command's working directory.
    pub directory: PathBuf,
    /// Home directory of the user that the command runs as.
    pub home: PathBuf,
}

/// Why the rules of a table cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// What is allowed is not there.
    #[error(
        "`{rule}`: {}: {source}; only what is there can be allowed (`-` in front of the path: where it is there)",
        shown(path)
    )]
    Missing {
        /// The rule.
        rule: String,
        /// Where it leads.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It is not known where it leads.
    #[error("`{rule}`: it cannot be found out where {} leads: {source}", shown(path))]
    Unknown {
        /// The rule.
        rule: String,
        /// The path.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A directory that cannot be listed.
    #[error(
        "{} cannot be listed, which is needed as something below it is denied: {source}",
        shown(path)
    )]
    Unlisted {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Too many names.
    #[error(
        "more than {most} names are beside what is denied below {}: deny or allow the directory as a whole",
        shown(path)
    )]
    TooMany {
        /// The directory in which they became too many.
        path: PathBuf,
        /// The most.
        most: usize,
    },
}

fn shown(path: &Path) -> String {
    escape::control(&path.to_string_lossy()).into_owned()
}

/// A table whose paths are those of files, without symbolic links. A rule whose path may be missing, and
/// is, is about the place where it would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub(super) default: Verdict,
    /// As many as the table has, in their order.
    pub(super) rules: Vec<(Verdict, Accesses, PathBuf)>,
}

impl Resolved {
    /// Finds where the paths of a table lead now.
    pub fn new(table: &PathTable, from: &Home) -> Result<Self, PathsError> {
        let rules = table.rules.iter().map(|rule| {
            let path = whole(&rule.path, from);
            let text = || rule.to_string();
            let found = match fs::canonicalize(&path) {
                Ok(found) => found,
                Err(source) if source.kind() == io::ErrorKind::NotFound => {
                    if rule.verdict == Verdict::Allow && !rule.may_be_missing {
                        return Err(PathsError::Missing { rule: text(), path, source });
                    }
                    place(&path).map_err(|source| PathsError::Unknown {
                        rule: text(),
                        path,
                        source,
                    })?
                }
                Err(source) => return Err(PathsError::Unknown { rule: text(), path, source }),
            };
            Ok((rule.verdict, rule.accesses, found))
        });
        Ok(Self { default: table.default, rules: rules.collect::<Result<_, _>>()? })
    }

    /// What becomes of an access to a path without symbolic links, and the index of the rule that says
    /// so: the longest one, then one that denies, then the first; `None`: the default.
    #[must_use]
    pub fn decide(&self, access: Access, path: &Path) -> (Verdict, Option<usize>) {
        let matching =
            self.rules.iter().enumerate().filter(|(_, (_, accesses, prefix))| {
                accesses.has(access) && path.starts_with(prefix)
            });
        // The first one of those that are equal.
        let found = matching.min_by_key(|(_, (verdict, _, prefix))| {
            (std::cmp::Reverse(prefix.components().count()), *verdict == Verdict::Allow)
        });
        found.map_or((self.default, None), |(index, (verdict, ..))| (*verdict, Some(index)))
    }

    /// What it denies by a rule of its own, for what access.
    pub fn denied(&self) -> impl Iterator<Item = (Access, &Path)> {
        let denying = self.rules.iter().filter(|(verdict, ..)| *verdict == Verdict::Deny);
        denying
            .flat_map(|(_, accesses, path)| {
                accesses.iter().map(move |access| (access, path.as_path()))
            })
            .filter(|(access, path)| self.decide(*access, path).0 == Verdict::Deny)
    }
}

fn whole(path: &str, from: &Home) -> PathBuf {
    let below = |base: &Path| base.join(path[1..].trim_start_matches('/'));
    match path.as_bytes().first() {
        Some(b'~') => below(&from.home),
        Some(b'.') => below(&from.directory),
        _ => PathBuf::from(path),
    }
}

/// Where a path would be that is not there: below what is there of it.
fn place(path: &Path) -> io::Result<PathBuf> {
    if path.symlink_metadata().is_ok() {
        // Who makes what it leads to later would make something that is not denied.
        return Err(io::Error::other(
            "it is a symbolic link that leads nowhere: remove it, or name what it is to lead to",
        ));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place(parent)?.join(name)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_longest_path_decides_then_deny() {
        let there = tempfile::tempdir().unwrap();
        let root = there.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        symlink(root.join("a/b"), root.join("link")).unwrap();
        let table: PathTable =
            "default deny\nallow read .\ndeny read ./link\nallow read ./link\nallow read ./a/b/c\nallow write ~/none"
                .replace("~/none", "-~/none")
                .parse()
                .unwrap();
        let from = Home { directory: root.clone(), home: root.join("a") };
        let resolved = Resolved::new(&table, &from).unwrap();
        for (access, path, expected) in [
            (Access::Read, "x", (Verdict::Allow, Some(0))),
            (Access::Read, "a/b/x", (Verdict::Deny, Some(1))),
            (Access::Read, "a/b/c/x", (Verdict::Allow, Some(3))),
            (Access::Read, "a/bc", (Verdict::Allow, Some(0))),
            (Access::Write, "x", (Verdict::Deny, None)),
            (Access::Write, "a/none/x", (Verdict::Allow, Some(4))),
        ] {
            assert_eq!(resolved.decide(access, &root.join(path)), expected, "{path}");
        }
        assert_eq!(
            resolved.denied().collect::<Vec<_>>(),
            [(Access::Read, root.join("a/b").as_path())]
        );
    }

    #[test]
    fn what_is_missing_is_refused_where_it_is_allowed_and_denied_where_it_would_be() {
        let there = tempfile::tempdir().unwrap();
        let root = there.path().canonicalize().unwrap();
        symlink(root.join("nowhere"), root.join("dangling")).unwrap();
        let from = Home { directory: root.clone(), home: root.clone() };
        let resolve =
            |rule: &str| Resolved::new(&format!("default allow\n{rule}").parse().unwrap(), &from);
        let error = resolve("allow read ./x/y").unwrap_err().to_string();
        assert!(error.contains("only what is there can be allowed"), "{error}");
        let resolved = resolve("deny read ./x/y").unwrap();
        assert_eq!(resolved.decide(Access::Read, &root.join("x/y/z")), (Verdict::Deny, Some(0)));
        for rule in ["deny read ./dangling", "deny read ./dangling/x", "allow read -./dangling"] {
            let error = resolve(rule).unwrap_err().to_string();
            assert!(error.contains("a symbolic link that leads nowhere"), "{rule}: {error}");
        }
        fs::write(root.join("file"), "").unwrap();
        assert!(matches!(resolve("deny read ./file/x"), Err(PathsError::Unknown { .. })));
    }
}
