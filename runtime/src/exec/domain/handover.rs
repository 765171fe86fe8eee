//! Rulesets on their way to whoever enters them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Most rulesets in one message: more than the kernel lets a process be under (16), which it says better.
const MOST: u8 = 64;

/// Sends these, and how many they are.
pub fn send(to: &UnixStream, domains: &[BorrowedFd<'_>]) -> io::Result<()> {
    let count = u8::try_from(domains.len()).ok().filter(|count| *count <= MOST);
    let count = count.ok_or_else(|| {
        io::Error::other(format!("{} rulesets of Landlock, {MOST} is the most", domains.len()))
    })?;
    let message = SendAncillaryMessage::ScmRights(domains);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    if count > 0 {
        buffer.push(message);
    }
    sendmsg(to, &[IoSlice::new(&[count])], &mut buffer, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for what is sent; an error if whoever was to send it is gone, or if one did not arrive.
pub fn receive(from: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut count = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST as usize))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(from, &mut [IoSliceMut::new(&mut count)], &mut buffer, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut domains = Vec::new();
    for message in buffer.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            domains.extend(descriptors);
        }
    }
    // As there may be no descriptors left for them: none may be missing.
    if domains.len() != usize::from(count[0]) {
        return Err(io::Error::other(format!(
            "{} of {} rulesets of Landlock have arrived",
            domains.len(),
            count[0]
        )));
    }
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn all_arrive_or_none() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        for count in [0, 1, 20] {
            send(&one, &vec![file.as_fd(); count]).unwrap();
            assert_eq!(receive(&other).unwrap().len(), count);
        }
        let error = send(&one, &vec![file.as_fd(); 65]).unwrap_err().to_string();
        assert_eq!(error, "65 rulesets of Landlock, 64 is the most");
        drop(one);
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
