//! Tracepoints as kinds of their own on the running kernel. Needs root: elsewhere each test says why
//! it is skipped, except in CI, where it fails.

mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use kernel::{Recording, all_fields, alone, vm::rounds};
use tipstaff_events::wire::MAX_TEXT;
use tipstaff_runtime::{probe::RingSizes, queue::Cause, record::Span};

/// A call that nobody else makes.
const CALL: &str = "syscalls:sys_enter_sched_rr_get_interval";

/// A program that makes it that often.
fn calls(times: u64) -> Command {
    kernel::python(&format!("import os\nfor _ in range({times}): os.sched_rr_get_interval(0)"))
}

#[test]
fn a_tracepoint_is_a_kind_with_the_values_of_its_record() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let kind = recording.probes.tracepoint("sched:sched_process_exec", "execs").unwrap();
    recording.probes.apply(&BTreeMap::from([(kind.id, all_fields())]).into()).unwrap();
    let pids: BTreeSet<u32> =
        (0..20).map(|_| recording.run(&mut Command::new("/bin/true")).0).collect();
    assert_eq!(pids.len(), 20);
    for pid in pids {
        let events = recording.of_process(kind.id, pid);
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!(event.data(&kind, "filename"), b"/bin/true\0");
        assert_eq!(event.data(&kind, "tp_pid"), pid.to_ne_bytes());
        assert_eq!(event.data(&kind, "old_pid"), pid.to_ne_bytes());
        assert_eq!(event.bytes()[64..72], [0; 8], "the common part");
    }
    for (spec, expected) in [
        ("sched", "expected CATEGORY:NAME"),
        ("../sched:x", "expected CATEGORY:NAME"),
        ("sched:no_such", "this kernel has no such tracepoint"),
    ] {
        let error = recording.probes.tracepoint(spec, "x").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn delivered_and_lost_are_what_was_produced_when_a_ring_overflows() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes { bulk: 64 << 10, ..RingSizes::default() });
    let kind = recording.probes.tracepoint(CALL, "calls").unwrap();
    recording.probes.apply(&BTreeMap::from([(kind.id, all_fields())]).into()).unwrap();
    let produced = u64::from(rounds(200_000));
    let mut child = calls(produced).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        recording.drain();
        std::thread::sleep(Duration::from_millis(5));
    }
    let delivered = recording.of(kind.id).len() as u64;
    let lost = recording.lost();
    assert!(matches!(lost[..], [(id, Cause::RingFull, _)] if id == kind.id), "{lost:?}");
    assert_eq!(delivered + lost[0].2, produced);
    assert!(delivered > 0);
}

#[test]
fn a_ring_says_whether_something_is_in_it() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let kind = recording.probes.tracepoint(CALL, "calls").unwrap();
    recording.probes.apply(&BTreeMap::from([(kind.id, all_fields())]).into()).unwrap();
    for _ in 0..10 {
        assert!(!recording.has_unfinished());
        assert!(calls(7).status().unwrap().success());
        assert!(recording.has_unfinished());
        recording.drain();
    }
    assert!(!recording.has_unfinished());
    assert_eq!(recording.of(kind.id).len(), 70);
}

#[test]
fn a_string_that_is_longer_than_a_text_may_be_is_flagged_as_cut() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let kind = recording.probes.tracepoint("sched:sched_process_exec", "execs").unwrap();
    recording.probes.apply(&BTreeMap::from([(kind.id, all_fields())]).into()).unwrap();
    // The kernel puts `/dev/fd/N/` in front of a path that is relative to a descriptor.
    for (steps, whole) in [(10, true), (2041, true), (2042, false), (2045, false)] {
        let (pid, numbers) = recording.run(&mut kernel::python(&format!(
            "
import ctypes, os
libc = ctypes.CDLL(None)
folder = os.open('/bin', os.O_PATH)
print(folder, flush=True)
arguments = (ctypes.c_char_p * 2)(b'true', None)
libc.syscall(322, folder, b'./' * {steps} + b'true', arguments, None, 0)
os._exit(1)
"
        )));
        let path = format!("/dev/fd/{}/{}true", numbers[0], "./".repeat(steps));
        let events = recording.of_process(kind.id, pid);
        let last = events.last().unwrap();
        let kept = &path.as_bytes()[..path.len().min(MAX_TEXT)];
        assert_eq!(
            last.span(&kind, "filename"),
            Some(Span { bytes: kept, cut: !whole }),
            "{steps}"
        );
    }
}

/// An instance of tracefs, gone when dropped.
struct Instance {
    mount: tempfile::TempDir,
    folder: PathBuf,
}

impl Instance {
    fn new() -> Self {
        let mount = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tracefs", "tracefs"]).arg(mount.path());
        assert!(command.status().unwrap().success());
        let folder = mount.path().join(format!("instances/tipstaff-test-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self { mount, folder }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
        let _ = Command::new("umount").arg(self.mount.path()).status();
    }
}

#[test]
fn what_happens_in_an_interrupt_is_seen_whoever_is_interrupted() {
    let Some(_guard) = alone() else { return };
    let instance = Instance::new();
    let mut recording = Recording::open(RingSizes::default());
    let kind = recording.probes.tracepoint("irq_vectors:local_timer_entry", "ticks").unwrap();
    recording.probes.apply(&BTreeMap::from([(kind.id, all_fields())]).into()).unwrap();
    // A thread of our own: what it does itself is not reported.
    let (tell, told) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let own = fs::read_link("/proc/thread-self").unwrap();
        tell.send(own.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap();
        released.recv().unwrap();
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {}
    });
    let tid = told.recv().unwrap();
    let event = "events/irq_vectors/local_timer_entry";
    instance.write(&format!("{event}/filter"), &format!("common_pid == {tid}"));
    instance.write(&format!("{event}/enable"), "1");
    release.send(()).unwrap();
    thread.join().unwrap();
    instance.write(&format!("{event}/enable"), "0");
    let trace = fs::read_to_string(instance.folder.join("trace")).unwrap();
    let expected = trace.lines().filter(|line| line.contains("local_timer_entry:")).count();
    let mut events = recording.of(kind.id);
    events.retain(|event| event.number("tid") == tid);
    assert!(expected > 1, "{trace}");
    assert_eq!(events.len(), expected);
}

#[test]
fn our_own_system_calls_are_not_seen() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let kind = recording.probes.tracepoint("syscalls:sys_enter_getppid", "calls").unwrap();
    recording.probes.apply(&BTreeMap::from([(kind.id, all_fields())]).into()).unwrap();
    assert!(rustix::process::getppid().is_some());
    assert_eq!(recording.of_process(kind.id, std::process::id()).len(), 0);
}
