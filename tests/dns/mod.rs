//! A guarded scope in a network of the test's own.

mod world;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tipstaff_events::catalogue::{dns_answer, dns_query};
use tipstaff_runtime::{
    dns::{
        Answer, Counts, Doors, Flow, Judge, Limits, Proxy, Question, Ruling, Transport, Verdict,
    },
    plan::Wanted,
    probe::{DnsCalls, DnsGuard, RingSizes},
};
use tokio::sync::oneshot;

use crate::kernel::{self, Event, Recording, cgroup::Cgroup};
pub use world::World;
use world::{SOON, wait_for};

/// Python that all scripts begin with: queries of type A, and messages as TCP frames them.
pub const PRELUDE: &str = "
import socket, struct
socket.setdefaulttimeout(10)
INET, INET6, UDP, TCP = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM, socket.SOCK_STREAM
def id(number):
    return struct.pack('!H', number)
def query(number, name):
    labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.'))
    return id(number) + struct.pack('!5H', 0x100, 1, 0, 0, 0) + labels + b'\\0' + struct.pack('!2H', 1, 1)
def framed(message):
    return struct.pack('!H', len(message)) + message
def message(stream):
    return stream.read(struct.unpack('!H', stream.read(2))[0])
";

pub fn python_arguments(script: &str) -> Vec<String> {
    [kernel::PYTHON, "-I", "-S", "-c", script].map(str::to_owned).into()
}

pub fn python(script: &str) -> Command {
    let arguments = python_arguments(script);
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]);
    command
}

pub fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

/// Refuses `refused.test` and all below, and takes its time for `slow` and all below.
#[derive(Default)]
pub struct ListJudge {
    learned: Mutex<BTreeMap<String, Vec<String>>>,
}

impl ListJudge {
    /// Addresses by the name that was asked for, each once.
    pub fn learned(&self) -> BTreeMap<String, Vec<String>> {
        self.learned.lock().unwrap().clone()
    }
}

/// The judge, which the test looks at too.
struct Shared(Arc<ListJudge>);

impl Judge for Shared {
    async fn judge(&self, question: &Question, _: &Flow) -> Ruling {
        if question.name.starts_with("slow.") {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        if question.name == "refused.test" || question.name.ends_with(".refused.test") {
            Verdict::Refuse.into()
        } else {
            Verdict::Allow.into()
        }
    }

    fn answered(&self, question: &Question, answer: &Answer, _: &Flow) {
        let mut learned = self.0.learned.lock().unwrap();
        let known = learned.entry(question.name.clone()).or_default();
        known.extend(answer.addresses.iter().map(ToString::to_string));
        known.sort();
        known.dedup();
    }
}

#[derive(Clone, Copy)]
pub struct Settings {
    pub limits: Limits,
    pub on_proxy_death: Verdict,
    pub elsewhere: Verdict,
}

impl Default for Settings {
    fn default() -> Self {
        // The machine may be busy: a judge that decides at once is not late before this.
        let limits = Limits { decide: Duration::from_secs(2), ..Limits::default() };
        Self { limits, on_proxy_death: Verdict::Refuse, elsewhere: Verdict::Refuse }
    }
}

/// A door of the proxy.
#[derive(Clone, Copy)]
pub struct Door {
    pub tcp: bool,
    pub address: SocketAddr,
}

/// A scope with a guard, and the proxy on a thread.
pub struct Guarded {
    pub scope: Cgroup,
    pub judge: Arc<ListJudge>,
    pub doors: Vec<Door>,
    recording: Recording,
    guard: Option<DnsGuard>,
    counts: Arc<Counts>,
    proxy: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    folder: PathBuf,
    resolvers: BTreeMap<String, PathBuf>,
}

impl Guarded {
    pub fn new(world: &World, settings: Settings) -> Self {
        let mut recording = Recording::open(RingSizes::default());
        let wanted: Wanted = [dns_query::KIND, dns_answer::KIND]
            .map(|kind| (kind, kernel::all_fields()))
            .into_iter()
            .collect();
        recording.probes.apply(&wanted.into()).unwrap();
        let scope = Cgroup::new();
        let doors = Doors::open().unwrap();
        let addresses = doors.addresses().unwrap();
        let Settings { limits, on_proxy_death, elsewhere } = settings;
        let guard =
            recording.probes.guard_dns(scope.path(), &doors, on_proxy_death, elsewhere).unwrap();
        let judge = Arc::<ListJudge>::default();
        let handover = recording.probes.handover();
        let proxy = Proxy::new(Shared(Arc::clone(&judge)), limits, guard.flows(), handover);
        let counts = proxy.counts();
        let (stop, stopped) = oneshot::channel();
        let (started, starts) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async {
                let serving = proxy.serve(doors);
                started.send(()).unwrap();
                tokio::select! {
                    ended = serving => panic!("the proxy has ended: {ended:?}"),
                    _ = stopped => {}
                }
            });
        });
        starts.recv().unwrap();
        let resolvers = ["127.0.0.53", "fd00::53"]
            .map(|server| (server.to_owned(), world.resolv_conf(server)))
            .into();
        let guarded = Self {
            scope,
            judge,
            doors: addresses
                .into_iter()
                .map(|(transport, address)| Door { tcp: transport == Transport::Tcp, address })
                .collect(),
            recording,
            guard: Some(guard),
            counts,
            proxy: Some((stop, thread)),
            folder: world.path().to_owned(),
            resolvers,
        };
        guarded.wait_until_alive();
        guarded
    }

    /// The proxy shows life as soon as its thread runs.
    fn wait_until_alive(&self) {
        let guard = self.guard.as_ref().unwrap();
        wait_for(|| guard.has_proxy());
    }

    /// Runs a program to its end, and what it printed. What it does is drained meanwhile.
    pub fn run(&mut self, command: &mut Command) -> String {
        let (_, status, output) = self.finish(command);
        assert_eq!(status, 0, "{command:?}: {output}");
        output
    }

    /// The exit code of a program.
    pub fn status(&mut self, command: &mut Command) -> i32 {
        self.finish(command).1
    }

    fn finish(&mut self, command: &mut Command) -> (u32, i32, String) {
        let output = self.folder.join("output");
        let file = fs::File::create(&output).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(file).spawn().unwrap();
        let end = Instant::now() + 3 * SOON;
        let status = loop {
            self.recording.drain();
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                child.kill().unwrap();
                panic!("{command:?} does not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        self.recording.drain();
        (child.id(), status.code().unwrap_or(-1), fs::read_to_string(output).unwrap())
    }

    /// Runs a program; its pid, and the numbers that it printed.
    pub fn numbers(&mut self, command: &mut Command) -> (u32, Vec<i64>) {
        let (pid, status, output) = self.finish(command);
        assert_eq!(status, 0, "{output}");
        (pid, output.split_whitespace().map(|number| number.parse().unwrap()).collect())
    }

    /// Runs Python in the scope; its pid, and the numbers that it printed.
    pub fn python(&mut self, script: &str) -> (u32, Vec<i64>) {
        let arguments = python_arguments(script);
        let mut command = self.scope.command(&arguments[0]);
        command.args(&arguments[1..]);
        self.numbers(&mut command)
    }

    /// Begins a command in the scope that asks this server.
    pub fn with_resolver(&self, server: &str) -> Command {
        let mut command = self.scope.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!(
            "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
            self.resolvers[server].display()
        ));
        command
    }

    pub fn events(&mut self, kind: u16) -> Vec<Event> {
        self.recording.of(kind)
    }

    pub fn lost(&mut self, kind: u16) -> u64 {
        self.recording.lost().iter().filter(|lost| lost.0 == kind).map(|lost| lost.2).sum()
    }

    /// Waits for something while events are drained.
    pub fn wait(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
        wait_for(|| {
            self.recording.drain();
            condition(self)
        });
    }

    /// All that the proxy counts.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    pub fn calls(&self) -> DnsCalls {
        self.guard.as_ref().unwrap().calls().unwrap()
    }

    /// Ends the proxy with all that is under way; the guard stays.
    pub fn kill_proxy(&mut self) {
        if let Some((stop, thread)) = self.proxy.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    pub fn remove_guard(&mut self) {
        self.guard = None;
    }

    /// Ends all but the scope.
    pub fn end(mut self) -> Cgroup {
        self.kill_proxy();
        let Self { scope, .. } = self;
        scope
    }
}

/// What an event says.
pub trait Client {
    fn question(&self) -> (String, String);
    fn server(&self) -> String;
    fn comm(&self) -> String;
}

impl Client for Event {
    /// Type and name.
    fn question(&self) -> (String, String) {
        let text = |field| String::from_utf8(self.text(field).to_vec()).unwrap();
        (text("record_type"), text("name"))
    }

    fn server(&self) -> String {
        let address = Ipv6Addr::from(self.address("address"));
        address.to_ipv4_mapped().map_or_else(|| address.to_string(), |address| address.to_string())
    }

    fn comm(&self) -> String {
        let at = usize::from(self.field("comm").offset);
        String::from_utf8_lossy(&self.bytes()[at..at + 16]).trim_end_matches('\0').to_owned()
    }
}

/// Programs that are attached to a cgroup, as `bpftool` lists them.
pub fn attached(scope: &Cgroup) -> usize {
    let mut command = Command::new("bpftool");
    let output = command.args(["cgroup", "show"]).arg(scope.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains("dns_")).count()
}

/// Our sockets.
pub fn sockets() -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}
