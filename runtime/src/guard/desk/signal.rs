//! Signals that policies ask for.

use std::{mem, sync::Arc, time::Instant};

use super::{PolicyDesk, REASON_TOLD, REFUSALS_TOLD, Standing, lock};
use crate::{
    escape,
    guard::{Mode, Refusal, Signal, SignalAsk, SignalWish, Told},
};

impl PolicyDesk {
    /// Puts a signal that the policy asks for to what waits for the end of the call.
    pub fn signal(
        &self,
        waiting: &mut Vec<SignalAsk>,
        wish: SignalWish<'_>,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut standing = lock(&self.standing);
        let result = self.check_signal(&mut standing, wish, now);
        if let Err(Refusal { reason, .. }) = &result
            && standing.mode > Mode::Observe
            && standing.refusals.take(REFUSALS_TOLD, now)
        {
            let reason = format!("process {}: {reason}", wish.pid);
            self.tell(Told::Refused {
                policy: Arc::clone(&self.policy),
                scope: String::new(),
                action: wish.action(),
                reason: escape::prefix(&reason, REASON_TOLD).to_owned(),
            });
        }
        waiting.push(result?);
        Ok(())
    }

    fn check_signal(
        &self,
        standing: &mut Standing,
        wish: SignalWish<'_>,
        now: Instant,
    ) -> Result<SignalAsk, Refusal> {
        standing.check_mode()?;
        let SignalWish { pid, start, signal, tree, time } = wish;
        let signal: Signal = signal.parse().map_err(|error: String| Refusal::new(&error))?;
        if pid == 0 || start == 0 {
            return Err(Refusal::new(
                &"a process is named by its number and its start (`pid` and `start` of `exec`, `pid` and \
                  `proc.start`), and one of them is 0",
            ));
        }
        self.spend(standing, now)?;
        let (policy, time) = (Arc::clone(&self.policy), (time > 0).then_some(time));
        Ok(SignalAsk { policy, pid, start, signal, tree, time })
    }

    /// Hands over the signals that were asked for in a call that ended well.
    pub fn hand_in_signals(&self, waiting: &mut Vec<SignalAsk>) {
        for ask in mem::take(waiting) {
            self.tell(Told::Signal(ask));
        }
    }
}
