//! Arguments of processes, read by a thread of its own: they are in the process's memory, and whoever reads
//! that may have to wait for it.

use std::{
    fs::File,
    io::{self, Read as _},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use tipstaff_events::wire::MAX_ARGS;

/// How long they are waited for: whoever has them to hide must not delay what is done to it.
const PATIENCE: Duration = Duration::from_millis(5);

/// See the module's documentation.
pub(super) struct Arguments {
    /// There from the first question on.
    reader: Option<Reader>,
    /// Whether an answer is still to come.
    waits: bool,
}

/// Where the thread gets questions, and gives the answers with the number of the process.
type Reader = (Sender<u32>, Receiver<(u32, Vec<u8>)>);

impl Arguments {
    pub const fn new() -> Self {
        Self { reader: None, waits: false }
    }

    /// Asks for those of a process, unless the answer to another question is still to come.
    pub fn ask(&mut self, pid: u32) {
        if self.reader.is_none() {
            self.reader = start();
        }
        let Some((questions, answers)) = &self.reader else { return };
        if !self.waits || answers.try_recv().is_ok() {
            self.waits = questions.try_send(pid).is_ok();
        }
    }

    /// The answer, if it comes in time.
    pub fn answer(&mut self, pid: u32) -> Vec<String> {
        let Some((_, answers)) = self.reader.as_ref().filter(|_| self.waits) else {
            return Vec::new();
        };
        let Ok((of, bytes)) = answers.recv_timeout(PATIENCE) else { return Vec::new() };
        self.waits = false;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\0').unwrap_or(&text);
        // An answer that came too late is another process's.
        if of != pid || text.is_empty() {
            return Vec::new();
        }
        text.split('\0').map(str::to_owned).collect()
    }
}

fn start() -> Option<Reader> {
    let (questions, to_answer) = bounded::<u32>(1);
    let (answer, answers) = bounded(1);
    let read = move || {
        for pid in to_answer {
            if answer.send((pid, read(pid).unwrap_or_default())).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("arguments".to_owned()).spawn(read);
    thread.ok().map(|_| (questions, answers))
}

fn read(pid: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_ARGS).unwrap_or(u64::MAX);
    File::open(format!("/proc/{pid}/cmdline"))?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_process() {
        let mut arguments = Arguments::new();
        let own = std::process::id();
        assert_eq!(arguments.answer(own), Vec::<String>::new(), "nobody asked");
        for _ in 0..3 {
            arguments.ask(own);
            let expected: Vec<String> = std::env::args().collect();
            // A thread that does not get its turn within that time is another thing.
            let found = (0..1000).map(|_| arguments.answer(own)).find(|found| !found.is_empty());
            assert_eq!(found, Some(expected));
        }
        arguments.ask(own);
        let late = (0..1000).map(|_| arguments.answer(1)).find(|found| !found.is_empty());
        assert_eq!(late, None, "those of another process are not taken for its own");
    }
}
