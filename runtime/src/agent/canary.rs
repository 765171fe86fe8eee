//! Whether rules at a cgroup deny here: not concluded from a version or a list, but tried on a child of
//! ours, in a cgroup of its own.

use std::{
    fs, io,
    io::Write as _,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use crate::{
    exec::Scope,
    guard::{GuardMode, Rule, Table, Verdict},
    probe::Probes,
};

/// How long the child may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The discard port, which is denied, and another one, which is not: connecting a UDP socket sends nothing.
const PORTS: [u16; 2] = [9, 10];

/// What the child tries, once it is told to by a line on standard input. Whether it was denied, and nothing
/// else was.
pub fn sing() -> io::Result<bool> {
    io::stdin().read_line(&mut String::new())?;
    let connect = |port| {
        // Not before: a socket belongs to the cgroup in which it was made.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))
    };
    let [denied, allowed] = PORTS;
    connect(allowed)?;
    match connect(denied) {
        Ok(()) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Why it is not proven that rules deny.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    /// They do not. This stays so.
    #[error("a child of ours was not denied what a rule denies")]
    NotDenied,
    /// It could not be tried, which may be otherwise the next time.
    #[error("it could not be tried: {0}")]
    Untried(String),
}

/// What was found when it was tried.
#[derive(Debug, Default)]
pub(super) struct Proof(Option<Result<(), Unproven>>);

impl Proof {
    /// What is known.
    pub fn known(&self) -> Option<&Result<(), Unproven>> {
        self.0.as_ref()
    }

    /// What is known, and else what is found now.
    pub fn get(&mut self, attempt: impl FnOnce() -> Result<(), Unproven>) -> Result<(), Unproven> {
        if let Some(known) = &self.0 {
            return known.clone();
        }
        let found = attempt();
        if !matches!(found, Err(Unproven::Untried(_))) {
            self.0 = Some(found.clone());
        }
        found
    }
}

/// Tries it.
pub(super) fn prove(probes: &mut Probes) -> Result<(), Unproven> {
    match is_denied(probes) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unproven::NotDenied),
        Err(reason) => Err(Unproven::Untried(reason)),
    }
}

/// Whether a child is denied what a rule denies.
fn is_denied(probes: &mut Probes) -> Result<bool, String> {
    let told = |error: io::Error| error.to_string();
    let cage = Cage::new()?;
    // Not by its path: the file may be another one by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg("canary").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut canary = Canary(command.spawn().map_err(told)?);
    let pid = canary.0.id().to_string();
    fs::write(cage.path().join("cgroup.procs"), pid).map_err(told)?;
    let mut guard = probes
        .guard_network(cage.path(), 0, GuardMode::Enforce)
        .map_err(|error| error.to_string())?;
    let deny: Rule = format!("deny connect udp 127.0.0.1 {}", PORTS[0])
        .parse()
        .map_err(|error| format!("the canary's rule: {error}"))?;
    let table = Table { rules: vec![deny], ..Table::new(Verdict::Allow) };
    guard.install(&table).map_err(|error| error.to_string())?;
    let mut go = canary.0.stdin.take().ok_or("the child has no standard input")?;
    go.write_all(b"\n").map_err(told)?;
    let status = canary.wait().map_err(told)?;
    let counts = guard.counts().map_err(|error| error.to_string())?;
    let denied: u64 = counts.iter().map(|count| count.denied).sum();
    match status.code() {
        // Another program, or a security module, may deny it as well.
        Some(0) if denied != 1 => Err("it is denied, but not by us".to_owned()),
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(format!("a child of ours ended with {status}")),
    }
}

/// A cgroup for the child, removed after it.
struct Cage(Option<Scope>);

impl Cage {
    fn new() -> Result<Self, String> {
        // What others have left there is said by whoever runs a command.
        Scope::make(|_, _| ()).map(|scope| Self(Some(scope))).map_err(|error| error.to_string())
    }

    fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), Scope::path)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Some(scope) = self.0.take()
            && let Err(error) = scope.remove()
        {
            tracing::warn!(%error, "the cgroup of the canary is left");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_tried_is_remembered() {
        let untried = Err(Unproven::Untried("the machine is busy".into()));
        for found in [Ok(()), Err(Unproven::NotDenied)] {
            let mut proof = Proof::default();
            assert_eq!(proof.get(|| untried.clone()), untried);
            assert_eq!(proof.known(), None, "it may be otherwise the next time");
            assert_eq!(proof.get(|| found.clone()), found);
            assert_eq!(proof.get(|| untried.clone()), found);
            assert_eq!(proof.known(), Some(&found));
        }
    }
}
