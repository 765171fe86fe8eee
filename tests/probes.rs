//! The probes on the running kernel, with exact counts. Needs root: elsewhere each test says why it
//! is skipped, except in CI, where it fails.

mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::Write as _,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _, unix::fs::PermissionsExt as _},
    process::{Command, Stdio},
};

use kernel::{
    Event, Load, Recording, all_fields, alone,
    here::{copy_program, skip},
    vm::rounds,
};
use rustix::fs::MemfdFlags;
use tipstaff_events::{
    catalogue::{FILE_STATE, SIGNAL_ORIGIN, exec, exit, fork, oom, signal, thread_exit},
    wire::{MAX_ARGS, ON_BIT},
};
use tipstaff_runtime::probe::{Probes, RingSizes};

/// Runs programs all the time.
fn load() -> Load {
    let script = "while :; do /bin/true; /bin/true | /bin/cat; done";
    Load::start(Command::new("/bin/sh").args(["-c", script]))
}

/// Runs a program to its end and returns its pid.
fn run(command: &mut Command) -> u32 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

/// The only event of that process.
fn only(events: &[Event], pid: u32) -> &Event {
    let mut of_pid = events.iter().filter(|event| event.number("pid") == u64::from(pid));
    let event = of_pid.next().unwrap_or_else(|| panic!("no event of {pid}"));
    assert!(of_pid.next().is_none(), "more than one event of {pid}");
    event
}

#[test]
fn each_run_gives_one_exec_and_one_exit_with_its_code_while_others_run() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[exec::KIND, exit::KIND]);
    let load = load();
    let mut codes = BTreeMap::new();
    let runs = rounds(100);
    for round in 0..runs {
        let code = u64::from(round % 5);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("exit {code}")]);
        codes.insert(run(&mut command), code);
        codes.insert(run(&mut Command::new("/bin/true")), 0);
        codes.insert(run(&mut Command::new("/bin/false")), 1);
        recording.drain();
    }
    drop(load);
    let (execs, exits) = (recording.of(exec::KIND), recording.of(exit::KIND));
    assert_eq!(codes.len(), 3 * runs as usize);
    for (&pid, &code) in &codes {
        let (exec, exit) = (only(&execs, pid), only(&exits, pid));
        assert_eq!((exit.number("code"), exit.number("signal")), (code, 0));
        assert_eq!(exec.number("start"), exit.number("start"));
        assert_eq!(exec.number("ppid"), u64::from(std::process::id()));
        assert!(exit.number("run_time") > 0 && exit.number("time") > exec.number("time"));
        assert_eq!(exit.number("ns_pid"), u64::from(pid));
    }
    assert_eq!(recording.lost(), []);
}

#[test]
fn arguments_arrive_as_the_new_program_sees_them_or_flagged_as_cut() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[exec::KIND]);
    let odd: [&[u8]; 4] = [b"two words", b"", b"a\nb\t\x1b[31m", b"\xff\xfe"];
    let mut command = Command::new("/bin/true");
    let odd_pid = run(command.args(odd.map(OsStr::from_bytes)));
    let long_pid = run(Command::new("/bin/true").arg("x".repeat(100_000)));
    let exact_pid =
        run(Command::new("/bin/true").arg("y".repeat(MAX_ARGS - "/bin/true\0".len() - 1)));
    let execs = recording.of(exec::KIND);
    let odd = only(&execs, odd_pid);
    assert_eq!(odd.text("args"), b"/bin/true\0two words\0\0a\nb\t\x1b[31m\0\xff\xfe\0");
    assert_eq!((odd.number("args_size"), odd.is_cut("args")), (34, false));
    let long = only(&execs, long_pid);
    assert_eq!((long.number("args_size"), long.is_cut("args")), (100_011, true));
    assert_eq!(long.text("args").len(), MAX_ARGS);
    assert!(long.text("args").starts_with(b"/bin/true\0xxx"));
    let exact = only(&execs, exact_pid);
    assert_eq!((exact.number("args_size"), exact.is_cut("args")), (MAX_ARGS as u64, false));
}

#[test]
fn scripts_memfds_and_deleted_files_are_told_apart() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[exec::KIND]);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();

    fs::write(root.join("a script"), "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(root.join("a script"), fs::Permissions::from_mode(0o755)).unwrap();
    let script_pid = run(Command::new("./a script").current_dir(&root));

    std::os::unix::fs::symlink("/bin/true", root.join("link")).unwrap();
    let link_pid = run(&mut Command::new(root.join("link")));

    let program = fs::read("/bin/true").unwrap();
    let memfd = rustix::fs::memfd_create("in memory", MemfdFlags::empty()).unwrap();
    fs::File::from(memfd.try_clone().unwrap()).write_all(&program).unwrap();
    // try_clone closes on exec, the original does not.
    let memfd_path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let memfd_pid = run(&mut Command::new(&memfd_path));

    copy_program("/bin/true", root.join("gone"));
    let mut gone = Command::new("/bin/sh");
    gone.args(["-c", "exec 9<gone; rm gone; exec /proc/self/fd/9"]).current_dir(&root);
    let gone_pid = run(&mut gone);

    let execs = recording.of(exec::KIND);
    let state = |event: &Event| FILE_STATE[usize::try_from(event.number("file_state")).unwrap()];
    let sh = fs::canonicalize("/bin/sh").unwrap();
    let script = only(&execs, script_pid);
    assert_eq!(script.text("path"), sh.as_os_str().as_bytes());
    assert_eq!(script.text("path_given"), b"./a script");
    assert_eq!(script.text("script"), root.join("./a script").as_os_str().as_bytes());
    assert_eq!(state(script), "present");

    let link = only(&execs, link_pid);
    let true_path = fs::canonicalize("/bin/true").unwrap();
    assert_eq!(link.text("path"), true_path.as_os_str().as_bytes());
    assert_eq!(link.text("path_given"), root.join("link").as_os_str().as_bytes());
    assert!(link.is_absent("script"));

    let memfd = only(&execs, memfd_pid);
    assert_eq!((memfd.text("path"), state(memfd)), (&b"memfd:in memory"[..], "memfd"));
    assert_eq!(memfd.text("path_given"), memfd_path.as_bytes());

    let gone: Vec<&Event> =
        execs.iter().filter(|event| event.number("pid") == u64::from(gone_pid)).collect();
    assert_eq!(gone.len(), 2, "the shell and what it becomes");
    assert_eq!(gone[1].text("path"), root.join("gone").as_os_str().as_bytes());
    assert_eq!(state(gone[1]), "deleted");
}

#[test]
fn a_process_of_many_threads_ends_once_and_each_thread_once() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[exit::KIND, thread_exit::KIND]);
    let script = "import os, threading\n\
                  for _ in range(7): threading.Thread(target=lambda: None).start()\n\
                  os._exit(5)";
    let pids: Vec<u32> =
        (0..20).map(|_| run(Command::new("/usr/bin/python3").args(["-S", "-c", script]))).collect();
    let (exits, threads) = (recording.of(exit::KIND), recording.of(thread_exit::KIND));
    for pid in pids {
        let exit = only(&exits, pid);
        assert_eq!((exit.number("code"), exit.number("signal")), (5, 0));
        assert_eq!(threads.iter().filter(|event| event.number("pid") == u64::from(pid)).count(), 8);
    }
}

#[test]
fn forks_and_signals_name_both_sides() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[fork::KIND, signal::KIND, exit::KIND]);
    let output = Command::new("/bin/sh")
        .args(["-c", "sleep 60 & echo $! $$; kill -TERM $!; wait $!"])
        .output()
        .unwrap();
    let numbers: Vec<u64> = String::from_utf8(output.stdout)
        .unwrap()
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let &[sleep, shell] = &numbers[..] else { panic!("{numbers:?}") };

    let forks = recording.of(fork::KIND);
    let fork: Vec<&Event> =
        forks.iter().filter(|event| event.number("child_pid") == sleep).collect();
    assert_eq!(fork.len(), 1);
    assert_eq!((fork[0].number("pid"), fork[0].number("child_ns_pid")), (shell, sleep));
    let signals = recording.of(signal::KIND);
    let term: Vec<&Event> =
        signals.iter().filter(|event| event.number("target_pid") == sleep).collect();
    assert_eq!(term.len(), 1);
    assert_eq!((term[0].number("pid"), term[0].number("number")), (shell, 15));
    assert_eq!(SIGNAL_ORIGIN[usize::try_from(term[0].number("origin")).unwrap()], "user");
    let exits = recording.of(exit::KIND);
    let exit = only(&exits, u32::try_from(sleep).unwrap());
    assert_eq!((exit.number("code"), exit.number("signal")), (0, 15));
    assert_eq!(exit.number("start"), fork[0].number("child_start"));
}

#[test]
fn no_process_can_pass_its_signals_off_as_the_kernels() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[signal::KIND]);
    let (pid, codes) = recording.run(&mut kernel::python(
        "
import ctypes, os, signal, struct, time
libc = ctypes.CDLL(None)
signal.signal(signal.SIGALRM, lambda *_: None)
for code in (-60, -1, -7, -100, -2147483648):
    info = struct.pack('iii', signal.SIGWINCH, 0, code) + bytes(116)
    assert libc.syscall(129, os.getpid(), signal.SIGWINCH, info) == 0 # rt_sigqueueinfo
    print(code)
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.1)
signal.raise_signal(signal.SIGALRM)
",
    ));
    let mut signals = recording.of(signal::KIND);
    signals.retain(|event| event.number("target_pid") == u64::from(pid));
    let said: Vec<(i64, &str)> = signals
        .iter()
        .map(|event| {
            let code = u32::try_from(event.number("code")).unwrap().cast_signed();
            (code.into(), event.name("origin"))
        })
        .collect();
    let mut expected: Vec<(i64, &str)> = codes.iter().map(|&code| (code, "user")).collect();
    // The timer, and the last one by tgkill.
    expected.extend([(0x80, "kernel"), (-6, "user")]);
    assert_eq!(said, expected);
}

#[test]
fn a_victim_of_the_out_of_memory_killer_is_named_with_its_memory() {
    let Some(_guard) = alone() else { return };
    let Some(limit) = kernel::MemoryLimit::new(24 << 20) else {
        skip("what the kernel kills for memory", "no memory cgroup can be made here");
        return;
    };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[oom::KIND]);
    let script = format!(
        "echo $$ > {}; exec /usr/bin/python3 -S -c 'x = b\"x\" * (64 << 20)'",
        limit.processes().display()
    );
    let pid = run(Command::new("/bin/sh").args(["-c", &script]));
    let ooms = recording.of(oom::KIND);
    let oom = only(&ooms, pid);
    assert!(
        oom.number("anon_rss") > 8 << 20 && oom.number("anon_rss") < 48 << 20,
        "{}",
        oom.number("anon_rss")
    );
    assert!(oom.number("total_vm") > 64 << 20);
    assert_eq!((oom.number("trigger_pid"), oom.number("oom_score_adj")), (u64::from(pid), 0));
}

#[test]
fn another_word_reloads_nothing_and_what_nobody_wants_is_gone() {
    let Some(_guard) = alone() else { return };
    let before = kernel::bpf_descriptors();
    let mut recording = Recording::open(RingSizes::default());
    let idle = kernel::bpf_descriptors();
    recording.probes.apply(&BTreeMap::from([(exec::KIND, ON_BIT)]).into()).unwrap();
    let programs = kernel::program_ids();
    assert_eq!(programs.len(), 1);
    let report =
        recording.probes.apply(&BTreeMap::from([(exec::KIND, all_fields())]).into()).unwrap();
    assert_eq!(report[&exec::KIND].hooks, ["raw_tracepoint:sched_process_exec"]);
    assert_eq!(kernel::program_ids(), programs);
    recording.want(&[exec::KIND, signal::KIND, exit::KIND]);
    let all = kernel::program_ids();
    assert!(all.is_superset(&programs) && all.len() == 3, "{all:?}");
    recording.want(&[]);
    assert_eq!(kernel::program_ids(), BTreeSet::new());
    assert_eq!(kernel::bpf_descriptors(), idle);
    let maps = kernel::map_ids();
    drop(recording);
    assert_eq!(kernel::bpf_descriptors(), before);
    kernel::assert_gone(&all, &maps);
}

/// Not a test: what the next one runs where probes cannot work.
#[test]
#[ignore = "run by where_probes_cannot_work_the_refusal_says_why"]
fn open_elsewhere() {
    let refusal = Probes::open(RingSizes::default()).err().map(|error| error.to_string());
    println!("refusal: {}", refusal.unwrap_or_default());
}

#[test]
fn where_probes_cannot_work_the_refusal_says_why() {
    let Some(_guard) = alone() else { return };
    let places: [(&[&str], &str); 3] = [
        (&["unshare", "--pid", "--fork", "--mount-proc"], "but /proc/self is 1"),
        (&["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"], "needs CAP_SYS_ADMIN"),
        (
            &["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /sys && exec \"$0\" \"$@\""],
            "cannot read /sys/kernel/btf/vmlinux",
        ),
    ];
    for (place, expected) in places {
        let output = Command::new(place[0])
            .args(&place[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["open_elsewhere", "--exact", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains(expected),
            "{place:?}: {said} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn hidden_processes_and_unwanted_kinds_give_no_events() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[exec::KIND, exit::KIND]);
    let hidden = recording.probes.hidden();
    let mut child =
        Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    hidden.hide(child.id()).unwrap();
    child.wait().unwrap();
    hidden.show(child.id());
    recording.want(&[exit::KIND]);
    let pid = run(&mut Command::new("/bin/true"));
    let (execs, exits) = (recording.of(exec::KIND), recording.of(exit::KIND));
    assert!(exits.iter().all(|event| event.number("pid") != u64::from(child.id())));
    assert!(execs.iter().all(|event| event.number("pid") != u64::from(pid)));
    only(&exits, pid);
}
