//! Machines that lack something: each gets a clear refusal, or as much as it can give. What takes a
//! machine of its own is ignored here and run by `make test-vm`, one boot each.

#[expect(dead_code, reason = "the tests of the agent use the rest")]
mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{Tipstaff, can_probe, copy_program, vm};
use tempfile::TempDir;

const TIPSTAFF: &str = env!("CARGO_BIN_EXE_tipstaff");

/// Runs its arguments in a mount namespace of their own, after this.
fn after(preparation: &str) -> Vec<String> {
    let script = format!("{preparation}\nexec \"$0\" \"$@\"");
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script].map(String::from).into()
}

fn words(place: &[&str]) -> Vec<String> {
    place.iter().map(|word| (*word).to_owned()).collect()
}

fn in_place(place: &[String], program: &Path) -> Command {
    let Some((first, rest)) = place.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

/// What `tipstaff events exec` says where it is refused.
fn refusal(place: &[String], program: &Path) -> String {
    let mut command = in_place(place, program);
    let output = command.args(["events", "exec", "--duration", "1s"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    // One line, no panic.
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("tipstaff: ") && !said.contains("panicked"), "{said}");
    said
}

/// What `tipstaff events KIND` prints of one execution of a program of ours, and what it said
/// before it was ready. Of exactly one: then everything is as it should be.
fn an_execution(place: &[String], kind: &str, run: impl FnOnce(&Path)) -> (Value, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a program");
    copy_program("/bin/true", &program);
    let mut command = in_place(place, Path::new(TIPSTAFF));
    let condition = format!("filename = '{0}'", program.display());
    command.args(["events", kind, "--format", "json", "--fields", "all"]);
    command.args([
        "--where",
        &condition.replace("filename", if kind == "exec" { "path" } else { "filename" }),
    ]);
    let mut events = Tipstaff::start(command);
    events.wait_for_log("ready");
    run(&program);
    let line = events.wait_for_output("a program");
    let log = events.log.clone();
    let (more, code) = events.stop();
    assert_eq!((more, code), (Vec::<String>::new(), 0));
    (serde_json::from_str(&line).unwrap(), log)
}

fn run(program: &Path) {
    assert!(Command::new(program).status().unwrap().success());
}

/// Everything that is seen on this kernel is seen here, too.
fn works(place: &[String]) {
    for kind in ["exec", "tracepoint:sched:sched_process_exec"] {
        let (event, _) = an_execution(place, kind, run);
        assert!(event["pid"].as_u64().unwrap() > 1, "{event}");
    }
}

/// A copy of the agent that everybody may run.
fn agent_for_others() -> (TempDir, PathBuf) {
    let folder = TempDir::new_in("/tmp").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), mode).unwrap();
    let program = folder.path().join("tipstaff");
    copy_program(TIPSTAFF, &program);
    (folder, program)
}

#[test]
fn without_btf_the_file_that_is_missing_is_named() {
    if !can_probe("without_btf") {
        return;
    }
    let place = after("mount -t tmpfs none /sys/kernel/btf");
    let said = refusal(&place, Path::new(TIPSTAFF));
    assert!(said.contains("cannot read /sys/kernel/btf/vmlinux"), "{said}");
    assert!(said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
}

#[test]
fn without_tracefs_it_is_mounted_for_nobody_else() {
    if !can_probe("without_tracefs") {
        return;
    }
    works(&after(
        "for place in $(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - \\(tracefs\\|debugfs\\) .*/\\1/p' /proc/self/mountinfo)
         do umount -l $place || :; done
         ! grep -q ' - tracefs ' /proc/self/mountinfo || exit 9",
    ));
}

#[test]
fn a_bpffs_that_others_use_is_not_needed() {
    if !can_probe("without_bpffs") {
        return;
    }
    works(&after(
        "while grep -q ' /sys/fs/bpf ' /proc/self/mountinfo; do umount -l /sys/fs/bpf || exit 9; done",
    ));
}

#[test]
fn an_unprivileged_user_is_told_what_is_missing() {
    if !can_probe("unprivileged_user") {
        return;
    }
    let (_folder, program) = agent_for_others();
    let place = words(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let said = refusal(&place, &program);
    assert!(said.contains("needs CAP_SYS_ADMIN") && said.contains("run as root"), "{said}");
}

#[test]
fn with_cap_bpf_and_cap_perfmon_alone_the_refusal_says_what_they_do_not_allow() {
    if !can_probe("cap_bpf_and_cap_perfmon") {
        return;
    }
    let (_folder, program) = agent_for_others();
    let place = words(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+bpf,+perfmon",
        "--ambient-caps=+bpf,+perfmon",
    ]);
    let said = refusal(&place, &program);
    assert!(said.contains("CAP_BPF and CAP_PERFMON are not enough"), "{said}");
}

#[test]
fn a_limit_on_locked_memory_is_no_limit_or_is_named() {
    if !can_probe("locked_memory") {
        return;
    }
    let place = words(&[
        "setpriv",
        "--bounding-set=-sys_resource",
        "--inh-caps=-sys_resource",
        "sh",
        "-c",
        "ulimit -l 64 && exec \"$0\" \"$@\"",
    ]);
    // Since Linux 5.11 maps count as memory of the cgroup.
    if vm::release() >= (5, 11) {
        works(&place);
    } else {
        let said = refusal(&place, Path::new(TIPSTAFF));
        assert!(said.contains("locked memory") && said.contains("LimitMEMLOCK=infinity"), "{said}");
    }
}

/// Whether this is that machine: elsewhere an ignored test that someone runs says why it does nothing.
fn is(machine: &str) -> bool {
    let here = vm::machine();
    if here.as_deref() != Some(machine) {
        eprintln!("skipped: this is not the machine {machine} of `make test-vm`");
    }
    here.as_deref() == Some(machine)
}

#[test]
#[ignore = "needs a machine of its own: make test-vm"]
fn on_no_bpf_lsm() {
    if is("no-bpf-lsm") {
        let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap();
        assert!(!list.split(',').any(|lsm| lsm.trim() == "bpf"), "{list}");
        works(&[]);
    }
}

#[test]
#[ignore = "needs a machine of its own: make test-vm"]
fn on_lockdown_integrity() {
    if is("lockdown-integrity") {
        let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap();
        assert!(lockdown.contains("[integrity]"), "{lockdown}");
        works(&[]);
    }
}

#[test]
#[ignore = "needs a machine of its own: make test-vm"]
fn on_lockdown_confidentiality() {
    if is("lockdown-confidentiality") {
        let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap();
        assert!(lockdown.contains("[confidentiality]"), "{lockdown}");
        let said = refusal(&[], Path::new(TIPSTAFF));
        assert!(said.contains("locked down for confidentiality"), "{said}");
        assert!(said.contains("lockdown=integrity"), "{said}");
    }
}

/// Nothing but /proc, /sys and /dev is mounted.
#[test]
#[ignore = "needs a machine of its own: make test-vm"]
fn on_bare() {
    if is("bare") {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for absent in ["- tracefs", "- bpf", "- cgroup", "- securityfs", "- debugfs"] {
            assert!(!mounts.contains(absent), "{mounts}");
        }
        works(&[]);
        let (event, _) = an_execution(&[], "exec", run);
        assert!(event["cgroup.path"].is_null() && event["container.id"].is_null(), "{event}");
    }
}

/// Runs a program in new cgroups of these hierarchies, and compares the event with their folders.
fn cgroups(v2: Option<&str>, v1: Option<&str>) {
    let made = |root: Option<&str>| {
        root.map(|root| {
            let folder = Path::new(root).join("degraded");
            fs::create_dir(&folder).unwrap();
            folder
        })
    };
    let (v2, v1) = (made(v2), made(v1));
    let groups: Vec<&PathBuf> = v2.iter().chain(&v1).collect();
    // The agent learns of a new group within a fraction of a second; the first look may miss it.
    let (event, _) = an_execution(&[], "exec", |program| {
        let mut shell = Command::new("/bin/sh");
        let script = "program=$1; shift; for group; do echo $$ > $group/cgroup.procs; done; exec \"$program\"";
        shell.args(["-c", script, "sh"]).arg(program).args(&groups).stdout(Stdio::null());
        assert!(shell.status().unwrap().success());
    });
    let inode =
        |folder: &Option<PathBuf>| folder.as_ref().map(|it| fs::metadata(it).unwrap().ino());
    // Where it is not mounted, the v2 hierarchy is there all the same, and has its root only.
    assert_eq!(event["cgroup"].as_u64(), inode(&v2).or(Some(1)), "{event}");
    assert_eq!(event["cgroup_v1"].as_u64().unwrap_or(0), inode(&v1).unwrap_or(0), "{event}");
    if v2.is_some() {
        assert_eq!(event["cgroup.path"], "/degraded", "{event}");
    }
    for group in groups {
        support::until("the group is empty", || fs::remove_dir(group).ok());
    }
}

/// Not ignored: the first machine of `make test-vm` has v2 only.
#[test]
fn with_cgroup_v2_alone_its_id_and_path_are_those_of_the_folder() {
    if vm::machine().as_deref() == Some("all") {
        cgroups(Some("/sys/fs/cgroup"), None);
    } else {
        eprintln!("skipped: this machine may have other hierarchies; `make test-vm` runs it");
    }
}

/// The memory controller as v1, which newer kernels may be built without.
fn memory_v1() -> Option<&'static str> {
    let folder = "/sys/fs/cgroup/memory";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = mounts.contains(" /sys/fs/cgroup/memory ");
    if !mounted {
        eprintln!(
            "this kernel has no v1 memory controller: ids of that hierarchy are not compared"
        );
    }
    mounted.then_some(folder)
}

#[test]
#[ignore = "needs a machine of its own: make test-vm"]
fn on_cgroup_v1() {
    if is("cgroup-v1") {
        works(&[]);
        cgroups(None, memory_v1());
    }
}

#[test]
#[ignore = "needs a machine of its own: make test-vm"]
fn on_cgroup_hybrid() {
    if is("cgroup-hybrid") {
        works(&[]);
        cgroups(Some("/sys/fs/cgroup/unified"), memory_v1());
    }
}
