//! Alerts on standard output (or wherever else they are to go), from a thread of their own: one that
//! nobody reads fills its channel, from which on alerts are dropped and counted, and holds no policy.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::line::{self, Style};
use crate::outcome::{AgentMetrics, Alert};

/// Alerts that may wait for standard output.
pub const WAITING: usize = 1024;

/// How often to look whether the reader is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The thread that writes.
#[derive(Debug)]
pub struct Stdout {
    last_words: Sender<String>,
    done: Receiver<()>,
}

impl Stdout {
    /// Begins to write alerts. `closed` is called if the reader goes away (EPIPE): nothing is
    /// written from then on.
    pub fn start(
        alerts: Receiver<Alert>,
        style: Style,
        counts: Arc<AgentMetrics>,
        closed: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_on(io::stdout(), alerts, style, counts, closed)
    }

    /// The same somewhere else.
    pub fn start_on(
        out: impl Write + AsFd + Send + 'static,
        alerts: Receiver<Alert>,
        style: Style,
        counts: Arc<AgentMetrics>,
        closed: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let seen = out.as_fd().try_clone_to_owned()?;
        Self::start_with(out, move || is_gone(&seen), alerts, style, counts, closed)
    }

    fn start_with(
        out: impl Write + Send + 'static,
        is_gone: impl Fn() -> bool + Send + 'static,
        alerts: Receiver<Alert>,
        style: Style,
        counts: Arc<AgentMetrics>,
        closed: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (last_words, to_finish) = bounded(1);
        let (ended, done) = bounded(1);
        let mut writer = Writer { out, style, counts, closed: Some(closed) };
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            writer.run(&alerts, &to_finish, is_gone);
            drop(ended);
        })?;
        Ok(Self { last_words, done })
    }

    /// Writes the alerts that wait and then `last_words`, and ends. `false` if standard output did
    /// not take them `within` this time; then the thread is left to itself.
    #[must_use]
    pub fn finish(self, last_words: String, within: Duration) -> bool {
        // Nobody is there to take them if standard output was closed.
        let _closed = self.last_words.send(last_words);
        self.done.recv_timeout(within) != Err(crossbeam_channel::RecvTimeoutError::Timeout)
    }
}

struct Writer<W, F> {
    out: W,
    style: Style,
    counts: Arc<AgentMetrics>,
    closed: Option<F>,
}

impl<W: Write, F: FnOnce()> Writer<W, F> {
    fn run(
        &mut self,
        alerts: &Receiver<Alert>,
        to_finish: &Receiver<String>,
        is_gone: impl Fn() -> bool,
    ) {
        loop {
            select_biased! {
                recv(alerts) -> alert => match alert {
                    Ok(alert) => self.write(&line::alert(&alert, self.style)),
                    // No policy is left: only the last words can come.
                    Err(_) => return self.write(&to_finish.recv().unwrap_or_default()),
                },
                recv(to_finish) -> last_words => return self.write(&last_words.unwrap_or_default()),
                // Where nothing is written, nothing fails.
                default(LOOK_EVERY) => if is_gone() {
                    self.close();
                },
            }
        }
    }

    fn write(&mut self, text: &str) {
        let written = match self.closed {
            Some(_) => self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let Err(error) = written else { return };
        self.counts.output_dropped.inc();
        // Any other error (a full disk) may pass; a reader that is gone does not come back.
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(closed) = self.closed.take() {
            closed();
        }
    }
}

/// Whether nobody can read any more what is written there.
fn is_gone(out: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let found = poll(&mut polled, Some(&Timespec::default()));
    found.is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use prometheus_client::metrics::{counter::Counter, family::Family};
    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;
    use crate::outcome::{Alerts, PolicyLabels, Raised, Rate, Severity};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const STYLE: Style = Style::Text { colour: false };

    fn raise(alerts: &Alerts, times: u32) -> Vec<Raised> {
        let policy = alerts.policy("p", Arc::new(Mutex::new(Rate::new(1000, 1000))));
        (0..times).map(|n| policy.raise(0, Severity::Info, n.to_string(), vec![])).collect()
    }

    #[test]
    fn everything_that_waits_is_written_before_the_last_words() {
        let (alerts, receiver) = Alerts::new(10, Arc::default());
        raise(&alerts, 3);
        let out = Shared::default();
        let stdout =
            Stdout::start_with(out.clone(), || false, receiver, STYLE, Arc::default(), || {})
                .unwrap();
        assert!(stdout.finish("the end\n".into(), Duration::from_secs(10)));
        let written = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let written: Vec<_> =
            written.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(written, ["0", "1", "2", "end"]);
    }

    #[test]
    fn a_reader_that_is_gone_is_told_once_and_everything_is_counted() {
        let counts = Arc::new(AgentMetrics::default());
        let (alerts, receiver) = Alerts::new(10, Arc::clone(&counts));
        let told = Arc::new(AtomicU32::new(0));
        let tell = Arc::clone(&told);
        let closed = move || {
            tell.fetch_add(1, Ordering::Relaxed);
        };
        raise(&alerts, 3);
        let out = Fails(io::ErrorKind::BrokenPipe);
        let stdout =
            Stdout::start_with(out, || false, receiver, STYLE, Arc::clone(&counts), closed)
                .unwrap();
        assert!(stdout.finish("end".into(), Duration::from_secs(10)));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(counts.output_dropped.get(), 4);
    }

    #[test]
    fn a_reader_that_goes_away_is_noticed_without_an_alert() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_gone(&writer));
        let (tell, told) = bounded(1);
        let (_alerts, receiver) = Alerts::new(1, Arc::default());
        let seen = writer.try_clone().unwrap();
        let closed = move || tell.send(()).unwrap();
        let _stdout = Stdout::start_with(
            writer,
            move || is_gone(&seen),
            receiver,
            STYLE,
            Arc::default(),
            closed,
        );
        drop(reader);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn a_blocked_standard_output_drops_with_a_count_and_holds_nobody() {
        let (reader, mut writer) = io::pipe().unwrap();
        // Nobody reads, and the pipe is full to the last byte.
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        while writer.write(&[0; 4096]).is_ok() {}
        while writer.write(&[0]).is_ok() {}
        fcntl_setfl(&writer, OFlags::empty()).unwrap();
        let counts = Arc::new(AgentMetrics::default());
        let (alerts, receiver) = Alerts::new(4, Arc::clone(&counts));
        let stdout =
            Stdout::start_with(writer, || false, receiver, STYLE, Arc::clone(&counts), || {})
                .unwrap();
        // The writer takes one at most, then the channel fills.
        let raised = raise(&alerts, 10);
        let sent = raised.iter().filter(|raised| **raised == Raised::Sent).count();
        assert!((4..=5).contains(&sent), "{raised:?}");
        let labels = PolicyLabels { policy: "p".into() };
        let count = |family: &Family<_, Counter>| family.get_or_create(&labels).get();
        assert_eq!(count(&counts.alerts) + count(&counts.alerts_dropped), 10);
        assert_eq!(count(&counts.alerts), sent as u64);
        assert!(!stdout.finish("end".into(), Duration::from_millis(20)));
        drop(reader);
    }
}
