//! The thread that prints, so that a terminal that is held does not hold up anything else.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::bail;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use tipstaff_runtime::{
    batch::rows,
    clock,
    decode::{Decoded, Decoder},
    queue::{Delivery, Queue},
};

use super::Format;

/// What was printed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub events: u64,
    pub lost: u64,
}

/// See the module's documentation.
pub struct Printer {
    finish: Sender<()>,
    closed: Receiver<io::Result<Totals>>,
    result: Receiver<io::Result<Totals>>,
}

impl Printer {
    /// Prints what comes to `queue`; `ready` says when.
    pub fn start(
        queue: Arc<Queue>,
        ready: Receiver<()>,
        decoder: Decoder,
        format: Format,
    ) -> io::Result<Self> {
        let (finish, to_finish) = bounded(0);
        let (close, closed) = bounded(0);
        let (tell, result) = bounded(1);
        thread::Builder::new().name("printer".into()).spawn(move || {
            let colour = io::stdout().is_terminal();
            let mut work = Work {
                queue,
                decoder,
                format,
                colour,
                totals: Totals::default(),
                line: String::new(),
            };
            let result = work.run(&ready, &to_finish);
            // The receiver has gone if nobody waits any more.
            let _ = tell.send(result.map(|()| work.totals));
            drop(close);
        })?;
        Ok(Self { finish, closed, result })
    }

    /// Is closed when nothing can be printed any more.
    pub fn closed(&self) -> &Receiver<io::Result<Totals>> {
        &self.closed
    }

    /// Prints what is in the queue, and ends.
    pub fn finish(self, within: Duration) -> anyhow::Result<Totals> {
        drop(self.finish);
        match self.result.recv_timeout(within) {
            Ok(result) => Ok(result?),
            Err(_) => bail!("standard output does not take the last events"),
        }
    }
}

struct Work {
    queue: Arc<Queue>,
    decoder: Decoder,
    format: Format,
    colour: bool,
    totals: Totals,
    line: String,
}

impl Work {
    fn run(&mut self, ready: &Receiver<()>, finish: &Receiver<()>) -> io::Result<()> {
        loop {
            let is_last = select! {
                recv(ready) -> _ => false,
                recv(finish) -> _ => true,
            };
            while let Some(delivery) = self.queue.pop() {
                self.print(&delivery)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// A whole batch in one call.
    fn print(&mut self, delivery: &Delivery) -> io::Result<()> {
        let Self { decoder, format, colour, totals, line, .. } = self;
        let offset = Some(clock::wall_offset_ns());
        line.clear();
        let mut print = |decoded: Decoded<'_>| {
            match decoded {
                Decoded::Event(_) => totals.events += 1,
                Decoded::Gap(_, gap) => totals.lost += gap.lost,
            }
            match format {
                Format::Json => decoded.write_json(line, offset),
                Format::Text => decoded.write_text(line, *colour, offset),
            }
        };
        for gap in &delivery.gaps {
            if let Some(kind) = decoder.kind(gap.subscription) {
                print(Decoded::Gap(kind, *gap));
            }
        }
        let bytes = &delivery.batch.bytes;
        for decoded in rows(bytes).filter_map(|row| decoder.decode(bytes, row)) {
            print(decoded);
        }
        let mut out = io::stdout().lock();
        out.write_all(self.line.as_bytes())?;
        out.flush()
    }
}
