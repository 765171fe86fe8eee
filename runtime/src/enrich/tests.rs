use crossbeam_channel::{Receiver, bounded};
use tipstaff_events::sample::Sample;

use super::*;
use crate::process::Seen;

const ID: &str = "4f1c5b1e0d7b5a2c9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d";

fn tables() -> (Tables, Receiver<Request>) {
    let (requests, asked) = bounded(4);
    (Tables::new(Some(requests)), asked)
}

fn subject(time: u64) -> Subject {
    Subject { time, pid: 7, start: 0, uid: 5, cgroup: 1, cgroup_v1: 9, sample: Sample::ALL }
}

fn text(tables: &mut Tables, field: Enriched, time: u64) -> Option<String> {
    let found = Lookup::new(tables, None).text(field, &subject(time)).map(<[u8]>::to_vec);
    found.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn misses(tables: &Tables, field: &str) -> Vec<(&'static str, u64)> {
    let all = tables.misses().iter().filter(|(name, _, count)| *name == field && *count > 0);
    all.map(|(_, reason, count)| (reason, count)).collect()
}

fn path(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

#[test]
fn what_is_not_known_is_asked_for_once_and_counted_by_reason() {
    let (mut tables, asked) = tables();
    for time in 0..3 {
        assert_eq!(text(&mut tables, Enriched::UserName, time), None);
    }
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [Request::User(5)]);
    tables.learn(Answer::User(5, None), 10);
    assert_eq!(text(&mut tables, Enriched::UserName, 11), None);
    assert_eq!(misses(&tables, "user.name"), [("not_yet", 3), ("gone", 1)]);
    assert_eq!(text(&mut tables, Enriched::UserName, 11 + ASK_AGAIN_NS), None);
    assert_eq!(asked.try_iter().count(), 1, "asked again after a while");
    tables.learn(Answer::User(5, Some(path("me"))), 12);
    assert_eq!(text(&mut tables, Enriched::UserName, 13).as_deref(), Some("me"));
}

#[test]
fn a_resolver_with_too_many_questions_is_left_alone() {
    let (mut tables, asked) = tables();
    for pid in 0..10 {
        let subject = Subject { pid, ..subject(1) };
        assert_eq!(Lookup::new(&mut tables, None).text(Enriched::ProcExe, &subject), None);
    }
    assert_eq!(asked.len(), 4);
    assert_eq!(misses(&tables, "proc.exe"), [("not_yet", 4), ("busy", 6)]);
}

#[test]
fn a_container_is_found_by_the_v1_cgroup_where_the_v2_one_tells_nothing() {
    let (mut tables, _asked) = tables();
    tables.learn(Answer::Cgroup(CgroupId::V2(1), Some(path("/"))), 0);
    tables.learn(Answer::Cgroup(CgroupId::V1(9), Some(path(&format!("/docker/{ID}")))), 0);
    assert_eq!(text(&mut tables, Enriched::CgroupPath, 1).as_deref(), Some("/"));
    assert_eq!(text(&mut tables, Enriched::ContainerId, 1).as_deref(), Some(ID));
    assert_eq!(text(&mut tables, Enriched::ContainerRuntime, 1).as_deref(), Some("docker"));
    tables.learn(Answer::Cgroup(CgroupId::V1(9), Some(path("/user.slice"))), 0);
    assert_eq!(text(&mut tables, Enriched::ContainerId, 1), None);
    assert_eq!(misses(&tables, "container.id"), [("none", 1)]);
}

#[test]
fn the_v1_and_the_v2_cgroup_of_one_number_are_two() {
    let (mut tables, _asked) = tables();
    tables.learn(Answer::Cgroup(CgroupId::V1(1), Some(path("/wrong"))), 0);
    assert_eq!(text(&mut tables, Enriched::CgroupPath, 1), None);
}

#[test]
fn a_kernel_thread_that_runs_no_file_is_not_asked_for_at_every_event() {
    let (mut tables, asked) = tables();
    let thread =
        Seen { looked: 1, pid: 7, parent: 2, start_ticks: 1, exe: None, args: Some([].into()) };
    tables.learn(Answer::Process(thread), 0);
    for time in 1..10 {
        assert_eq!(text(&mut tables, Enriched::ProcExe, time), None);
    }
    assert_eq!(asked.len(), 0);
    assert_eq!(
        Lookup::new(&mut tables, None).number(Enriched::ProcParentPid, &subject(1)),
        Some(2)
    );
}

#[test]
fn what_came_with_an_event_goes_before_the_tables() {
    let (mut tables, asked) = tables();
    tables.learn(Answer::User(5, Some(path("table"))), 0);
    let mut given = Given::default();
    given.set(Enriched::UserName, GivenValue::Bytes(b"given".to_vec()));
    given.set(Enriched::WallTime, GivenValue::Number(3));
    let mut lookup = Lookup::new(&mut tables, Some(&given));
    assert_eq!(lookup.text(Enriched::UserName, &subject(1)), Some(b"given".as_slice()));
    assert_eq!(lookup.number(Enriched::WallTime, &subject(1)), Some(3));
    assert_eq!(asked.len(), 0);
}

#[test]
fn wall_clock_time_is_the_time_of_the_event_and_an_offset() {
    let (mut tables, _asked) = tables();
    tables.set_wall_offset(-5);
    assert_eq!(Lookup::new(&mut tables, None).number(Enriched::WallTime, &subject(12)), Some(7));
    let mut without = Tables::new(None);
    assert_eq!(Lookup::new(&mut without, None).number(Enriched::WallTime, &subject(12)), None);
}
