//! A process and all that descend from it.
//!
//! What forks while it is looked at is looked at again, until there is nothing new. A child whose
//! parent has ended is another's, and nobody can tell whose it was: so what is to be killed is stopped
//! first, the parents before their children, and killed when all of it stands still.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use super::signals::{Held, Missed, target};
use crate::{
    guard::{Reach, Signal, SignalAsk, Target},
    process::stat::{Stat, ticks},
    resolver::proc::pids,
};

/// Most processes that one action reaches.
const MOST: usize = 4096;
/// Most of them that its decision names.
const NAMED: usize = 64;
/// How long one action may look for more.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what sleeps and cannot be woken is waited for after nothing new was found.
const STILL: Duration = Duration::from_millis(50);
/// How long between two looks.
const PAUSE: Duration = Duration::from_micros(200);
/// Looks in a row that find nothing new, until that is believed: a list that changes while it is read may
/// miss one.
const LOOKS: u32 = 2;

/// A process of the tree: its number and start.
type Member = (u32, u64);

/// What is known of a tree.
#[derive(Default)]
struct Tree {
    /// The root first.
    members: Vec<Member>,
    /// The first of the others, as they were when they were found.
    named: Vec<Target>,
    /// What is not reached, nor what descends from it, and why.
    spared: Vec<(u32, String)>,
    is_whole: bool,
}

impl Tree {
    fn of(root: &SignalAsk) -> Self {
        Self { members: vec![(root.pid, ticks(root.start))], ..Self::default() }
    }

    /// Takes in who descends from it, as they all are now. Whether there is room for all of them.
    fn grow(&mut self, all: &HashMap<u32, Stat>, reach: &Reach<'_>) -> bool {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, stat) in all {
            children.entry(stat.parent).or_default().push(*pid);
        }
        let is_same = |(pid, start): Member| all.get(&pid).is_some_and(|s| s.start_ticks == start);
        let mut at = 0;
        while at < self.members.len() {
            let parent = self.members[at];
            at += 1;
            // Another process may have its number by now.
            if !is_same(parent) {
                continue;
            }
            for child in children.remove(&parent.0).unwrap_or_default() {
                let member = (child, all[&child].start_ticks);
                let is_known = self.members.contains(&member)
                    || self.spared.iter().any(|(spared, _)| *spared == child);
                if is_known || all[&child].has_ended() {
                    continue;
                }
                if let Err(why) = reach.check(child) {
                    // One that has ended meanwhile is no news.
                    if Stat::of_process(child).is_some() {
                        self.spared.push((child, why));
                    }
                } else if self.members.len() < MOST {
                    if self.named.len() < NAMED {
                        self.named.push(target(child));
                    }
                    self.members.push(member);
                } else {
                    return false;
                }
            }
        }
        true
    }

    /// Whether none of its threads can make another process. What sleeps and cannot be woken, as who waits
    /// for a child of `vfork` does, stops when it goes on: `sleeps` says that it was waited for.
    fn stands_still(&self, sleeps: bool) -> bool {
        let stands = |stat: &Stat| match stat.state {
            b'T' | b't' | b'Z' | b'X' | b'x' => true,
            b'D' => sleeps,
            _ => false,
        };
        self.members.iter().all(|(pid, start)| {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let mut threads = threads.filter_map(|thread| Stat::of(thread.path()).ok());
            threads.all(|thread| stands(&thread))
                || Stat::of_process(*pid).is_none_or(|stat| stat.start_ticks != *start)
        })
    }

    /// What is told of it: who is in it besides the root, and how much of it there is.
    fn told(self) -> (Vec<Target>, String) {
        let count = self.members.len();
        let processes = if count == 1 { "process" } else { "processes" };
        let spared = self.spared.first().map_or_else(String::new, |(pid, why)| {
            let spared = self.spared.len();
            format!(", without {spared} and what descends from them (process {pid}: {why})")
        });
        let more = if self.is_whole {
            ""
        } else {
            ", and there may be more: new ones came for as long as was looked"
        };
        let text = format!("{count} {processes}{spared}{more}");
        (self.named, text)
    }
}

fn all() -> HashMap<u32, Stat> {
    pids().filter_map(|pid| Some((pid, Stat::of_process(pid)?))).collect()
}

/// Who would be reached now. Nothing is sent to anybody.
pub(super) fn look(ask: &SignalAsk, reach: &Reach<'_>) -> (Vec<Target>, String) {
    let mut tree = Tree::of(ask);
    tree.is_whole = tree.grow(&all(), reach);
    tree.told()
}

/// Sends a signal to a process and all that descend from it. What is told of them; an error where not even
/// the process itself was reached.
pub(super) fn signal(
    ask: &SignalAsk,
    held: &Held,
    reach: &Reach<'_>,
) -> Result<(Vec<Target>, String), Missed> {
    let stops = ask.signal == Signal::Kill;
    let first = if stops { rustix::process::Signal::STOP } else { ask.signal.into() };
    let mut tree = Tree::of(ask);
    if !stops {
        // Whoever ends of it at once leaves children that are nobody's.
        tree.grow(&all(), reach);
    }
    held.send(first)?;
    for member in &tree.members[1..] {
        // Whoever has ended needs no signal.
        let _ = send(*member, first);
    }
    let begun = Instant::now();
    let (mut looks, mut newest) = (0, begun);
    loop {
        let before = tree.members.len();
        let has_room = tree.grow(&all(), reach);
        for member in &tree.members[before..] {
            let _ = send(*member, first);
        }
        if tree.members.len() > before {
            (looks, newest) = (0, Instant::now());
        } else if !stops || tree.stands_still(newest.elapsed() > STILL) {
            looks += 1;
        }
        tree.is_whole = looks >= LOOKS;
        if tree.is_whole || !has_room || begun.elapsed() > PATIENCE {
            break;
        }
        if tree.members.len() == before {
            thread::sleep(PAUSE);
        }
    }
    if stops {
        // Whatever becomes of one of them: nobody is left stopped.
        let killed = held.send(ask.signal.into());
        for member in &tree.members[1..] {
            let _ = send(*member, ask.signal.into());
        }
        killed?;
    }
    Ok(tree.told())
}

fn send((pid, start): Member, signal: rustix::process::Signal) -> Result<(), Missed> {
    Held::open(pid, |stat| stat.start_ticks == start)?.send(signal)
}
