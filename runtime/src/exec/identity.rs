//! Who the command runs as.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
};

use rustix::{
    process::{getegid, geteuid, getgid, getuid},
    thread::{
        CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::sys::users::{self, User};

/// To the kernel: leave it as it is.
const NOBODYS: u32 = u32::MAX;

/// A user that the command becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Number.
    pub uid: u32,
    /// First group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// Name; the number, where it has none.
    pub name: OsString,
    /// Home directory.
    pub home: OsString,
}

/// Why the command cannot run as anybody.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It would run as root, and nobody said so.
    #[error(
        "the command would run as root: name the user that it is to run as with --user USER, or say --user root if that is what you want"
    )]
    Root,
    /// No such user.
    #[error("--user: there is no user `{}`", .0.display())]
    Unknown(OsString),
    /// The caller cannot become another user.
    #[error("--user: only root can run a command as another user")]
    NotRoot,
    /// The environment says nonsense.
    #[error("{name} is `{}`, expected the number that sudo sets", value.display())]
    Sudo {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
    },
    /// The user database.
    #[error("cannot look up the user: {0}")]
    Io(#[from] io::Error),
}

impl Identity {
    /// Whom the command is to become: `wanted` (a name or a number), or whoever called, also by way of
    /// sudo. `None`: it stays whoever we are.
    pub fn find(wanted: Option<&OsStr>) -> Result<Option<Self>, IdentityError> {
        let is_root = geteuid().is_root();
        match wanted {
            Some(wanted) => {
                let user = match wanted.to_str().and_then(|text| text.parse().ok()) {
                    None => users::named(wanted)?,
                    Some(number) => users::numbered(number)?,
                };
                let user = user.ok_or_else(|| IdentityError::Unknown(wanted.to_owned()))?;
                match (is_root, user.uid == getuid().as_raw()) {
                    (true, _) => Ok(Some(Self::of(user)?)),
                    (false, true) => Ok(None),
                    (false, false) => Err(IdentityError::NotRoot),
                }
            }
            None if !is_root => Ok(None),
            None => match sudo("SUDO_UID")?.filter(|uid| *uid != 0) {
                Some(uid) => Self::called_by(uid, sudo("SUDO_GID")?).map(Some),
                None => Err(IdentityError::Root),
            },
        }
    }

    /// Whoever called sudo. Need not be in the user database, as in a container.
    fn called_by(uid: u32, gid: Option<u32>) -> Result<Self, IdentityError> {
        let known = users::numbered(uid)?.map(Self::of).transpose()?;
        let mut identity = known.unwrap_or_else(|| Self {
            uid,
            gid: uid,
            groups: Vec::new(),
            name: uid.to_string().into(),
            home: "/".into(),
        });
        identity.gid = gid.unwrap_or(identity.gid);
        if !identity.groups.contains(&identity.gid) {
            identity.groups.push(identity.gid);
        }
        Ok(identity)
    }

    fn of(User { name, uid, gid, home }: User) -> io::Result<Self> {
        let groups = users::groups(&name, gid)?;
        Ok(Self { uid, gid, groups, name, home })
    }

    /// What the command's environment says of its user.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &OsStr); 3] {
        [("HOME", &self.home), ("USER", &self.name), ("LOGNAME", &self.name)]
    }

    /// Whether this user can undo what guards it.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Makes this thread, the only one of its process, that user. Whoever is not root then has no
/// capability, now or in a program that it runs.
pub(super) fn become_user(user: Option<(u32, u32, &[u32])>) -> io::Result<()> {
    if let Some((uid, gid, groups)) = user {
        if uid == NOBODYS || gid == NOBODYS {
            return Err(io::Error::other(format!(
                "{NOBODYS} is the number of no user and no group"
            )));
        }
        let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        if (getuid(), geteuid(), getgid(), getegid()) != (uid, uid, gid, gid) {
            return Err(io::Error::other("the kernel left another user or group"));
        }
    }
    if !geteuid().is_root() {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets)?;
    }
    Ok(())
}

fn sudo(name: &'static str) -> Result<Option<u32>, IdentityError> {
    let Some(value) = env::var_os(name) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    let number = number.filter(|number| *number != NOBODYS);
    number.map(Some).ok_or(IdentityError::Sudo { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_called_sudo_need_not_be_known_here_and_has_its_group() {
        let nobody = Identity::called_by(4_000_000_000, Some(7)).unwrap();
        assert_eq!(
            (nobody.uid, nobody.gid, nobody.groups.as_slice()),
            (4_000_000_000, 7, &[7][..])
        );
        assert_eq!(nobody.environment()[1], ("USER", "4000000000".as_ref()));
        let root = Identity::called_by(0, Some(4_000_000_001)).unwrap();
        assert_eq!((root.gid, root.name.as_os_str()), (4_000_000_001, "root".as_ref()));
        assert!(root.groups.contains(&0) && root.groups.contains(&4_000_000_001));
    }

    #[test]
    fn the_number_that_changes_nothing_is_no_user() {
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
            let error = become_user(Some((uid, gid, &[]))).unwrap_err();
            assert!(error.to_string().starts_with("4294967295 is"), "{error}");
        }
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        let error = Identity::find(Some("no such user".as_ref())).unwrap_err();
        assert_eq!(error.to_string(), "--user: there is no user `no such user`");
    }
}
