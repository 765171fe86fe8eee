//! What the compiler child gives up: it may read and write what it was given, and nothing else.

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
};
use rustix::{
    process::{
        Gid, Resource, Rlimit, Signal, Uid, geteuid, nice, set_parent_process_death_signal,
        setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{CompileLimits, seconds};
use crate::sys;

/// Address space, in bytes. Wasmtime reserves 4 GiB for each linear memory without using it.
const ADDRESS_SPACE: u64 = 64 << 30;
/// Largest file, in bytes: compiled code of the largest policy.
const FILE: u64 = 1 << 30;
/// The newest Landlock whose rights are known here (Linux 6.12). An older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;
/// The user and group that own nothing (`nobody`).
const NOBODY: u32 = 65534;

/// Gives up what compiling does not need. To be called before any thread is started, because users,
/// capabilities and Landlock's rules are those of a thread. Says what could not be given up; nothing
/// where all could.
pub fn confine(limits: &CompileLimits) -> io::Result<Option<String>> {
    set_no_new_privs(true)?;
    let (cpu, memory) = (limits.seconds(), limits.memory);
    for (resource, current, maximum) in [
        // The signal of the first says why it ended, the second cannot be ignored.
        (Resource::Cpu, cpu, cpu + 1),
        (Resource::Data, memory, memory),
        (Resource::As, ADDRESS_SPACE, ADDRESS_SPACE),
        (Resource::Fsize, FILE, FILE),
        (Resource::Core, 0, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })?;
    }
    // It ends by itself also where its parent has no right to kill who became nobody.
    sys::signals::set_alarm(seconds(limits.wall) + 1)?;
    nice(10)?;
    // Landlock knows TCP only. Without root this is not allowed, and not needed: then the child has
    // no more rights than the user who runs the agent.
    let _ = sys::network::leave();
    let user = if geteuid().is_root() { become_nobody() } else { Ok(()) };
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // Not earlier: who becomes another user is not told any more.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let files = match allow_nothing().map_err(io::Error::other)? {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => {
            Some("this kernel's Landlock is older than Linux 6.12 and does not restrict all that it should".to_owned())
        }
        RulesetStatus::NotEnforced => {
            Some("this kernel has no Landlock, or it is not in its list of security modules (`lsm=`)".to_owned())
        }
    };
    let user = user.err().map(|error| {
        format!("it is root, without capabilities, because it cannot become user {NOBODY}: {error}")
    });
    let left: Vec<String> = [user, files].into_iter().flatten().collect();
    Ok((!left.is_empty()).then(|| left.join("; ")))
}

/// Becomes a user to whom no file belongs. Needs `CAP_SETUID` and `CAP_SETGID`.
fn become_nobody() -> io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// Lets this thread, and those that it starts, open nothing, connect to nothing, and send signals to
/// nobody outside.
fn allow_nothing() -> Result<RulesetStatus, Box<dyn std::error::Error + Send + Sync>> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, Permissions},
        io::Write as _,
        net::{TcpListener, TcpStream},
        os::unix::fs::PermissionsExt as _,
        path::Path,
        process::Command,
        thread,
    };

    use super::*;

    fn denied(what: &str, result: io::Result<()>) {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}");
    }

    /// A directory that all may look into, with a file that its owner alone may read.
    fn place() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(place.path().join("file"), "secret").unwrap();
        fs::set_permissions(place.path().join("file"), Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn changes_nothing(place: &Path) {
        denied("read", File::open(place.join("file")).map(drop));
        denied("write", fs::write(place.join("file"), "mine"));
        denied("new", fs::write(place.join("new"), "mine"));
        denied("remove", fs::remove_file(place.join("file")));
    }

    /// Does it in a thread, whose rules and user are its own.
    fn in_a_thread(act: impl FnOnce() + Send + 'static) {
        thread::spawn(act).join().unwrap();
    }

    #[test]
    fn who_is_confined_opens_nothing_and_reaches_nobody() {
        let place = place();
        let mut open = File::create(place.path().join("open")).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        TcpStream::connect(address).expect("it can be reached from outside");
        let path = place.path().to_owned();
        in_a_thread(move || {
            match allow_nothing().unwrap() {
                RulesetStatus::NotEnforced => {
                    eprintln!("SKIPPED who_is_confined: this kernel has no Landlock");
                    return;
                }
                RulesetStatus::PartiallyEnforced => eprintln!("an older Landlock"),
                RulesetStatus::FullyEnforced => {
                    let error = TcpStream::connect(address).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "network");
                }
            }
            changes_nothing(&path);
            denied("list", fs::read_dir("/").map(drop));
            denied("run", Command::new("/bin/true").status().map(drop));
            open.write_all(b"made").unwrap();
        });
        assert_eq!(fs::read_to_string(place.path().join("file")).unwrap(), "secret");
        assert_eq!(fs::read_to_string(place.path().join("open")).unwrap(), "made");
    }

    /// What is left where there is no Landlock.
    #[test]
    fn who_became_nobody_reads_no_file_that_is_not_for_all() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED who_became_nobody: only root can become another user");
            return;
        }
        let place = place();
        fs::write(place.path().join("public"), "for all").unwrap();
        fs::set_permissions(place.path().join("public"), Permissions::from_mode(0o644)).unwrap();
        let path = place.path().to_owned();
        in_a_thread(move || {
            become_nobody().unwrap();
            changes_nothing(&path);
            denied("shadow", File::open("/etc/shadow").map(drop));
            assert_eq!(fs::read_to_string(path.join("public")).unwrap(), "for all");
            // There is no way back.
            let root = Uid::ROOT;
            assert_eq!(set_thread_res_uid(root, root, root), Err(rustix::io::Errno::PERM));
        });
        assert_eq!(fs::read_to_string(place.path().join("file")).unwrap(), "secret");
    }
}
