//! Several guards, modes, and what is left when they are gone.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tipstaff_events::catalogue::denied;
use tipstaff_runtime::{
    guard::GuardMode,
    probe::{Counted, RingSizes},
};

use super::{
    Caller, EPERM, Guarded, count,
    kernel::{
        Recording, alone, assert_gone, bpf_descriptors, cgroup::Cgroup, here, map_ids, program_ids,
        vm,
    },
    sum, table,
};

#[test]
fn one_that_denies_is_enough_above_below_or_beside() {
    let Some(_alone) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want(&[denied::KIND]);
    let above = Cgroup::new();
    let below = above.below("below");
    let beside = above.below("beside");
    let mut guards = [(&above, "127.0.0.1"), (&below, "127.0.0.2"), (&below, "127.0.0.3")]
        .into_iter()
        .zip(0..)
        .map(|((cgroup, address), number)| {
            let mut guard =
                recording.probes.guard_network(cgroup.path(), number, GuardMode::Enforce).unwrap();
            // What the others allow widens nothing.
            let text = format!("default allow\ndeny any any {address}\nallow any any 127.0.0.0/8");
            guard.install(&table(&text)).unwrap();
            guard
        })
        .collect::<Vec<_>>();
    let mut callers = [Caller::new(&above), Caller::new(&below), Caller::new(&beside)];
    let mut results = |address: u8| {
        callers.each_mut().map(|caller| caller.call(&format!("connect udp 127.0.0.{address} 9")))
    };
    assert_eq!(results(1), [EPERM; 3]);
    assert_eq!(results(2), [0, EPERM, 0]);
    assert_eq!(results(3), [0, EPERM, 0]);
    assert_eq!(results(4), [0; 3]);
    let counts: Vec<u64> = guards.iter().map(|guard| sum(guard, |count| count.denied)).collect();
    assert_eq!(counts, [3, 1, 1]);
    let told: Vec<(u64, u64)> = recording
        .of(denied::KIND)
        .iter()
        .map(|event| (event.number("guard"), event.number("scope")))
        .collect();
    let (a, b) = (above.id(), below.id());
    assert_eq!(told, [(0, a), (0, a), (0, a), (1, b), (2, b)]);
    // One that is in audit allows for itself only.
    guards[1].set_mode(GuardMode::Audit).unwrap();
    assert_eq!(results(2), [0; 3]);
    assert_eq!(results(3), [0, EPERM, 0]);
    guards.remove(2);
    assert_eq!(results(3), [0; 3]);
    assert_eq!(results(1), [EPERM; 3]);
}

#[test]
fn in_audit_everything_goes_on_and_all_that_would_fail_is_told() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Audit, "default deny\nallow connect any 127.0.0.8");
    let mut inside = Caller::new(&guarded.cgroup);
    let calls = ["connect udp 127.0.0.7 9", "sendto udp 127.0.0.7 9", "bind tcp 127.0.0.7 0"];
    for _ in 0..5 {
        for line in calls {
            assert_eq!(inside.call(line), 0, "{line}");
        }
        assert_eq!(inside.call("connect udp 127.0.0.8 9"), 0);
    }
    let found = count(&guarded.guard, Counted::Default);
    assert_eq!((found.denied, found.would_deny, found.suppressed), (0, 15, 0));
    let events = guarded.events();
    assert_eq!(events.len(), 15);
    assert!(events.iter().all(|event| event.name("verdict") == "would_deny"));
    guarded.guard.set_mode(GuardMode::Enforce).unwrap();
    assert_eq!(inside.call(calls[0]), EPERM);
    let found = count(&guarded.guard, Counted::Default);
    assert_eq!((found.denied, found.would_deny), (1, 15));
    guarded.guard.set_mode(GuardMode::Audit).unwrap();
    assert_eq!(inside.call(calls[0]), 0);
}

/// Whether bpftool finds so many programs attached to the cgroup. It asks in a way that Linux has since
/// 6.0; before, the programs' ids must do.
fn assert_attached(cgroup: &Cgroup, expected: usize) {
    if vm::release() < (6, 0) {
        return;
    }
    let output =
        Command::new("bpftool").args(["cgroup", "show"]).arg(cgroup.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("guard_").count(), expected, "{text}");
}

/// The maps of the machine. One of another process may go while they are listed.
fn loaded_maps() -> impl Iterator<Item = aya::maps::MapInfo> {
    aya::maps::loaded_maps().filter_map(Result::ok)
}

#[test]
fn a_guard_that_is_dropped_leaves_nothing_and_copies_of_its_links_hold_it() {
    let Some(_alone) = alone() else { return };
    let cgroup = Cgroup::new();
    let mut recording = Recording::open(RingSizes::default());
    // The first one makes the maps that all objects share.
    drop(recording.probes.guard_network(cgroup.path(), 1, GuardMode::Audit).unwrap());
    let (descriptors, programs) = (bpf_descriptors(), program_ids());
    // Ours, also those that all objects share and that no descriptor is open for.
    let maps: BTreeSet<u32> = loaded_maps().map(|map| map.id()).collect();
    let mut inside = Caller::new(&cgroup);
    for keep in [false, true] {
        let mut guard =
            recording.probes.guard_network(cgroup.path(), 1, GuardMode::Enforce).unwrap();
        assert_eq!(inside.call("connect udp 127.0.0.7 9"), 0, "there is no table yet");
        guard.install(&table("default allow\ndeny connect any 127.0.0.7")).unwrap();
        assert_attached(&cgroup, 6);
        let new = |now: BTreeSet<u32>, before| &now - before;
        let (programs, maps) = (new(program_ids(), &programs), new(map_ids(), &maps));
        let mut names: Vec<String> = loaded_maps()
            .filter(|map| maps.contains(&map.id()))
            .map(|map| map.name_as_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(
            (programs.len(), names),
            (
                6,
                [".rodata", "CONTROL", "COUNTS", "KNOWN", "NODES", "PATH", "UNDER_WAY"]
                    .map(String::from)
                    .into()
            )
        );
        let mut links: Vec<OwnedFd> = Vec::new();
        if keep {
            links.extend(guard.links().map(|link| link.try_clone_to_owned().unwrap()));
        }
        drop(guard);
        if keep {
            assert_attached(&cgroup, 6);
            assert_eq!(inside.call("connect udp 127.0.0.7 9"), EPERM);
            drop(links);
        }
        assert_attached(&cgroup, 0);
        assert_eq!(inside.call("connect udp 127.0.0.7 9"), 0);
        assert_gone(&programs, &maps);
        assert_eq!(bpf_descriptors(), descriptors);
    }
}

#[test]
fn what_a_table_before_counted_is_not_lost_and_fails_no_table_that_is_in_force() {
    let Some(_alone) = alone() else { return };
    let mut guarded = Guarded::new(GuardMode::Enforce, "default allow\ndeny connect any 127.0.0.7");
    let mut inside = Caller::new(&guarded.cgroup);
    for _ in 0..3 {
        assert_eq!(inside.call("connect udp 127.0.0.7 9"), EPERM);
    }
    // From now on nobody but programs can write to the counts.
    let ours = map_ids();
    let counts = loaded_maps()
        .find(|map| map.name_as_str() == Some("COUNTS") && ours.contains(&map.id()))
        .unwrap();
    let id = counts.id().to_string();
    let frozen = Command::new("bpftool").args(["map", "freeze", "id", &id]).output().unwrap();
    assert!(frozen.status.success(), "{frozen:?}");
    let text = "default allow\ndeny connect any 127.0.0.8\ndeny connect any 127.0.0.7";
    guarded.guard.install(&table(text)).unwrap();
    for (address, rule, denied) in [("127.0.0.8", 0, 1), ("127.0.0.7", 1, 4)] {
        assert_eq!(inside.call(&format!("connect udp {address} 9")), EPERM);
        assert_eq!(count(&guarded.guard, Counted::Rule(rule)).denied, denied);
    }
    assert_eq!(guarded.denied(), 5);
    let error = guarded.guard.install(&table("default allow")).unwrap_err().to_string();
    assert!(error.contains("what a table before counted: "), "{error}");
    assert_eq!(inside.call("connect udp 127.0.0.8 9"), EPERM, "the table is still in force");
    assert_eq!(guarded.denied(), 6);
}

#[test]
fn a_cgroup_that_is_removed_takes_its_guard_off_and_nothing_else_happens() {
    let Some(_alone) = alone() else { return };
    let Guarded { mut guard, mut recording, cgroup } =
        Guarded::new(GuardMode::Enforce, "default deny");
    drop(cgroup);
    // The kernel says of each link where it is attached.
    let is_off = |link: BorrowedFd<'_>| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).unwrap();
        info.lines().any(|line| line.split_whitespace().eq(["cgroup_id:", "0"]))
    };
    let end = Instant::now() + here::PATIENCE;
    while !guard.links().all(is_off) {
        assert!(Instant::now() < end, "a link is still attached");
        thread::sleep(Duration::from_millis(10));
    }
    guard.install(&table("default allow")).unwrap();
    assert_eq!(sum(&guard, |count| count.denied), 0);
    drop(guard);
    assert!(recording.of(denied::KIND).is_empty());
}

#[test]
fn what_is_no_cgroup_is_refused_by_name() {
    let Some(_alone) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    let mut message = |path: &str| {
        let Err(error) = recording.probes.guard_network(path.as_ref(), 1, GuardMode::Audit) else {
            panic!("{path} is guarded")
        };
        error.to_string()
    };
    let mount = tipstaff_runtime::mountinfo::cgroup_v2().unwrap();
    assert_eq!(
        message("/tmp"),
        format!(
            "cannot guard the cgroup /tmp: it is not in the v2 hierarchy, which is mounted at {}",
            mount.display()
        )
    );
    let missing = mount.join("tipstaff-test-missing");
    assert_eq!(
        message(missing.to_str().unwrap()),
        format!(
            "cannot guard the cgroup {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
}
