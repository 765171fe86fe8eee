//! Budgets of cgroups in the kernel: one that makes very many events loses its own, and no others
//! lose theirs. Needs root: elsewhere each test says why it is skipped, except in CI, where it fails.

mod kernel;

use std::{
    collections::BTreeMap,
    process::{Child, Command},
    time::{Duration, Instant},
};

use kernel::{PYTHON, Recording, alone, cgroup::Cgroup, vm::rounds};
use tipstaff_events::{budget::MOST_BUCKETS, catalogue::unlink};
use tipstaff_runtime::{kind::Kinds, predicate::Predicate, probe::RingSizes, queue::Cause};

/// A budget that one process exceeds.
fn per_second() -> u32 {
    rounds(1_000)
}

/// The files of this test: what others do at the same time is not seen.
fn files() -> String {
    format!("/nowhere/{}/", std::process::id())
}

fn ours() -> Predicate {
    let condition = format!("path_given ^= {}", files());
    Predicate::parse(&condition, Kinds::built_in().named("unlink").unwrap()).unwrap()
}

/// A process in a cgroup that removes so many files that do not exist, with so many seconds in between.
fn remover(cgroup: &Cgroup, times: u32, pause: f64) -> Child {
    let script = format!(
        "import os, time\nfor i in range({times}):\n try: os.unlink('{}' + str(i))\n except OSError: pass\n \
         if {pause}: time.sleep({pause})",
        files()
    );
    cgroup.command(PYTHON).args(["-I", "-S", "-c", &script]).spawn().unwrap()
}

/// Until all have ended.
fn drain_while(recording: &mut Recording, children: &mut [Child]) {
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        recording.drain();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn events_by_cgroup(recording: &mut Recording) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for event in recording.of(unlink::KIND) {
        *found.entry(event.number("cgroup")).or_default() += 1;
    }
    found
}

#[test]
fn a_noisy_cgroup_loses_its_own_events_and_a_quiet_one_none() {
    const QUIET: u32 = 300;
    let Some(_guard) = alone() else { return };
    let often = rounds(40_000);
    let pause = 2.0 / f64::from(per_second());
    let (noisy, quiet) = (Cgroup::new(), Cgroup::new());
    let mut recording = Recording::open(RingSizes::default());
    recording.want_bounded(unlink::KIND, &ours(), Some(per_second()));
    let began = Instant::now();
    // Two at once: their CPUs take tokens out of the same bucket.
    let mut children =
        [remover(&noisy, often, 0.0), remover(&noisy, often, 0.0), remover(&quiet, QUIET, pause)];
    drain_while(&mut recording, &mut children);
    let took = began.elapsed();
    let events = events_by_cgroup(&mut recording);
    assert_eq!(events.get(&quiet.id()).copied(), Some(u64::from(QUIET)));
    let passed = events.get(&noisy.id()).copied().unwrap_or(0);
    let left_out = u64::from(2 * often) - passed;
    assert_eq!(recording.lost(), [(unlink::KIND, Cause::CgroupBudget, left_out)]);
    let spent = recording.probes.spent().unwrap();
    assert_eq!((spent.left_out, spent.unbounded), (vec![(noisy.id(), left_out)], 0));
    // A bucket full, and what came back meanwhile; each CPU may take one more when it is full.
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let back = u128::from(per_second()) * took.as_millis() / 1000 + u128::from(cpus);
    let most = u128::from(per_second()) + back;
    assert!((per_second().into()..=most).contains(&passed.into()), "{passed} in {took:?}");
}

#[test]
fn a_budget_comes_and_goes_and_comes_back_while_events_flow() {
    const TIMES: u32 = 60_000;
    let Some(_guard) = alone() else { return };
    let noisy = Cgroup::new();
    let mut recording = Recording::open(RingSizes { bulk: 64 << 20, ..RingSizes::default() });
    recording.want_bounded(unlink::KIND, &ours(), None);
    let programs = kernel::program_ids();
    let mut child = [remover(&noisy, TIMES, 0.0)];
    let mut changes = 0;
    while child[0].try_wait().unwrap().is_none() {
        let per_second = [Some(per_second()), None, Some(5 * per_second())][changes % 3];
        recording.want_bounded(unlink::KIND, &ours(), per_second);
        recording.drain();
        changes += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(changes > 5, "{changes} changes");
    assert!(kernel::program_ids().is_superset(&programs), "a program was loaded anew");
    let passed = events_by_cgroup(&mut recording).get(&noisy.id()).copied().unwrap_or(0);
    let lost: u64 = recording.lost().iter().map(|(.., count)| count).sum();
    assert_eq!(passed + lost, u64::from(TIMES));
    assert!(lost > 0 && recording.lost().iter().all(|lost| lost.1 == Cause::CgroupBudget));
}

#[test]
fn a_bucket_that_is_full_again_makes_room() {
    let Some(_guard) = alone() else { return };
    let mut recording = Recording::open(RingSizes::default());
    recording.want_bounded(unlink::KIND, &ours(), Some(per_second()));
    let cgroup = Cgroup::new();
    let times = 3 * per_second();
    for _ in 0..2 {
        drain_while(&mut recording, &mut [remover(&cgroup, times, 0.0)]);
        let spent = recording.probes.spent().unwrap().left_out;
        let (id, left_out) = spent[0];
        assert_eq!((spent.len(), id), (1, cgroup.id()));
        assert!(left_out > 0 && left_out <= u64::from(times - per_second()), "{left_out}");
        // It is taken out, and the second time counted anew.
        std::thread::sleep(Duration::from_millis(2_500));
        assert_eq!(recording.probes.spent().unwrap().left_out, []);
        assert_eq!(recording.probes.spent().unwrap().left_out, []);
    }
}

#[test]
fn where_there_is_no_room_for_a_bucket_events_pass_and_are_counted() {
    const CGROUPS: u32 = MOST_BUCKETS + 100;
    let Some(_guard) = alone() else { return };
    let above = Cgroup::new();
    for number in 0..CGROUPS {
        std::fs::create_dir(above.path().join(number.to_string())).unwrap();
    }
    let mut recording = Recording::open(RingSizes::default());
    // One token takes a second to come back: no bucket is full again meanwhile, or few.
    recording.want_bounded(unlink::KIND, &ours(), Some(1));
    let script = format!(
        "import os, sys\nfor name in range({CGROUPS}):\n open(f'{{sys.argv[1]}}/{{name}}/cgroup.procs', 'w').write('0')\n \
         for twice in range(2):\n  try: os.unlink('{}x')\n  except OSError: pass\n\
         open(sys.argv[1] + '/cgroup.procs', 'w').write('0')",
        files()
    );
    let mut child = Command::new(PYTHON);
    child.args(["-I", "-S", "-c", &script]).arg(above.path());
    drain_while(&mut recording, &mut [child.spawn().unwrap()]);
    let passed: u64 = events_by_cgroup(&mut recording).values().sum();
    let lost: u64 = recording.lost().iter().map(|(.., count)| count).sum();
    assert_eq!(passed + lost, u64::from(2 * CGROUPS));
    let spent = recording.probes.spent().unwrap();
    // Of those that have a bucket one passed, and of the others both.
    let without = u64::from(CGROUPS - MOST_BUCKETS);
    assert_eq!((spent.left_out.len(), lost), (MOST_BUCKETS as usize, MOST_BUCKETS.into()));
    assert_eq!(spent.unbounded, 2 * without);
}
