//! The proxy as a whole, and what it does with each message, however it came.

use std::{io, os::fd::AsFd as _, sync::Arc, time::Instant};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::{interval, timeout},
};

use super::{
    ALIVE, Counts, Doors, Flow, Judge, Limits, Question, Ruling, SIGN_OF_LIFE, Verdict,
    message::{self, Unfit},
    tcp,
    tell::{self, Decision},
    udp,
};
use crate::{clock, probe::Flows, source::Handover, sys::network};

/// A proxy for one scope.
pub struct Proxy<J> {
    pub(super) judge: J,
    pub(super) limits: Limits,
    pub(super) flows: Flows,
    pub(super) handover: Handover,
    pub(super) counts: Arc<Counts>,
    pub(super) queries: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
}

/// While this is there the programs lead to the proxy.
struct Life(Flows);

impl Life {
    fn show(&self) -> io::Result<()> {
        let time = u64::try_from(ALIVE.as_nanos()).unwrap_or(u64::MAX);
        self.0.set_alive_until(clock::monotonic_ns().saturating_add(time))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Err(error) = self.0.set_alive_until(0) {
            tracing::error!(%error, "the DNS guard cannot be told that its proxy has ended");
        }
    }
}

impl<J: Judge> Proxy<J> {
    /// A proxy for what the guard with these flows leads here. What it sees goes to `handover`.
    pub fn new(judge: J, limits: Limits, flows: Flows, handover: Handover) -> Self {
        Self {
            judge,
            limits,
            flows,
            handover,
            counts: Arc::default(),
            queries: Arc::new(Semaphore::new(limits.most_queries)),
            connections: Arc::new(Semaphore::new(limits.most_connections)),
        }
    }

    /// What became of all messages; goes on counting.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Serves until a door fails, which is an error, or until it is dropped, with all that is under way.
    /// Needs a tokio runtime with I/O and time, in the network namespace of the doors: its own sockets
    /// are made there.
    pub async fn serve(self, doors: Doors) -> io::Result<()> {
        let proxy = Arc::new(self);
        let life = Life(proxy.flows.clone());
        let mut tasks = JoinSet::new();
        let mut sockets = Vec::new();
        for family in doors.udp {
            for (door, socket) in family.into_iter().enumerate() {
                let socket = Arc::new(UdpSocket::from_std(socket)?);
                sockets.push(Arc::clone(&socket));
                let door = u8::try_from(door).unwrap_or(u8::MAX);
                tasks.spawn(udp::serve(Arc::clone(&proxy), socket, door));
            }
        }
        for listener in doors.tcp {
            tasks.spawn(tcp::serve(Arc::clone(&proxy), TcpListener::from_std(listener)?));
        }
        let mut sign = interval(SIGN_OF_LIFE);
        loop {
            tokio::select! {
                _ = sign.tick() => {
                    life.show()?;
                    proxy.count_drops(&sockets);
                }
                Some(ended) = tasks.join_next() => return joined(ended),
            }
        }
    }

    fn count_drops(&self, sockets: &[Arc<UdpSocket>]) {
        let drops = |socket: &Arc<UdpSocket>| network::drops(socket.as_fd()).unwrap_or(0);
        self.counts.dropped.set(sockets.iter().map(|socket| u64::from(drops(socket))).sum());
    }

    /// What is asked for, if it may go on.
    pub(super) async fn decide(&self, flow: &Flow, message: &[u8]) -> Option<Question> {
        let began = Instant::now();
        let nobody = Ruling::from(Verdict::Refuse);
        let (question, decision, by) = match message::query(message) {
            Ok(question) => {
                let (decision, by) = self.judged(&question, flow).await;
                (Some(question), decision, by)
            }
            Err(Unfit::Malformed) => (None, Decision::Malformed, nobody),
            Err(Unfit::Unsupported) => (None, Decision::Unsupported, nobody),
        };
        self.decided(flow, message, question.as_ref(), (decision, by), began);
        question.filter(|_| matches!(decision, Decision::Allow | Decision::AllowOnTimeout))
    }

    async fn judged(&self, question: &Question, flow: &Flow) -> (Decision, Ruling) {
        let judged = timeout(self.limits.decide, self.judge.judge(question, flow)).await.ok();
        let ruling = judged.unwrap_or_else(|| self.limits.on_timeout.into());
        let decision = match (ruling.verdict, judged.is_some()) {
            (Verdict::Allow, true) => Decision::Allow,
            (Verdict::Allow, false) => Decision::AllowOnTimeout,
            (Verdict::Refuse, true) if ruling.is_for_server => Decision::Server,
            (Verdict::Refuse, true) => Decision::Refuse,
            (Verdict::Refuse, false) => Decision::RefuseOnTimeout,
        };
        (decision, ruling)
    }

    /// A query for which there is no room is not judged.
    pub(super) fn refuse_for_overload(&self, flow: &Flow, message: &[u8]) {
        let question = message::query(message).ok();
        let decided = (Decision::Overload, Verdict::Refuse.into());
        self.decided(flow, message, question.as_ref(), decided, Instant::now());
    }

    /// Counts and tells.
    fn decided(
        &self,
        flow: &Flow,
        message: &[u8],
        question: Option<&Question>,
        (decision, by): (Decision, Ruling),
        began: Instant,
    ) {
        let counts = &self.counts;
        match decision {
            Decision::Allow | Decision::AllowOnTimeout => counts.allowed.add(),
            Decision::Refuse | Decision::RefuseOnTimeout | Decision::Server => counts.refused.add(),
            Decision::Malformed => counts.malformed.add(),
            Decision::Unsupported => counts.unsupported.add(),
            Decision::Overload => counts.overload.add(),
        }
        if matches!(decision, Decision::AllowOnTimeout | Decision::RefuseOnTimeout) {
            counts.late.add();
        }
        let id = message::id(message);
        tell::query(&self.handover, flow, id, question, (decision, by), began.elapsed());
    }

    /// Looks into an answer that is about to be handed on.
    pub(super) fn answered(&self, flow: &Flow, question: &Question, message: &[u8], sent: Instant) {
        self.counts.answered.add();
        let Ok(answer) = message::answer(message, question) else {
            self.counts.unread.add();
            return;
        };
        self.judge.answered(question, &answer, flow);
        let id = message::id(message);
        tell::answer(&self.handover, flow, id, question, &answer, sent.elapsed());
    }
}

/// What a task of ours ended with. A panic goes on in who waits for it.
pub(super) fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    match ended {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
