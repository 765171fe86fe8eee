//! Whether rules at a cgroup deny here: not concluded from a version or a list, but tried on a child of
//! ours, in a cgroup of its own.

use std::{
    fs, io,
    io::Write as _,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    guard::{GuardMode, Rule, Table, Verdict},
    mountinfo,
    probe::Probes,
};

/// How long the child may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The discard port: connecting a UDP socket sends nothing anyway.
const PORT: u16 = 9;

/// What the child tries, once it is told to by a line on standard input. Whether it was denied.
pub fn sing() -> io::Result<bool> {
    io::stdin().read_line(&mut String::new())?;
    // Not before: a socket belongs to the cgroup in which it was made.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    match socket.connect((Ipv4Addr::LOCALHOST, PORT)) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(error),
    }
}

/// Tries it; why not, if they do not deny.
pub(super) fn prove(probes: &mut Probes) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let cage = Cage::new().map_err(|error| format!("no cgroup can be made: {error}"))?;
    // Not by its path: the file may be another one by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg("canary").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut canary = Canary(command.spawn().map_err(told)?);
    let pid = canary.0.id().to_string();
    fs::write(cage.0.join("cgroup.procs"), pid).map_err(told)?;
    let mut guard =
        probes.guard_network(&cage.0, 0, GuardMode::Enforce).map_err(|error| error.to_string())?;
    let deny: Rule = format!("deny connect udp 127.0.0.1 {PORT}")
        .parse()
        .map_err(|error| format!("the canary's rule: {error}"))?;
    let table = Table { rules: vec![deny], ..Table::new(Verdict::Allow) };
    guard.install(&table).map_err(|error| error.to_string())?;
    let mut go = canary.0.stdin.take().ok_or("the child has no standard input")?;
    go.write_all(b"\n").map_err(told)?;
    let status = canary.wait().map_err(told)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => Err("a child of ours was not denied what a rule denies".to_owned()),
        _ => Err(format!("a child of ours could not try it: {status}")),
    }
}

/// A cgroup for the child, below the folder for our own.
struct Cage(PathBuf);

impl Cage {
    fn new() -> io::Result<Self> {
        let own = mountinfo::cgroup_v2()?.join("tipstaff");
        match fs::create_dir(&own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let cage = own.join(format!("canary-{}", std::process::id()));
        match fs::create_dir(&cage) {
            // Of a process that had our number before.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self(cage)),
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // It was killed, and may not be gone yet.
        let until = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && Instant::now() < until {
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// The child, which ends with this.
struct Canary(Child);

impl Canary {
    fn wait(&mut self) -> io::Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(io::Error::other("it did not end"));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
