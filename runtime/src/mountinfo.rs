//! What is mounted where, as a process sees it (`/proc/PID/mountinfo`).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount.
    pub id: u32,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// What of the file system is mounted: `/` for all of it.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of the file system.
    pub file_system: String,
    /// Its own options, with commas between them.
    pub options: String,
}

/// Every mount, in the order of the list.
pub fn read() -> io::Result<Vec<Mount>> {
    // Not /proc/self: that is the first thread, which may have another mount namespace, or have ended.
    fs::read("/proc/thread-self/mountinfo").map(|text| parse(&text))
}

/// Where the v2 hierarchy of cgroups is mounted: at /sys/fs/cgroup, below it on hybrid hosts, or anywhere
/// else.
pub fn cgroup_v2() -> io::Result<PathBuf> {
    v2_of(&read()?).map(Path::to_owned).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
    })
}

/// The first mount of all of it, or else of a part.
fn v2_of(mounts: &[Mount]) -> Option<&Path> {
    let mut all = mounts.iter().filter(|mount| mount.file_system == "cgroup2");
    let whole = all.clone().find(|mount| mount.root == Path::new("/"));
    whole.or_else(|| all.next()).map(|mount| mount.point.as_path())
}

/// Lines that are none are left out.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(Line::parse);
    lines.map(|line| line.mount()).collect()
}

/// A line of the list, as it stands there.
pub(crate) struct Line<'a> {
    pub(crate) id: u32,
    pub(crate) device: (u32, u32),
    root: &'a [u8],
    point: &'a [u8],
    file_system: &'a [u8],
    options: &'a [u8],
}

impl<'a> Line<'a> {
    /// `None`: it is none.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let number = |field: &[u8]| str::from_utf8(field).ok()?.parse::<u32>().ok();
        let device: Vec<&[u8]> = fields.get(2)?.split(|&byte| byte == b':').collect();
        Some(Self {
            id: number(fields[0])?,
            device: (number(device[0])?, number(device.get(1)?)?),
            root: fields.get(3)?,
            point: fields.get(4)?,
            file_system: fields.get(dash + 1)?,
            options: fields.get(dash + 3)?,
        })
    }

    pub(crate) fn mount(&self) -> Mount {
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        Mount {
            id: self.id,
            device: self.device,
            root: unescape(self.root).into(),
            point: unescape(self.point).into(),
            file_system: text(self.file_system),
            options: text(self.options),
        }
    }

    /// Where it is mounted.
    pub(crate) fn point(&self) -> OsString {
        unescape(self.point)
    }

    /// Type of the file system.
    pub(crate) fn file_system(&self) -> &'a [u8] {
        self.file_system
    }
}

/// A path as mountinfo writes it: `\040` is a space.
fn unescape(path: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind
            .get(..3)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) if byte == b'\\' => {
                plain.push(code);
                rest = &behind[3..];
            }
            _ => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:38 /part /part rw - cgroup2 cgroup2 rw\n\
        41 31 0:38 / /my\\040cgroups rw,relatime shared:9 master:1 - cgroup2 none rw,nsdelegate\n\
        42 31 0:38 / /again rw,relatime - cgroup2 cgroup2 rw\n\
        no mount\n";

    #[test]
    fn a_line_is_a_mount_with_its_path_unescaped() {
        let mounts = parse(HYBRID);
        assert_eq!(mounts.len(), 4);
        assert_eq!(
            mounts[2],
            Mount {
                id: 41,
                device: (0, 38),
                root: "/".into(),
                point: "/my cgroups".into(),
                file_system: "cgroup2".into(),
                options: "rw,nsdelegate".into(),
            }
        );
    }

    #[test]
    fn the_v2_hierarchy_is_found_wherever_it_is() {
        let mounts = parse(HYBRID);
        assert_eq!(v2_of(&mounts), Some(Path::new("/my cgroups")));
        assert_eq!(v2_of(&mounts[..2]), Some(Path::new("/part")));
        assert_eq!(v2_of(&mounts[..1]), None);
    }
}
