//! What the end-to-end tests share: a running `tipstaff`, a policy directory, and where to skip.

pub mod agent;
mod here;
pub mod shipped;
pub mod vm;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

pub use here::*;

/// A `tipstaff` process, ended with the test.
pub struct Tipstaff {
    child: Child,
    errors: Receiver<String>,
    output: Receiver<String>,
    /// Everything on standard error so far.
    pub log: Vec<String>,
}

impl Tipstaff {
    /// Starts it without waiting for anything.
    pub fn spawn(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tipstaff"));
        command.args(arguments);
        Self::start(command)
    }

    /// The same with a command that becomes a `tipstaff`.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tipstaff starts");
        let errors = lines(child.stderr.take().expect("piped"));
        let output = lines(child.stdout.take().expect("piped"));
        Self { child, errors, output, log: Vec::new() }
    }

    /// Starts it and waits until it says that it is ready.
    pub fn ready(arguments: &[&str]) -> Self {
        let mut tipstaff = Self::spawn(arguments);
        tipstaff.wait_for_log("ready");
        tipstaff
    }

    /// Waits for a line on standard error that contains `text`, and returns it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) =
            self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with {text:?} on standard error, but:\n{}", self.log.join("\n"))
    }

    /// The next line on standard output that contains `text`.
    pub fn wait_for_output(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) =
            self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with {text:?} on standard output; log:\n{}", self.log.join("\n"))
    }

    /// Everything on standard error so far, without waiting for more.
    pub fn log_so_far(&mut self) -> Vec<String> {
        self.log.extend(self.errors.try_iter());
        self.log.clone()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is ours and runs");
    }

    /// Asks it to end, waits, and returns the rest of standard output and the exit code.
    pub fn stop(mut self) -> (Vec<String>, i32) {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> (Vec<String>, i32) {
        let deadline = Instant::now() + PATIENCE;
        let mut output = Vec::new();
        // The channel closes when the process closes its standard output.
        while let Ok(line) =
            self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            output.push(line);
        }
        while let Ok(line) =
            self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.log.push(line);
        }
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "did not end; log:\n{}", self.log.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        };
        (output, status.code().unwrap_or(-1))
    }
}

impl Drop for Tipstaff {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// What the agent exposes at `address` (`HOST:PORT`).
pub fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the metrics port listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The value, a whole number, of the one series whose line begins with `name` and contains all of `labels`.
pub fn series(exposition: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let mut found = exposition
        .lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
    let value = found.next();
    assert!(found.next().is_none(), "several series match {name} {labels:?}");
    value
}

/// Waits until `check` returns something, or panics with `what`.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The path of a policy of the tests, built by `tools/build-policies.sh tests`.
pub fn fixture(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/policies/tests/{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `tools/build-policies.sh tests`", path.display());
    path
}
