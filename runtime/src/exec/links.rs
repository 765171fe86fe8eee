//! Links of guards, on their way to the keeper that holds them in case this process dies.

use std::{
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use super::keeper::{Channel, Keeper};

/// Whichever keeper there is gets them: the first one, and the one after it if it dies.
#[derive(Clone)]
pub struct Links(Arc<Mutex<Held>>);

struct Held {
    channel: Channel,
    links: Vec<OwnedFd>,
}

impl Links {
    /// None yet, for this keeper.
    #[must_use]
    pub fn to(keeper: &Keeper) -> Self {
        Self(Arc::new(Mutex::new(Held { channel: keeper.channel(), links: Vec::new() })))
    }

    /// Hands over these, too.
    pub fn keep(&self, links: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let copies: Vec<_> =
            links.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
        match held.channel.hold(links) {
            // It has died: the one after it gets them with all others.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
        held.links.extend(copies);
        Ok(())
    }

    /// Hands all of them over to another keeper.
    pub fn move_to(&self, keeper: &Keeper) -> io::Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.channel = keeper.channel();
        let links: Vec<_> = held.links.iter().map(|link| link.as_fd()).collect();
        held.channel.hold(&links)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}
