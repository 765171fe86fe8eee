//! Builds the eBPF objects (`ebpf/probes`) and embeds them.
//!
//! Two tool chains can do it: the one that builds this crate, with `rust-src` from rustup; or
//! Debian's `rustc-web` packages, which bring a ready `core` for eBPF. Both need `bpf-linker`.
//! Where neither is there, this crate still builds, says so once, and loading a probe fails with a
//! message that names the set-up script.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";
const SETUP: &str = "run tools/setup.sh and build again";

fn main() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    let probes = root.join("ebpf/probes");
    let out = PathBuf::from(variable("OUT_DIR"));
    for path in
        ["ebpf/probes/src", "ebpf/probes/Cargo.toml", "ebpf/events/src", "ebpf/events/Cargo.toml"]
    {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let names = objects(&probes)?;
    let built = ToolChain::find().map(|tool_chain| {
        let target_dir = target_dir(&out).join("ebpf");
        tool_chain.build(&probes, &target_dir).map(|()| target_dir.join(TARGET).join("ebpf"))
    });
    let generated = match built {
        Ok(Ok(objects)) => {
            let mut entries = Vec::new();
            for name in &names {
                let embedded = out.join(format!("{name}.bpf.o"));
                fs::copy(objects.join(name), &embedded)
                    .map_err(|error| format!("{name}: {error}"))?;
                entries.push(format!(
                    "    ({name:?}, aya::include_bytes_aligned!(\"{}\")),\n",
                    embedded.display()
                ));
            }
            module("None", &entries.concat())
        }
        Ok(Err(message)) => return Err(message),
        Err(missing) => {
            // A file that is never there: look for the tool chain again at the next build.
            println!("cargo::rerun-if-changed={}", out.join("tool-chain").display());
            println!("cargo::warning=built without eBPF probes: {missing}; {SETUP}");
            module(&format!("Some({missing:?})"), "")
        }
    };
    fs::write(out.join("objects.rs"), generated).map_err(|error| error.to_string())
}

fn module(missing: &str, entries: &str) -> String {
    format!(
        "/// Why this program was built without eBPF objects.\n\
         pub const MISSING: Option<&str> = {missing};\n\
         /// The embedded eBPF objects by name.\n\
         pub static OBJECTS: &[(&str, &[u8])] = &[\n{entries}];\n"
    )
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// The objects' names: one file or folder each in `src/bin`.
fn objects(probes: &Path) -> Result<Vec<String>, String> {
    let folder = probes.join("src/bin");
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// The workspace's target folder, so that all profiles share the objects.
fn target_dir(out: &Path) -> PathBuf {
    // OUT_DIR is TARGET[/TRIPLE]/PROFILE/build/PACKAGE/out.
    let profile = out.ancestors().nth(3).unwrap_or(out);
    let parent = profile.parent().unwrap_or(profile);
    if parent.ends_with(variable("TARGET")) { parent.parent().unwrap_or(parent) } else { parent }
        .to_owned()
}

struct ToolChain {
    cargo: PathBuf,
    rustc: PathBuf,
    build_std: bool,
    path: String,
}

impl ToolChain {
    /// The first tool chain that is complete, or what is missing.
    fn find() -> Result<Self, String> {
        let cargo_bin = env::var("CARGO_HOME")
            .ok()
            .or_else(|| env::var("HOME").ok().map(|home| format!("{home}/.cargo")))
            .map(|home| format!("{home}/bin"));
        let path =
            [env::var("PATH").ok(), cargo_bin].into_iter().flatten().collect::<Vec<_>>().join(":");
        if !env::split_paths(&path).any(|folder| folder.join("bpf-linker").is_file()) {
            return Err("no bpf-linker on PATH".to_owned());
        }
        let own = (PathBuf::from(variable("CARGO")), PathBuf::from(variable("RUSTC")));
        let debian = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        for (cargo, rustc) in [own, debian] {
            let Some(library) = sysroot(&rustc).map(|root| root.join("lib/rustlib")) else {
                continue;
            };
            let ready = library.join(TARGET).join("lib").is_dir();
            if ready || library.join("src/rust/library/core/src/lib.rs").is_file() {
                return Ok(Self { cargo, rustc, build_std: !ready, path });
            }
        }
        Err("neither rustup's rust-src nor Debian's libstd-rust-web-dev-bpf is installed"
            .to_owned())
    }

    /// Builds all objects below `target_dir`.
    fn build(&self, probes: &Path, target_dir: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.cargo);
        // What cargo and clippy set for this crate's own build is not meant for the objects.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_") && name != "CARGO_HOME" && !name.starts_with("CARGO_NET_")
                || name.starts_with("RUSTC")
                || name.starts_with("CLIPPY")
                || name == "RUSTFLAGS"
            {
                command.env_remove(&*name);
            }
        }
        let flags =
            ["--cfg", "bpf_target_arch=\"x86_64\"", "-C", "debuginfo=2", "-C", "link-arg=--btf"]
                .join("\x1f");
        command
            .env("PATH", &self.path)
            .env("RUSTC", &self.rustc)
            // Split into the units of an incremental build, programs do not pass the verifier.
            .env("CARGO_INCREMENTAL", "0")
            // Building core, and the BPF target's atomics, are unstable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .current_dir(probes)
            .args([
                "build",
                "--quiet",
                "--bins",
                "--profile",
                "ebpf",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(target_dir);
        if self.build_std {
            command.args(["-Z", "build-std=core"]);
        }
        let output =
            command.output().map_err(|error| format!("{}: {error}", self.cargo.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("the eBPF objects do not build:\n{}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let root = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| root.trim().into())
}
