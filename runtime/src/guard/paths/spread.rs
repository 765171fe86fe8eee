//! What a table allows as hierarchies alone, for a kernel that knows nothing of what is denied: what is
//! allowed, but for something below it, becomes all that is beside the way to that, as it is there now. What is
//! made beside the way later is not allowed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Access, PathsError, Resolved};
use crate::guard::Verdict;

/// Most names that the tables of one capability are spread to.
pub const MOST_SPREAD: usize = 16_384;

/// The hierarchies in which a table allows an access. `["/"]`: everywhere.
pub fn spread(table: &Resolved, access: Access) -> Result<Vec<PathBuf>, PathsError> {
    let mut spread = Spread { table, access, allowed: Vec::new() };
    spread.below(Path::new("/"))?;
    Ok(spread.allowed)
}

struct Spread<'a> {
    table: &'a Resolved,
    access: Access,
    allowed: Vec<PathBuf>,
}

impl Spread<'_> {
    /// Paths of rules below this one.
    fn within<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (Verdict, &'a Path)> {
        self.table.rules.iter().filter_map(move |(verdict, accesses, below)| {
            (accesses.has(self.access) && below != path && below.starts_with(path))
                .then_some((*verdict, below.as_path()))
        })
    }

    fn below(&mut self, path: &Path) -> Result<(), PathsError> {
        let is_allowed = self.table.decide(self.access, path).0 == Verdict::Allow;
        if !is_allowed {
            // Nothing is to be listed: what is allowed below has rules.
            let mut nearest: Vec<PathBuf> =
                self.within(path).map(|(_, below)| below.to_owned()).collect();
            nearest.sort();
            nearest.dedup();
            let mut last: Option<PathBuf> = None;
            for below in nearest {
                if last.as_ref().is_none_or(|last| !below.starts_with(last)) {
                    self.below(&below)?;
                    last = Some(below);
                }
            }
            return Ok(());
        }
        if self.within(path).all(|(verdict, _)| verdict == Verdict::Allow) {
            return self.allow(path.to_owned());
        }
        let unlisted = |source| PathsError::Unlisted { path: path.to_owned(), source };
        let entries = match fs::read_dir(path) {
            // It is not there, or is no directory: then nothing that is denied is below it either.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            entries => entries.map_err(unlisted)?,
        };
        for entry in entries {
            let entry = entry.map_err(unlisted)?;
            // Where a symbolic link leads is decided there.
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => continue,
                // It is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                kind => kind.map_err(unlisted)?,
            };
            self.below(&entry.path())?;
        }
        Ok(())
    }

    fn allow(&mut self, path: PathBuf) -> Result<(), PathsError> {
        if self.allowed.len() >= MOST_SPREAD {
            let path = path.parent().unwrap_or(&path).to_owned();
            return Err(PathsError::TooMany { path, most: MOST_SPREAD });
        }
        self.allowed.push(path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{super::Home, *};

    #[test]
    fn what_is_denied_below_is_left_out_and_its_neighbours_are_named() {
        let there = tempfile::tempdir().unwrap();
        let root = there.path().canonicalize().unwrap();
        for directory in ["a/b/c", "a/b/d", "a/e", "f"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("a/file"), "").unwrap();
        symlink("/", root.join("a/link")).unwrap();
        let from = Home { directory: root.clone(), home: root.clone() };
        let allowed = |rules: &str| {
            let table = format!("default deny\n{rules}").parse().unwrap();
            let mut allowed = spread(&Resolved::new(&table, &from).unwrap(), Access::Read).unwrap();
            allowed.sort();
            let below = |path: &PathBuf| match path.strip_prefix(&root).unwrap().to_str() {
                Some("") => ".".to_owned(),
                path => path.unwrap().to_owned(),
            };
            allowed.iter().map(below).collect::<Vec<_>>().join(" ")
        };
        for (rules, expected) in [
            ("", ""),
            ("allow read .", "."),
            ("allow write .", ""),
            ("allow read ./a\nallow read ./a/b\nallow read ./f", "a f"),
            ("allow read .\ndeny read ./f", "a"),
            ("allow read .\ndeny read ./a/b", "a/e a/file f"),
            ("allow read .\ndeny read ./a/none", "a/b a/e a/file f"),
            ("allow read .\ndeny read ./a/b\nallow read ./a/b/c", "a/b/c a/e a/file f"),
            ("allow read .\ndeny read ./a\nallow read ./a/b\ndeny read ./a/b/c", "a/b/d f"),
            ("allow read .\ndeny read .", ""),
            ("deny read ./a\nallow read ./a/b/c", "a/b/c"),
            ("allow read .\nallow read -./none/x\ndeny read ./none", "a f"),
        ] {
            assert_eq!(allowed(rules), expected, "{rules}");
        }
    }

    #[test]
    fn a_default_that_allows_and_denies_nothing_is_everything() {
        let table = "default allow\ndeny write /etc".parse().unwrap();
        let resolved = Resolved::new(&table, &Home::default()).unwrap();
        assert_eq!(spread(&resolved, Access::Read).unwrap(), [PathBuf::from("/")]);
        let written = spread(&resolved, Access::Write).unwrap();
        assert!(written.contains(&"/usr".into()) && !written.contains(&"/etc".into()));
        assert!(!written.contains(&"/".into()));
    }

    #[test]
    fn more_names_than_the_most_are_refused() {
        let there = tempfile::tempdir().unwrap();
        let root = there.path().canonicalize().unwrap();
        for number in 0..=MOST_SPREAD {
            symlink("/", root.join(number.to_string())).unwrap();
        }
        let from = Home { directory: root.clone(), home: root.clone() };
        let table = "default deny\nallow read .\ndeny read ./secret".parse().unwrap();
        let resolved = Resolved::new(&table, &from).unwrap();
        assert!(spread(&resolved, Access::Read).unwrap().is_empty(), "links are no names");
        for number in 0..=MOST_SPREAD {
            fs::remove_file(root.join(number.to_string())).unwrap();
            fs::write(root.join(number.to_string()), "").unwrap();
        }
        let error = spread(&resolved, Access::Read).unwrap_err();
        assert!(matches!(&error, PathsError::TooMany { path, .. } if *path == root), "{error}");
    }
}
