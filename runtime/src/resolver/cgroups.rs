//! Paths of cgroups, by id: the id is the inode of the cgroup's directory.

use std::{
    collections::HashMap,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::CgroupId;
use crate::{
    clock,
    mountinfo::{self, Mount},
};

/// The tree is walked again for an unknown id, but not more often than this.
const WALK_AGAIN: Duration = Duration::from_millis(200);
/// Most cgroups that are remembered.
const MOST: usize = 65_536;

#[derive(Default)]
pub struct Cgroups {
    paths: HashMap<CgroupId, Box<[u8]>>,
    /// When the tree was walked last (monotonic).
    walked: u64,
}

impl Cgroups {
    /// The path below its mount of a cgroup that was there at this time (monotonic), if it still is. One
    /// that a later walk did not find is gone: it is not walked for again.
    pub fn path(&mut self, id: CgroupId, time: u64) -> Option<Box<[u8]>> {
        if !self.paths.contains_key(&id) && self.walked <= time {
            let since = Duration::from_nanos(clock::monotonic_ns().saturating_sub(self.walked));
            std::thread::sleep(WALK_AGAIN.saturating_sub(since));
            self.walk_all();
        }
        self.paths.get(&id).cloned()
    }

    /// All cgroups.
    pub fn all(&mut self) -> impl Iterator<Item = (CgroupId, Box<[u8]>)> {
        self.walk_all();
        self.paths.iter().map(|(&id, path)| (id, path.clone()))
    }

    fn walk_all(&mut self) {
        let mounts = mountinfo::read().unwrap_or_default();
        self.walked = clock::monotonic_ns();
        self.paths.clear();
        for (make, mount) in hierarchies(&mounts) {
            self.walk(make, &mount);
        }
    }

    fn walk(&mut self, make: Make, mount: &Path) {
        let Ok(root) = fs::metadata(mount) else { return };
        self.paths.insert(make(root.ino()), b"/".as_slice().into());
        let mut waiting = vec![mount.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if self.paths.len() >= MOST {
                    return;
                }
                let path = entry.path();
                let below = path.as_os_str().as_bytes().strip_prefix(mount.as_os_str().as_bytes());
                self.paths.insert(make(entry.ino()), below.unwrap_or_default().into());
                waiting.push(path);
            }
        }
    }
}

/// Makes the id of a cgroup of one hierarchy.
type Make = fn(u64) -> CgroupId;

/// Where the v2 hierarchy and the v1 memory hierarchy are mounted.
fn hierarchies(mounts: &[Mount]) -> Vec<(Make, PathBuf)> {
    let mut found: Vec<(Make, PathBuf)> = Vec::new();
    for mount in mounts {
        let make: Make = match mount.file_system.as_str() {
            "cgroup2" => CgroupId::V2,
            "cgroup" if mount.options.split(',').any(|option| option == "memory") => CgroupId::V1,
            _ => continue,
        };
        // The first mount of each hierarchy is enough.
        if !found.iter().any(|(other, _)| other(0) == make(0)) {
            found.push((make, mount.point.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_hierarchies_of_a_hybrid_host_wherever_they_are() {
        let mounts = b"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
            41 31 0:38 / /my\\040cgroups rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
            42 31 0:38 / /again rw,relatime - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = hierarchies(&mountinfo::parse(mounts))
            .into_iter()
            .map(|(make, path)| (make(7), path))
            .collect();
        assert_eq!(
            found,
            [
                (CgroupId::V1(7), PathBuf::from("/sys/fs/cgroup/memory")),
                (CgroupId::V2(7), PathBuf::from("/my cgroups")),
            ]
        );
    }

    #[test]
    fn many_that_are_gone_take_one_walk() {
        let mut cgroups = Cgroups::default();
        let time = clock::monotonic_ns();
        assert_eq!(cgroups.path(CgroupId::V2(u64::MAX), time), None);
        let walked = cgroups.walked;
        assert!(walked > time);
        for id in 1..1000 {
            assert_eq!(cgroups.path(CgroupId::V2(u64::MAX - id), time), None);
        }
        assert_eq!(cgroups.walked, walked);
        cgroups.path(CgroupId::V2(u64::MAX), clock::monotonic_ns());
        assert!(cgroups.walked > walked, "it may be new");
    }

    #[test]
    fn a_directory_is_found_by_its_inode() {
        let tree = tempfile::tempdir().unwrap();
        let inner = tree.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let mut cgroups = Cgroups::default();
        cgroups.walk(CgroupId::V2, tree.path());
        let id = |path: &Path| CgroupId::V2(fs::metadata(path).unwrap().ino());
        assert_eq!(cgroups.paths[&id(&inner)].as_ref(), b"/a/b");
        assert_eq!(cgroups.paths[&id(tree.path())].as_ref(), b"/");
    }
}
