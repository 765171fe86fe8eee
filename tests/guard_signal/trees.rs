//! A process and all that descend from it.

use super::*;

/// Five processes that make processes all the time, which end soon by themselves, unless their parent ends
/// before them: who gets away stays.
const FORKS: &str = "
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def churn():
    own = os.getpid()
    while True:
        if os.fork() == 0:
            time.sleep(0.02)
            while os.getppid() != own:
                time.sleep(600)
            os._exit(0)
        time.sleep(0.002)
for _ in range(4):
    if os.fork() == 0:
        churn()
churn()
";

fn in_cgroup(cgroup: &Cgroup) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.path().join("cgroup.procs")).expect("it is there");
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn a_tree_that_forks_meanwhile_is_killed_whole_and_nobody_else() {
    if !can_probe("a_tree_that_forks_meanwhile_is_killed_whole_and_nobody_else") {
        return;
    }
    let place = Place::new();
    let beside = place.cgroup.below("beside");
    let mut other = run_in(&beside, Path::new("/bin/sleep"), &["600"]);
    let mut agent = Agent::start_in("enforce", &[&fixture("signaller")], "");
    let mut root = place.run(Path::new("/usr/bin/python3"), &["-c", FORKS]);
    let settings = format!("tree = true\nothers = [{:?}]\n", root.named());
    grant(&mut agent, &place, &settings);
    until("they make processes", || (in_cgroup(&place.cgroup).len() > 10).then_some(()));
    let mut trigger = place.run(&place.program(), &["600"]);
    wait_for(&agent, "signal-tree", "done", 2);
    assert_eq!(trigger.ends().signal(), KILLED);
    assert_eq!(root.ends().signal(), KILLED);
    until("the tree is gone", || in_cgroup(&place.cgroup).is_empty().then_some(()));
    assert!(other.is_alive());
    let decisions = decisions(&agent);
    let of_root = decisions.iter().find(|d| d["target"]["pid"] == root.pid()).expect("one");
    let reason = of_root["reason"].as_str().unwrap();
    let count: usize = reason.strip_suffix(" processes").expect(reason).parse().expect("a number");
    assert!(count >= 5, "{reason}");
}

#[test]
fn what_is_there_already_goes_with_its_root_but_for_who_is_protected() {
    if !can_probe("what_is_there_already_goes_with_its_root_but_for_who_is_protected") {
        return;
    }
    let place = Place::new();
    let spared = place.directory.path().join("spared");
    copy_program("/bin/sleep", &spared);
    let program = place.program();
    for signal in ["KILL", "TERM"] {
        // The shell's children ignore nothing, and are none of each other.
        let script = format!(
            "/bin/sleep 600 & {spared} 600 & sh -c '/bin/sleep 600 & wait' & wait",
            spared = spared.display()
        );
        // The root is known only when it runs.
        let guard = format!("[guard]\nprotected = [{:?}]\n", spared.display().to_string());
        let mut agent = Agent::start_in("enforce", &[&fixture("signaller")], &guard);
        let mut root = place.run(Path::new("/bin/sh"), &["-c", &script]);
        let settings = format!(
            "tree = true\nsignal = {signal:?}\nmarked = \"601\"\nothers = [{:?}]\n",
            root.named()
        );
        grant(&mut agent, &place, &settings);
        let names = || {
            let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
            let pids = in_cgroup(&place.cgroup).into_iter();
            let mut names: Vec<_> =
                pids.filter_map(name).map(|name| name.trim().to_owned()).collect();
            names.sort();
            names
        };
        until("all are there", || {
            (names() == ["sh", "sh", "sleep", "sleep", "spared"]).then_some(())
        });
        let mut trigger = place.run(&program, &["601"]);
        trigger.ends();
        assert!(root.ends().signal().is_some());
        wait_for(&agent, "signal-tree", "done", 2);
        until("the others have ended", || (names() == ["spared"]).then_some(()));
        let decisions = decisions(&agent);
        let of_root = decisions.iter().find(|d| d["target"]["pid"] == root.pid()).expect("one");
        let reason = of_root["reason"].as_str().unwrap();
        assert!(reason.starts_with("4 processes, without 1 and what"), "{reason}");
        assert!(reason.contains("which is protected"), "{reason}");
        assert_eq!(of_root["tree"].as_array().map(Vec::len), Some(3), "{of_root:#}");
        let [spared] = in_cgroup(&place.cgroup)[..] else { panic!("one is left") };
        let spared = rustix::process::Pid::from_raw(i32::try_from(spared).unwrap()).unwrap();
        rustix::process::kill_process(spared, Signal::KILL).expect("ours");
        until("it has ended", || in_cgroup(&place.cgroup).is_empty().then_some(()));
    }
}
