//! A running agent, and a load whose events are numbered.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Tipstaff, scrape, series, until, vm};

/// A running agent with a policy directory and a port for metrics.
pub struct Agent {
    /// The process.
    pub tipstaff: Tipstaff,
    /// Its directory of policies.
    pub policies: PathBuf,
    /// Where it serves metrics.
    pub metrics: String,
    configuration: PathBuf,
    name: String,
    _directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// One agent at a time: each sees the load that is meant for another, and counts it.
static ALONE: Mutex<()> = Mutex::new(());

impl Agent {
    /// Starts one with these policies, and these lines in its configuration.
    pub fn start(policies: &[&Path], configuration: &str) -> Self {
        Self::start_in("observe", policies, configuration)
    }

    /// The same in another mode.
    pub fn start_in(mode: &str, policies: &[&Path], configuration: &str) -> Self {
        Self::start_as(&format!("mode = {mode:?}\n"), policies, configuration)
    }

    /// The same with these lines in the section of the agent.
    pub fn start_as(own: &str, policies: &[&Path], configuration: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("policies");
        fs::create_dir(&folder).expect("a folder");
        for policy in policies {
            fs::copy(policy, folder.join(policy.file_name().expect("a file"))).expect("copied");
        }
        let file = directory.path().join("tipstaff.toml");
        // What others do at the same time would be lost as well, and not be told from ours.
        let ours = ["tally", "tally-more", "tally-urgent"]
            .map(|policy| {
                format!("[policy.{policy}.filter]\nunlink = \"path_given ^= {}/\"\n", numbered())
            })
            .concat();
        let name = format!("test-{}", std::process::id());
        let text = format!(
            "[agent]\n{own}name = {name:?}\npolicies = {:?}\ncache_dir = {:?}\nstate_dir = {:?}\nlatency = \"20ms\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n{}{ours}{configuration}",
            folder.display().to_string(),
            vm::cache(directory.path()).display().to_string(),
            directory.path().join("state").display().to_string(),
            vm::limits(),
        );
        fs::write(&file, text).expect("written");
        // With a terminal, a hang-up would be the end of the agent; and what was started to ignore it, as
        // by nohup, would not reload.
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP");
        if fs::File::open("/dev/tty").is_ok() {
            command.arg("setsid");
        }
        command.arg(env!("CARGO_BIN_EXE_tipstaff"));
        command.args(["--log-format", "json", "run", "--format", "json", "--config"]).arg(&file);
        let mut tipstaff = Tipstaff::start(command);
        let ready = tipstaff.wait_for_log(r#""message":"ready""#);
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
        let metrics = ready["metrics"].as_str().expect("an address");
        let metrics = metrics.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
        Self {
            tipstaff,
            policies: folder,
            metrics,
            configuration: file,
            name,
            _directory: directory,
            _alone: alone,
        }
    }

    /// Has the agent take over what it was started with and these lines. Returns what it said then.
    pub fn configure(&mut self, lines: &str) -> String {
        let text = fs::read_to_string(&self.configuration).expect("readable");
        let as_started = text.split_once("# new").map_or(&*text, |(before, _)| before);
        let text = format!("{as_started}# new\n{lines}");
        self.take_over(&text)
    }

    /// Has the agent take over its configuration with other words in the place of some. Returns what it
    /// said then.
    pub fn reword(&mut self, from: &str, to: &str) -> String {
        let text = fs::read_to_string(&self.configuration).expect("readable");
        self.take_over(&text.replace(from, to))
    }

    fn take_over(&mut self, text: &str) -> String {
        fs::write(&self.configuration, text).expect("written");
        let said = self.tipstaff.log.len();
        self.tipstaff.signal(Signal::HUP);
        self.tipstaff.wait_for_log("configuration taken over");
        self.tipstaff.log[said..].join("\n")
    }

    /// Runs a command of the operator for this agent; its exit code, standard output and error.
    pub fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tipstaff"))
            .args(arguments)
            .args(["--name", &self.name])
            .output()
            .expect("tipstaff runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Its configuration file.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// How often the policy made by hand came into this state.
    pub fn entered(&self, state: &str) -> u64 {
        let state = format!("state={state:?}");
        self.value("tipstaff_transitions_total", &[r#"policy="hand-made""#, &state])
    }

    /// The value of a series; 0 if there is none.
    pub fn value(&self, name: &str, labels: &[&str]) -> u64 {
        series(&scrape(&self.metrics), name, labels).unwrap_or(0)
    }

    /// Puts a file into its directory of policies.
    pub fn drop_in(&self, policy: &Path) {
        let name = policy.file_name().expect("a file").to_str().expect("UTF-8");
        self.put(name, &fs::read(policy).expect("readable"));
    }

    /// Puts a file of that name and content into its directory of policies, whole from the beginning.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let partial = self.policies.join(".partial");
        fs::write(&partial, bytes).expect("written");
        fs::rename(partial, self.policies.join(name)).expect("renamed");
    }

    /// Takes a file out of its directory of policies.
    pub fn remove(&self, policy: &Path) {
        fs::remove_file(self.policies.join(policy.file_name().expect("a file"))).expect("removed");
    }
}

/// Where the numbered files of this process would be.
fn numbered() -> String {
    format!("/tally/{}", std::process::id())
}

/// Removes N numbered files, which do not exist, as fast as it can.
pub fn tally_load(count: u64) -> JoinHandle<Duration> {
    let run = move || {
        let (start, files) = (Instant::now(), numbered());
        for number in 0..count {
            fs::remove_file(format!("{files}/{number}")).expect_err("there is no such file");
        }
        start.elapsed()
    };
    thread::Builder::new().name("tally-load".into()).spawn(run).expect("a thread")
}

/// Waits until all of a load is accounted for, and checks that nothing is missing or doubled.
pub fn check_tally(agent: &Agent, count: u64) {
    let (events, lost) = until("all of the load is delivered or counted as lost", || {
        let seen = scrape(&agent.metrics);
        let events = series(&seen, "tally_events_total", &[])?;
        let lost = series(&seen, "tally_lost_total", &[]).unwrap_or(0);
        (events + lost >= count).then_some((events, lost))
    });
    assert_eq!(events + lost, count, "{events} events and {lost} lost are not {count}");
    if lost == 0 {
        assert_eq!(agent.value("tally_sum_total", &[]), count * (count - 1) / 2);
    }
}

/// Numbered events as fast as the agent takes them, until it is told to stop; how many. Never more are under
/// way than its rings and queues have room for, however seldom it is let run.
pub fn full_load(agent: &Agent, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    const UNDER_WAY: u64 = 10_000;
    let (stop, metrics) = (Arc::clone(stop), agent.metrics.clone());
    thread::spawn(move || {
        let (mut number, files) = (0, numbered());
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..UNDER_WAY / 2 {
                fs::remove_file(format!("{files}/{number}")).expect_err("there is no such file");
                number += 1;
            }
            until("the agent keeps up", || {
                let seen = scrape(&metrics);
                let told = ["tally_events_total", "tally_lost_total"]
                    .map(|name| series(&seen, name, &[]).unwrap_or(0));
                (number - told.iter().sum::<u64>() <= UNDER_WAY / 2).then_some(())
            });
        }
        number
    })
}

/// So many numbered events each hundredth of a second, until it is told to stop; how many.
pub fn steady_load(stop: &Arc<AtomicBool>, many: u32) -> JoinHandle<u64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut number, files) = (0, numbered());
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..many {
                fs::remove_file(format!("{files}/{number}")).expect_err("there is no such file");
                number += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        number
    })
}
