//! What the compiler child gives up: it may read what it was given, write to one folder, and nothing
//! else.

use std::{io, path::Path};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::{
    process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};

use crate::sys;

/// The limits below, for a message.
pub const LIMITS: &str = "30 s of processor time and 1 GiB of memory";
/// Processor time, in seconds.
const CPU: u64 = 30;
/// Private writable memory, in bytes.
const DATA: u64 = 1 << 30;
/// Address space, in bytes. Wasmtime reserves 4 GiB for each linear memory without using it.
const ADDRESS_SPACE: u64 = 64 << 30;
/// Largest file, in bytes: compiled code of the largest policy.
const FILE: u64 = 1 << 30;
/// The newest Landlock whose rights are known here (Linux 6.12). An older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;

/// Gives up what compiling does not need, except for writing to `folder`. To be called before any
/// thread is started, because capabilities and Landlock's rules are those of a thread. Says what
/// this kernel could not take away; nothing where it could take all.
pub fn confine(folder: &Path) -> io::Result<Option<String>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_no_new_privs(true)?;
    for (resource, limit) in [
        (Resource::Cpu, CPU),
        (Resource::Data, DATA),
        (Resource::As, ADDRESS_SPACE),
        (Resource::Fsize, FILE),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    nice(10)?;
    // Landlock knows TCP only. Without root this is not allowed, and not needed: then the child has
    // no more rights than the user who runs the agent.
    let _ = sys::network::leave();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(match allow_only(folder).map_err(io::Error::other)? {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => Some(
            "this kernel's Landlock is older than Linux 6.12 and does not restrict all that it should".to_owned(),
        ),
        RulesetStatus::NotEnforced => Some(
            "this kernel has no Landlock, or it is not in its list of security modules (`lsm=`)".to_owned(),
        ),
    })
}

/// Lets this thread, and those that it starts, write below `folder`, and open nothing else.
fn allow_only(folder: &Path) -> Result<RulesetStatus, Box<dyn std::error::Error + Send + Sync>> {
    let files = AccessFs::from_all(LANDLOCK);
    let inside = files & !(AccessFs::Execute | AccessFs::IoctlDev);
    let ruleset = Ruleset::default()
        .handle_access(files)?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(folder)?, inside))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        net::{TcpListener, TcpStream},
        process::Command,
        thread,
    };

    use super::*;

    #[test]
    fn who_is_confined_writes_to_its_folder_and_reaches_nothing_else() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("file"), "secret").unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        TcpStream::connect(address).expect("it can be reached from outside");
        // The rules are those of the thread.
        let confined = thread::spawn({
            let (inside, outside) = (inside.path().to_owned(), outside.path().to_owned());
            move || {
                match allow_only(&inside).unwrap() {
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
                fs::create_dir_all(inside.join("a/b")).unwrap();
                fs::write(inside.join("a/b/file"), "x").unwrap();
                fs::rename(inside.join("a/b/file"), inside.join("a/b/other")).unwrap();
                assert_eq!(fs::read_to_string(inside.join("a/b/other")).unwrap(), "x");
                let denied = |what: &str, result: io::Result<()>| {
                    let error = result.expect_err(what);
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}");
                };
                denied("read", File::open(outside.join("file")).map(drop));
                denied("write", fs::write(outside.join("file"), "mine"));
                denied("new", fs::write(outside.join("new"), "mine"));
                denied("remove", fs::remove_file(outside.join("file")));
                denied("list", fs::read_dir("/").map(drop));
                denied("run", Command::new("/bin/true").status().map(drop));
            }
        });
        confined.join().unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "secret");
    }
}
