//! What `tipstaff exec` writes beside the command's own output: alerts, what rules denied, the summary.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crossbeam_channel::Receiver;
use tipstaff_runtime::{
    guard::Desk,
    outcome::{AgentMetrics, Alert},
    sink::{
        Style,
        blocked::{Blocked, Feed, Sums},
        stdout::Stdout,
    },
};

use super::Format;

/// How long standard error or the file may take for the last words, each time.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The threads that write it. Nobody who reads it is no reason to end the command.
pub struct Report {
    alerts: Stdout,
    /// Not in observe mode.
    blocked: Option<Blocked>,
    /// How it is written.
    pub style: Style,
}

impl Report {
    /// Begins to write to the file, or to standard error.
    pub fn start(
        out: Option<File>,
        format: Format,
        raised: Receiver<Alert>,
        feed: Option<Feed>,
        desk: &Desk,
        counts: &Arc<AgentMetrics>,
    ) -> io::Result<Self> {
        let style = match (format, &out) {
            (Format::Json, _) => Style::Json,
            (Format::Text, Some(_)) => Style::Text { colour: false },
            (Format::Text, None) => Style::text_on(&io::stderr()),
        };
        let blocked = feed.map(|feed| match &out {
            Some(file) => Blocked::start(feed, file.try_clone()?, style, desk.clone()),
            None => Blocked::start(feed, io::stderr(), style, desk.clone()),
        });
        let counts = Arc::clone(counts);
        let alerts = match out {
            Some(file) => Stdout::start_on(file, raised, style, counts, || ()),
            None => Stdout::start_on(io::stderr(), raised, style, counts, || ()),
        }?;
        Ok(Self { alerts, blocked: blocked.transpose()?, style })
    }

    /// Ends it with what rules denied, and the summary. How many attempts on files it is inferred of that
    /// rules denied them.
    pub fn finish(self, sums: Sums, summary: String) -> u64 {
        let Self { alerts, blocked, style: _ } = self;
        let on_files = blocked.as_ref().map(Blocked::on_files);
        let is_taken = blocked.is_none_or(|blocked| blocked.finish(sums, LAST_WORDS));
        if !alerts.finish(summary, LAST_WORDS) || !is_taken {
            tracing::warn!("the report is not taken");
        }
        on_files.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
