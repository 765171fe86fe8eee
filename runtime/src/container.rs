//! Which container a cgroup belongs to, read from its path.

/// A container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container<'a> {
    /// Its id: 64 hexadecimal digits.
    pub id: &'a str,
    /// What runs it; `None` where the path does not tell (Kubernetes with the cgroupfs driver).
    pub runtime: Option<&'static str>,
}

/// What stands before the id in the name of a cgroup, and the runtime that names it so.
const PREFIXES: &[(&str, &str)] = &[
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    (":cri-containerd:", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    (":crio:", "cri-o"),
    ("libpod-", "podman"),
];

/// The innermost container of the cgroup at `path`. Monitors (`conmon`) run outside of theirs.
#[must_use]
pub fn container(path: &str) -> Option<Container<'_>> {
    let mut outer = path;
    while let Some((rest, name)) = outer.rsplit_once('/') {
        outer = rest;
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let Some((prefix, id)) =
            name.len().checked_sub(64).and_then(|at| name.split_at_checked(at))
        else {
            continue;
        };
        if !id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            continue;
        }
        if prefix.is_empty() {
            return Some(Container { id, runtime: from_parent(rest) });
        }
        let named = PREFIXES.iter().find(|(known, _)| {
            if known.starts_with(':') { prefix.ends_with(known) } else { prefix == *known }
        });
        if let Some((_, runtime)) = named {
            return Some(Container { id, runtime: Some(runtime) });
        }
    }
    None
}

/// The runtime of a cgroup that is named by the id alone.
fn from_parent(path: &str) -> Option<&'static str> {
    match path.rsplit('/').next()? {
        "docker" | "buildkit" => Some("docker"),
        "libpod_parent" => Some("podman"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c5b1e0d7b5a2c9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d";

    #[test]
    fn reads_the_id_and_the_runtime_as_each_names_its_cgroups() {
        for (path, runtime) in [
            (format!("/docker/{ID}"), Some("docker")),
            (format!("/system.slice/docker-{ID}.scope"), Some("docker")),
            (format!("/system.slice/docker-{ID}.scope/init.scope"), Some("docker")),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
                Some("containerd"),
            ),
            (
                format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
                Some("containerd"),
            ),
            (format!("/user.slice/nerdctl-{ID}.scope"), Some("containerd")),
            (format!("/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope"), Some("cri-o")),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some("podman")),
            (format!("/libpod_parent/{ID}"), Some("podman")),
            (format!("/kubepods/burstable/pod1/{ID}"), None),
        ] {
            assert_eq!(container(&path), Some(Container { id: ID, runtime }), "{path}");
        }
    }

    #[test]
    fn the_innermost_container_counts() {
        let inner = ID.replace('4', "5");
        let path = format!("/docker/{ID}/docker/{inner}");
        assert_eq!(container(&path).unwrap().id, inner);
    }

    #[test]
    fn other_cgroups_and_monitors_are_no_container() {
        for path in [
            "/".to_owned(),
            "/system.slice/ssh.service".to_owned(),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/kubepods.slice/crio-conmon-{ID}.scope"),
            format!("/docker/{}", ID.to_uppercase()),
            "/docker/é".to_owned(),
        ] {
            assert_eq!(container(&path), None, "{path}");
        }
    }
}
