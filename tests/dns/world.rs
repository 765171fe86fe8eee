//! A network of the test's own with a DNS server in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// How long things may take that take no time.
pub const SOON: Duration = Duration::from_secs(20);

/// A network namespace that this thread, and what it starts, is in, with a dnsmasq; the thread stays
/// there for the rest of its test.
pub struct World {
    folder: TempDir,
    server: Child,
}

impl World {
    pub fn new() -> Self {
        enter_a_network();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--user=root", "--pid-file=", "--bind-interfaces", "--except-interface=lo"]);
        command.args(
            ["127.0.0.53", "127.0.0.54", "fd00::53", "fd00::54"]
                .map(|address| format!("--listen-address={address}")),
        );
        command.args(["--log-queries=extra", "--local-ttl=30", "--cache-size=0"]);
        command.arg(format!("--log-facility={}", folder.path().join("log").display()));
        command.args([
            "--host-record=host.test,192.0.2.1,2001:db8::1",
            "--cname=alias.test,host.test",
            "--host-record=refused.test,192.0.2.9",
            "--host-record=near.test,127.0.0.1",
            "--host-record=far.test,10.7.7.7",
            "--cname=chain.test,link.test",
            "--cname=link.test,far.test",
            "--host-record=brief.test,10.7.7.8,1",
            "--local=/test/",
        ]);
        command.args((1..=60).map(|last| format!("--host-record=many.test,198.51.100.{last}")));
        let server = command.stdin(Stdio::null()).spawn().unwrap();
        let world = Self { folder, server };
        wait_for(|| world.log().contains("started, version"));
        world
    }

    /// A directory of its own.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Type and name of each query that the server has got, as it logs it.
    pub fn logged(&self) -> Vec<(String, String)> {
        let log = self.log();
        let query = |line: &str| {
            let (_, rest) = line.split_once(" query[")?;
            let (record_type, rest) = rest.split_once("] ")?;
            let name = rest.split(' ').next()?;
            Some((record_type.to_owned(), name.to_lowercase()))
        };
        log.lines().filter_map(query).collect()
    }

    /// A file that names this server.
    pub fn resolv_conf(&self, server: &str) -> PathBuf {
        let path = self.folder.path().join(format!("resolv-{server}"));
        fs::write(&path, format!("nameserver {server}\noptions timeout:5 attempts:1\n")).unwrap();
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

fn enter_a_network() {
    let script = "ip link set lo up && ip addr add 10.7.7.7/32 dev lo && ip addr add 10.7.7.8/32 dev lo && \
        for last in 7 53 54; do ip addr add fd00::$last/128 dev lo nodad; done && echo ready && exec sleep 600";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script]).stdout(Stdio::piped());
    let mut sleeper = command.spawn().unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(&mut sleeper.stdout.take().unwrap(), &mut line).unwrap();
    let network = fs::File::open(format!("/proc/{}/ns/net", sleeper.id())).unwrap();
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))
        .unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

pub fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
