//! Cgroups made, found again, emptied and removed.

use std::{
    ops::Deref,
    process::{Child, Command},
};

use super::*;

/// A folder of cgroups for a test, which leaves nothing of it behind.
struct Folder(PathBuf);

impl Folder {
    /// `None` where it cannot be had.
    fn new(test: &str) -> Option<Self> {
        let Some(mount) =
            mountinfo::cgroup_v2().ok().filter(|_| rustix::process::geteuid().is_root())
        else {
            eprintln!("SKIPPED {test}: needs root and a cgroup v2 hierarchy");
            return None;
        };
        Some(Self(mount.join(format!("tipstaff-test-{test}-{}", std::process::id()))))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for left in folders(&self.0) {
            if let Ok(scope) = Scope::open(&left) {
                let _gone = scope.kill(REMOVAL, || ());
                let _gone = scope.remove();
            }
        }
        let _gone = fs::remove_dir(&self.0);
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

fn sleeper(cgroup: &Path) -> Child {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    write(&cgroup.join("cgroup.procs"), &child.id().to_string()).unwrap();
    child
}

#[test]
fn a_folder_that_another_may_write_to_or_whose_lock_is_held_is_not_used() {
    let Some(folder) = Folder::new("held") else { return };
    fs::create_dir(&*folder).unwrap();
    let procs = folder.join("cgroup.procs");
    for (uid, mode) in [(65_534, 0o644), (0, 0o666)] {
        std::os::unix::fs::chown(&procs, Some(uid), None).unwrap();
        fs::set_permissions(&procs, Permissions::from_mode(mode)).unwrap();
        let error = Scope::make_in(&folder, |_, _| ()).unwrap_err();
        assert!(matches!(error, ScopeError::NotRoots(_)), "{error}");
    }
    fs::set_permissions(&procs, Permissions::from_mode(0o644)).unwrap();

    let held = File::open(&*folder).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let error = Scope::make_in(&folder, |_, _| ()).unwrap_err();
    assert!(matches!(error, ScopeError::Locked(_)), "{error}");
    drop(held);
    let scope = Scope::make_in(&folder, |_, _| ()).unwrap();
    assert_eq!(fs::metadata(&*folder).unwrap().permissions().mode() & 0o777, 0o700);
    scope.remove().unwrap();
    assert!(!folder.exists());
}

#[test]
fn what_nobody_uses_is_removed_if_it_is_empty_and_else_named() {
    let Some(folder) = Folder::new("sweep") else { return };
    let nobody = |path: &Path, _: &[Process]| panic!("{} has processes", path.display());
    let first = Scope::make_in(&folder, nobody).unwrap();
    let in_use = first.path().to_owned();
    let second = Scope::make_in(&folder, nobody).unwrap();
    assert!(in_use.exists(), "a cgroup that is in use was removed");
    let (empty, populated) = (in_use.join("below"), second.path().to_owned());
    fs::create_dir(&empty).unwrap();
    let mut child = sleeper(&populated);
    drop((first, second));

    // A child that another test starts just now has our locks until it runs its program.
    let patience = Instant::now() + Duration::from_secs(30);
    let (third, told) = loop {
        let mut told = Vec::new();
        let third = Scope::make_in(&folder, |path, processes| {
            told.push((path.to_owned(), processes.to_vec()));
        })
        .unwrap();
        if !told.is_empty() && !in_use.exists() || Instant::now() > patience {
            break (third, told);
        }
        third.remove().unwrap();
        std::thread::sleep(LOOK_EVERY);
    };
    let sleep = Process { pid: child.id(), comm: "sleep".into() };
    assert_eq!(told, [(populated.clone(), vec![sleep])]);
    assert!(!in_use.exists(), "an empty cgroup that nobody uses is left");
    assert!(child.try_wait().unwrap().is_none(), "a process that is not ours was ended");

    let populated = Scope::open(&populated).unwrap();
    populated.kill(REMOVAL, || ()).unwrap();
    child.wait().unwrap();
    populated.remove().unwrap();
    third.remove().unwrap();
    assert!(!folder.exists());
}

#[test]
fn all_are_killed_also_one_by_one_and_also_below() {
    let Some(folder) = Folder::new("kill") else { return };
    for one_by_one in [false, true] {
        let scope = Scope::make_in(&folder, |_, _| ()).unwrap();
        let below = scope.path().join("below");
        fs::create_dir(&below).unwrap();
        let mut children = [sleeper(scope.path()), sleeper(&below)];
        assert_eq!(scope.processes().len(), 2);
        if one_by_one {
            scope.kill_each(REMOVAL, || ()).unwrap();
        } else {
            scope.kill(REMOVAL, || ()).unwrap();
        }
        assert!(!scope.is_populated().unwrap());
        for child in &mut children {
            child.wait().unwrap();
        }
        scope.remove().unwrap();
    }
    assert!(!folder.exists());
}
