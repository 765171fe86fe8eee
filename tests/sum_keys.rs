//! Keys of aggregated kinds: how many there can be, whose they are, and when they go.

mod kernel;
#[path = "kernel/sums.rs"]
mod sums;

use std::{
    collections::BTreeSet,
    process::{Child, Command},
    sync::Arc,
    thread,
};

use aya::maps::{Map, MapData, MapInfo, PerCpuHashMap};
use kernel::{alone, python};
use sums::{Agent, EVERY, name, run_calls};
use tipstaff_events::aggregate::{CALLS, LATENCIES, Latency};

#[test]
fn a_process_that_ran_for_some_milliseconds_is_still_told_with_its_name() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start("syscall_stats");
    let plan = agent.plan(&["pid", "comm", "call", "count"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let mut pids = Vec::new();
    for _ in 0..100 {
        pids.push(run_calls(&["getppid", "1", "17"]));
    }
    // They are gone, and so are their keys, when this one runs.
    thread::sleep(4 * EVERY);
    run_calls(&["getppid", "1", "1"]);
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    let name = name();
    for pid in pids {
        let of_pid = [("pid", pid.as_str()), ("comm", &name), ("call", "getppid")];
        assert_eq!(rows.count(&of_pid), 17, "process {pid}");
        let ends = u64::from(kernel::sees_ends());
        assert_eq!(rows.count(&[("pid", &pid), ("call", "exit_group")]), ends);
    }
}

#[test]
fn calls_for_which_there_is_no_room_are_counted_as_lost() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start("syscall_stats");
    let plan = agent.plan(&["comm", "count"]);
    // Another one tells all calls apart, more than there is room for.
    let wide = agent.plan(&["number", "count"]);
    agent.want(&[&plan, &wide]);
    let member = agent.join(Arc::clone(&plan));
    run_calls(&["numbers", "4", "1000", "13000", "3"]);
    let (rows, lost) = agent.end(&member);
    let made = 4 * 12_000 * 3;
    let counted = rows.count(&[("comm", &name())]);
    assert!(lost > 0, "{counted} counted");
    // Others make calls as well, for which there may be no room either.
    assert!(counted <= made + 4 * 200, "{counted}");
    assert!(counted + lost >= made, "{counted} + {lost}");
}

/// The processes of the keys that a map of ours has.
fn pids_in(map: &str) -> BTreeSet<u32> {
    let ours = kernel::map_ids();
    let found = aya::maps::loaded_maps().filter_map(Result::ok);
    let info = found
        .filter(|info| ours.contains(&info.id()))
        .find(|info| info.name_as_str() == Some(map))
        .unwrap_or_else(|| panic!("there is no {map}"));
    let pids = |keys: Vec<u64>| {
        keys.into_iter().map(|key| u32::try_from(key & 0xffff_ffff).unwrap()).collect()
    };
    let data = Map::PerCpuHashMap(data(&info));
    if map == CALLS {
        let map = PerCpuHashMap::<_, u64, u64>::try_from(data).unwrap();
        pids(map.keys().map(Result::unwrap).collect())
    } else {
        let map = PerCpuHashMap::<_, u64, [u64; size_of::<Latency>() / 8]>::try_from(data).unwrap();
        pids(map.keys().map(Result::unwrap).collect())
    }
}

fn data(info: &MapInfo) -> MapData {
    MapData::from_id(info.id()).unwrap()
}

/// Short lives, each with keys of its own: many more than there is room for at a time.
#[test]
fn processes_that_have_ended_make_room_and_nothing_of_them_is_lost() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start("syscall_stats");
    agent.probes.limit_keys(4_096);
    let plan = agent.plan(&["pid", "comm", "call", "errno", "count", "timed"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let mut pids: Vec<String> = Vec::new();
    for _ in 0..10 {
        pids.extend((0..100).map(|_| run_calls(&["getppid", "1", "3"])));
        // Not later than there are more keys than there is room for.
        agent.probes.aggregates().read_now();
    }
    let ended: BTreeSet<u32> = pids.iter().map(|pid| pid.parse().unwrap()).collect();
    for map in [CALLS, LATENCIES] {
        let left: Vec<u32> = pids_in(map).intersection(&ended).copied().collect();
        assert!(left.is_empty(), "{map}: {left:?}");
    }
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    let keys: usize = pids.iter().map(|pid| rows.with(&[("pid", pid)]).count()).sum();
    assert!(keys > 2 * 4_096, "{keys}");
    let name = name();
    for pid in pids {
        let of_pid = [("pid", pid.as_str()), ("comm", &name), ("call", "getppid")];
        let all: Vec<_> = rows.with(&[("pid", &pid)]).collect();
        assert_eq!(rows.count(&of_pid), 3, "process {pid}: {all:?}");
    }
}

/// More keys than there is room for among the durations, and more processes than among those with names.
#[test]
fn keys_go_that_have_no_call_or_no_name() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start("syscall_stats");
    agent.probes.limit_keys(1_024);
    let plan = agent.plan(&["pid", "number", "count", "timed"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let mut children: Vec<Child> =
        (0..700).map(|_| Command::new("/bin/sleep").arg("100").spawn().unwrap()).collect();
    run_calls(&["numbers", "2", "1000", "3000", "2"]);
    let pids: BTreeSet<u32> = children.iter().map(Child::id).collect();
    agent.probes.aggregates().read_now();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    agent.probes.aggregates().read_now();
    for map in [CALLS, LATENCIES] {
        let left: Vec<u32> = pids_in(map).intersection(&pids).copied().collect();
        assert!(left.is_empty(), "{map}: {left:?}");
    }
    let (_, lost) = agent.end(&member);
    assert!(lost > 0);
}

/// A child makes 17 calls and ends; another one that gets its number makes 23 under another name and lives
/// on for a while. Prints the number where that succeeded.
const REUSE: &str = r"
import os, time
def child(calls, name, stay, wanted=None):
    pid = os.fork()
    if pid == 0:
        if wanted in (None, os.getpid()):
            if name:
                with open('/proc/self/comm', 'w') as comm: comm.write(name)
            for _ in range(calls): os.getppid()
            time.sleep(stay)
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
had = 0
for _ in range(400):
    first = child(17, 'predecessor', 0)
    with open('/proc/sys/kernel/ns_last_pid', 'w') as last: last.write(str(first - 1))
    if child(23, None, 0.4, first) == first:
        print(first)
        had += 1
        if had == 4: break
";

#[test]
fn who_gets_the_number_of_another_is_told_by_its_own_name() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start("syscall_stats");
    let plan = agent.plan(&["pid", "comm", "call", "count"]);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let output = python(REUSE).output().unwrap();
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    assert!(output.status.success(), "{output:?}");
    let pids: BTreeSet<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(!pids.is_empty(), "no number could be had again");
    for pid in pids {
        let count = |comm| rows.count(&[("pid", &pid), ("comm", comm), ("call", "getppid")]);
        let (own, before) = (count("python3"), count("predecessor"));
        // What was not read of the one before when the next one began is told with it.
        assert_eq!((own + before) % 40, 0, "{own} and {before}");
        assert!(own >= 23 && before <= 17, "process {pid}: {own} and {before}");
    }
}
