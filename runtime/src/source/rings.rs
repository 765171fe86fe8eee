//! Records from the kernel's rings.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::{Drained, Handover, Item, Source};
use crate::{
    clock,
    probe::{Losses, ProbeError, Probes, Ring},
    queue::Cause,
};

/// The rings, in the order in which they are drained: life, urgent, bulk.
pub struct Rings {
    in_order: [Ring; 3],
    /// Records that this process makes itself.
    handover: Handover,
    losses: Losses,
    /// Readable while a record waits.
    any: OwnedFd,
}

impl Rings {
    /// The rings of these probes. Make one only.
    pub fn new(probes: &Probes) -> Result<Self, ProbeError> {
        let rings = probes.rings()?;
        let handover = probes.handover();
        let any = watch(&rings, &handover).map_err(|source| ProbeError::Epoll { source })?;
        Ok(Self { in_order: rings, handover, losses: probes.losses(), any })
    }
}

/// Time of a record: the first field of its header.
fn time(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn watch(rings: &[Ring], handover: &Handover) -> io::Result<OwnedFd> {
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for ring in rings {
        epoll::add(&any, ring, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    epoll::add(&any, handover, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    Ok(any)
}

impl Source for Rings {
    fn drain(&mut self, most: usize, each: &mut impl FnMut(Item<'_>)) -> Drained {
        // What a process does is looked up by its fork and exec, so these must be handed out first.
        // They are in the life ring before the process does anything else; so what happened after
        // the life ring was looked at waits until it has been looked at again.
        let [life, others @ ..] = &mut self.in_order;
        let (began, mut newest) = (clock::monotonic_ns(), 0);
        let items = life.drain(most, u64::MAX, |record| {
            newest = time(record);
            each(Item::Record(record));
        });
        let mut drained = Drained {
            items,
            all: items < most,
            holds_urgent: false,
            newest_in_bulk: 0,
            ended: false,
        };
        let until = if drained.all { began } else { newest };
        for ring in others {
            let mut newest = 0;
            let items = ring.drain(most, until, |record| {
                newest = time(record);
                each(Item::Record(record));
            });
            // The last of them counts.
            drained.newest_in_bulk = newest;
            drained.items += items;
            drained.all &= items < most;
        }
        let [_, urgent, _] = &self.in_order;
        drained.holds_urgent = urgent.holds();
        drained.items += self.handover.drain(until, each);
        drained
    }

    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration) {
        let mut ready = [
            PollFd::from_borrowed_fd(self.any.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(waker, PollFlags::IN),
        ];
        let timeout = Timespec::try_from(timeout).ok();
        // Interrupted is as good as woken: the caller looks again.
        let _ = poll(&mut ready, timeout.as_ref());
    }

    fn wait_for_urgent(&mut self, waker: BorrowedFd<'_>, timeout: Duration, life: bool) {
        let [of_life, urgent, _] = &self.in_order;
        let of_life = if life { of_life.as_fd() } else { waker };
        let mut ready =
            [waker, urgent.as_fd(), of_life].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let timeout = Timespec::try_from(timeout).ok();
        let _ = poll(&mut ready, timeout.as_ref());
    }

    fn has_unfinished(&self) -> bool {
        self.in_order.iter().any(Ring::has_unread) || self.handover.has_unread()
    }

    fn losses(&mut self, each: &mut impl FnMut(u16, Cause, u64)) {
        self.losses.read(&mut *each);
        self.handover.losses(each);
    }

    fn is_live(&self) -> bool {
        true
    }
}
