use super::*;

fn exe(processes: &Processes, pid: u32, time: u64) -> Option<&[u8]> {
    processes.at(pid, time)?.image_at(time).exe.as_deref()
}

fn seen(pid: u32, start_ticks: u64, exe: &str) -> Seen {
    Seen { looked: 0, pid, parent: 1, start_ticks, exe: Some(exe.as_bytes().into()), args: None }
}

#[test]
fn an_event_sees_what_its_process_ran_at_its_time() {
    let mut processes = Processes::default();
    processes.seen(&seen(7, 1, "/bin/sh"));
    processes.fork(100, 7, 8, 50_000_000);
    processes.exec(200, 8, 50_000_000, 7, Some(b"/bin/ls"), None);
    assert_eq!(exe(&processes, 8, 150), Some(b"/bin/sh".as_slice()));
    assert_eq!(exe(&processes, 8, 200), Some(b"/bin/ls".as_slice()));
    assert_eq!(exe(&processes, 8, 99), None);
}

#[test]
fn a_reused_pid_does_not_hide_its_previous_owner() {
    let mut processes = Processes::default();
    processes.fork(10, 1, 8, 1_000);
    processes.exec(20, 8, 1_000, 1, Some(b"/old"), None);
    processes.exit(30, 8, 1_000, 1);
    processes.fork(40, 1, 8, 2_000);
    processes.exec(50, 8, 2_000, 1, Some(b"/new"), None);
    assert_eq!(exe(&processes, 8, 25), Some(b"/old".as_slice()));
    assert_eq!(exe(&processes, 8, 55), Some(b"/new".as_slice()));
    processes.expire(31 + KEEP_NS);
    assert_eq!(exe(&processes, 8, 25), None);
    assert_eq!(exe(&processes, 8, 55), Some(b"/new".as_slice()));
}

#[test]
fn what_proc_shows_fills_gaps_and_overwrites_nothing() {
    let mut processes = Processes::default();
    processes.exec(100, 8, 50_000_000, 7, Some(b"/bin/ls"), None);
    processes.seen(&seen(8, 5, "/bin/ls-from-proc"));
    assert_eq!(exe(&processes, 8, 100), Some(b"/bin/ls".as_slice()));
    processes.fork(100, 99, 9, 60_000_000);
    processes.seen(&seen(9, 6, "/bin/cat"));
    assert_eq!(exe(&processes, 9, 100), Some(b"/bin/cat".as_slice()));
}

#[test]
fn an_end_that_comes_before_the_look_at_proc_is_kept() {
    let mut processes = Processes::default();
    processes.exit(100, 8, 50_000_000, 1);
    processes.seen(&seen(8, 5, "/bin/cat"));
    let process = processes.at(8, 90).unwrap();
    assert_eq!(
        (process.ended(), process.image_at(90).exe.as_deref()),
        (Some(100), Some(b"/bin/cat".as_slice()))
    );
}

#[test]
fn an_ended_process_is_remembered_for_some_seconds_and_then_not() {
    let mut processes = Processes::default();
    processes.fork(10, 1, 8, 1_000);
    processes.exit(20, 8, 1_000, 1);
    processes.expire(20 + KEEP_NS);
    assert_eq!(processes.len(), 1);
    processes.expire(21 + KEEP_NS);
    assert_eq!(processes.len(), 0);
}

#[test]
fn ancestors_are_told_from_the_parent_up_and_outlive_the_parent() {
    let mut processes = Processes::default();
    processes.seen(&Seen { parent: 0, ..seen(1, 1, "/init") });
    processes.fork(10, 1, 2, 20_000_000);
    processes.exec(11, 2, 20_000_000, 1, Some(b"/bin/sh"), None);
    processes.fork(12, 2, 3, 30_000_000);
    processes.exec(13, 3, 30_000_000, 2, Some(b"/bin/ls"), None);
    let list = |processes: &Processes| {
        let mut list = Vec::new();
        processes.ancestors(processes.at(3, 20).unwrap(), 20, &mut list);
        list
    };
    assert_eq!(list(&processes), b"/bin/sh\0/init\0");
    processes.exit(14, 2, 20_000_000, 1);
    processes.expire(15 + KEEP_NS);
    assert_eq!(list(&processes), b"/bin/sh\0");
}

#[test]
fn the_table_is_bounded_and_counts_what_it_forgets() {
    let mut processes = Processes::default();
    let most = u32::try_from(MOST).unwrap();
    for pid in 0..most {
        processes.fork(10, 0, pid + 1, u64::from(pid));
    }
    processes.exit(20, 5, 4, 0);
    processes.fork(30, 0, most + 1, 9);
    processes.fork(30, 0, most + 2, 9);
    assert_eq!((processes.len(), processes.evicted()), (MOST, 2));
    assert!(processes.at(5, 20).is_none());
    assert!(processes.at(most + 1, 40).is_some());
    assert!(processes.at(most + 2, 40).is_none());
}

#[test]
fn processes_that_are_gone_when_all_are_seen_have_ended() {
    let mut processes = Processes::default();
    processes.fork(10, 1, 8, 1_000);
    processes.fork(50, 1, 9, 2_000);
    processes.seen_all(&[1].into(), 40, 60);
    assert_eq!(processes.at(8, 60).unwrap().ended(), Some(60));
    assert_eq!(processes.at(9, 60).unwrap().ended(), None);
}

#[test]
fn what_no_event_told_of_an_image_is_taken_from_proc() {
    let mut processes = Processes::default();
    // Nobody asked for arguments when it happened.
    processes.exec(100, 8, 50_000_000, 7, Some(b"/bin/ls"), None);
    processes.seen(&Seen { args: Some(b"ls\0".as_slice().into()), ..seen(8, 5, "/bin/ls") });
    let image = processes.at(8, 100).unwrap().image_at(100);
    assert_eq!(image.args.as_deref(), Some(b"ls\0".as_slice()));
}

#[test]
fn who_started_then_is_found_whoever_has_the_pid_now() {
    let mut processes = Processes::default();
    processes.exec(10, 7, 100 * TICK_NS + 3, 1, Some(b"/opener"), None);
    processes.exit(20, 7, 100 * TICK_NS + 3, 1);
    processes.fork(30, 1, 7, 200 * TICK_NS);
    processes.exec(31, 7, 200 * TICK_NS, 1, Some(b"/stranger"), None);
    let exe = |start| {
        processes.started(7, start, 40).and_then(|process| process.image_at(40).exe.clone())
    };
    assert_eq!(exe(100 * TICK_NS + 3).as_deref(), Some(&b"/opener"[..]));
    // As `/proc` tells it.
    assert_eq!(exe(100 * TICK_NS).as_deref(), Some(&b"/opener"[..]));
    assert_eq!(exe(200 * TICK_NS).as_deref(), Some(&b"/stranger"[..]));
    assert_eq!(exe(0).as_deref(), Some(&b"/stranger"[..]));
    assert_eq!(exe(150 * TICK_NS), None);
}

#[test]
fn an_exec_that_was_lost_is_found_by_looking() {
    let mut processes = Processes::default();
    let exe = |processes: &Processes, time| {
        let process = processes.at(7, time).unwrap();
        String::from_utf8_lossy(process.image_at(time).exe.as_deref().unwrap()).into_owned()
    };
    processes.exec(10, 1, 5 * TICK_NS, 0, Some(b"/bin/bash"), None);
    processes.fork(20, 1, 7, 9 * TICK_NS);
    // Its exec at 30 was lost. The same file under another root is no other file.
    processes.seen(&Seen { looked: 40, ..seen(7, 9, "/container/bin/bash") });
    assert_eq!(exe(&processes, 50), "/bin/bash");
    processes.seen(&Seen { looked: 40, ..seen(7, 9, "/usr/sbin/nginx") });
    assert_eq!(exe(&processes, 50), "/usr/sbin/nginx");
    assert_eq!(exe(&processes, 25), "/bin/bash");
    // It was only late: now its time is known.
    processes.exec(30, 7, 9 * TICK_NS, 1, Some(b"/usr/sbin/nginx"), None);
    assert_eq!(
        (exe(&processes, 35), exe(&processes, 25)),
        ("/usr/sbin/nginx".into(), "/bin/bash".into())
    );
    // What was seen before an event does not count against it.
    processes.exec(60, 7, 9 * TICK_NS, 1, Some(b"/bin/cat"), None);
    processes.seen(&Seen { looked: 55, ..seen(7, 9, "/usr/sbin/nginx") });
    assert_eq!(exe(&processes, 70), "/bin/cat");
}
