//! The decisions that are kept on disk: JSON Lines in two files of bounded size, each record on disk
//! before what it is about is done.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::Decision;
use crate::trust::{Trust, TrustError};

/// The file that is written to.
const FILE: &str = "decisions.jsonl";
/// The one before it.
const FORMER: &str = "decisions.1.jsonl";
/// A file that has this many bytes becomes the former one, whose place it takes.
const MOST: u64 = 8 << 20;

/// Where decisions are written.
#[derive(Debug)]
pub struct Decisions {
    directory: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
    /// Whether the last records may not be on disk yet.
    unsynced: bool,
}

impl Decisions {
    /// The decisions in this directory, which is made if it is missing and must be the agent's own.
    pub fn open(directory: &Path) -> Result<Self, TrustError> {
        Self::open_with(directory, MOST)
    }

    fn open_with(directory: &Path, most: u64) -> Result<Self, TrustError> {
        Trust::code().directory(directory)?;
        let path = directory.join(FILE);
        let open = || -> io::Result<(File, u64)> {
            let mut file = open(&path)?;
            let mut bytes = file.metadata()?.len();
            let mut last = [b'\n'];
            if bytes > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            // A crash left half a line: it must not spoil the next one.
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|error| TrustError::io(&path, "open", error))?;
        Ok(Self { directory: directory.to_owned(), file, bytes, most, unsynced: false })
    }

    /// Writes a record. It is on disk when this returns, with those before it.
    pub fn write(&mut self, decision: &Decision) -> io::Result<()> {
        self.append(decision)?;
        self.sync()
    }

    /// Writes a record. It survives this process when this returns, and the machine after [`Self::sync`].
    pub fn append(&mut self, decision: &Decision) -> io::Result<()> {
        let mut line = serde_json::to_vec(decision)?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.most {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(&line) {
            // A full disk takes a part: the next record must not be glued to it.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// Returns when all records are on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let path = self.directory.join(FILE);
        match fs::rename(&path, self.directory.join(FORMER)) {
            // It was renamed before, and then no new one could be made.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = open(&path)?;
        self.bytes = 0;
        File::open(&self.directory)?.sync_all()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(no_link).open(path)
}

/// All decisions of a directory, the oldest first, and how many lines were none: a crash may have left
/// half a line.
pub fn read(directory: &Path) -> Result<(Vec<Decision>, usize), TrustError> {
    let (mut decisions, mut broken) = (Vec::new(), 0);
    for name in [FORMER, FILE] {
        let path = directory.join(name);
        // A record that is longer than the rest of the file still goes in.
        let bytes = match Trust::code().read(&path, 2 * MOST) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error),
        };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(decision) => decisions.push(decision),
                Err(_) => broken += 1,
            }
        }
    }
    Ok((decisions, broken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Outcome;

    fn decision(number: u32) -> Decision {
        Decision {
            id: format!("1-{number}"),
            time_ns: 1_700_000_000_000_000_000,
            policy: "p".into(),
            digest: String::new(),
            generation: 1,
            action: "set-table".into(),
            by: "policy".into(),
            scope: "cgroup:/a".into(),
            cgroup: String::new(),
            mode: "enforce".into(),
            strength: "prevent".into(),
            outcome: Outcome::Done,
            reason: "x".repeat(50),
            what: String::new(),
            conflicts: vec!["another".into()],
            target: None,
            tree: Vec::new(),
            latency_ns: None,
            took_ns: Some(5),
        }
    }

    fn ids(directory: &Path) -> (Vec<String>, usize) {
        let (decisions, broken) = read(directory).unwrap();
        (decisions.into_iter().map(|decision| decision.id).collect(), broken)
    }

    #[test]
    fn what_is_written_is_read_and_the_oldest_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("state/agent");
        assert_eq!(read(&below.join("none")).unwrap(), (vec![], 0));
        let mut log = Decisions::open_with(&below, 2000).unwrap();
        for number in 0..100 {
            log.write(&decision(number)).unwrap();
        }
        assert_eq!(read(&below).unwrap().0.last(), Some(&decision(99)));
        let (ids, broken) = ids(&below);
        assert!(ids.len() > 5 && broken == 0, "{ids:?}");
        let last: Vec<_> = (0..100).map(|n| format!("1-{n}")).skip(100 - ids.len()).collect();
        assert_eq!(ids, last);
        let size: u64 =
            fs::read_dir(&below).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 4000, "{size}");
    }

    #[test]
    fn half_a_line_spoils_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Decisions::open(directory.path()).unwrap();
        log.write(&decision(1)).unwrap();
        log.write(&decision(2)).unwrap();
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        // A crash may leave any part of the last line.
        for length in whole.len() / 2 + 1..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(ids(directory.path()), (vec!["1-1".into()], 1));
            let mut log = Decisions::open(directory.path()).unwrap();
            log.write(&decision(3)).unwrap();
            assert_eq!(ids(directory.path()), (vec!["1-1".into(), "1-3".into()], 1));
        }
    }

    #[test]
    fn a_rotation_that_was_cut_short_is_ended_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Decisions::open_with(directory.path(), 400).unwrap();
        log.write(&decision(1)).unwrap();
        // Renamed, and then there was no descriptor for the new file.
        fs::rename(directory.path().join(FILE), directory.path().join(FORMER)).unwrap();
        log.write(&decision(2)).unwrap();
        log.write(&decision(3)).unwrap();
        let (found, broken) = ids(directory.path());
        assert!(found.ends_with(&["1-3".into()]) && broken == 0, "{found:?}");
    }

    #[test]
    fn a_full_disk_leaves_no_half_line() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Decisions::open(directory.path()).unwrap();
        log.write(&decision(1)).unwrap();
        let length = log.bytes;
        // The kernel writes up to the limit on files' sizes, and fails after it, as on a full disk. Its
        // signal must not end the test.
        let path = directory.path().join(FILE);
        let script = format!(
            "trap '' XFSZ; ulimit -f 1; exec {} --exact guard::decisions::tests::fills --ignored",
            std::env::current_exe().unwrap().display()
        );
        let status = std::process::Command::new("bash")
            .args(["-c", &script])
            .env("DECISIONS", directory.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success() && fs::metadata(&path).unwrap().len() >= length);
        let mut log = Decisions::open(directory.path()).unwrap();
        log.write(&decision(9)).unwrap();
        let (found, broken) = ids(directory.path());
        assert_eq!((found.last().map(String::as_str), broken), (Some("1-9"), 0));
    }

    #[test]
    #[ignore = "is run with a limit on files' sizes by `a_full_disk_leaves_no_half_line`"]
    fn fills() {
        let directory = std::env::var_os("DECISIONS").expect("where");
        let mut log = Decisions::open(Path::new(&directory)).unwrap();
        let error = (2..100).find_map(|number| log.write(&decision(number)).err());
        assert!(error.is_some_and(|error| error.kind() == io::ErrorKind::FileTooLarge));
        assert_eq!(log.file.metadata().unwrap().len(), log.bytes, "no half line");
        assert_eq!(fs::read(Path::new(&directory).join(FILE)).unwrap().last(), Some(&b'\n'));
    }
}
