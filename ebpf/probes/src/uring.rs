//! Operations of `io_uring`, which pass no system call of their own: seen where they are submitted
//! and where they complete.

use crate::{
    events::{catalogue::VIA, index},
    kernel::{Pointer, io_cqe, io_kiocb, io_uring_cqe},
};

/// The operation came by `io_uring`.
pub const IO_URING: u8 = index(VIA, "io_uring");

/// Operations, from `linux/io_uring.h`.
pub mod operation {
    /// accept4.
    pub const ACCEPT: u8 = 13;
    /// connect.
    pub const CONNECT: u8 = 16;
    /// openat.
    pub const OPENAT: u8 = 18;
    /// openat2.
    pub const OPENAT2: u8 = 28;
    /// renameat2.
    pub const RENAMEAT: u8 = 35;
    /// unlinkat.
    pub const UNLINKAT: u8 = 36;
    /// listen (Linux 6.11).
    pub const LISTEN: u8 = 57;
}

/// Bit of `io_kiocb.flags`: success is not reported (`IOSQE_CQE_SKIP_SUCCESS`).
const CQE_SKIP: u32 = 1 << 6;

/// A `struct io_kiocb`. What is particular to the operation begins at its address too.
#[derive(Clone, Copy)]
pub struct Request(pub Pointer);

impl Request {
    /// Its address in the kernel, by which maps know it.
    #[inline(always)]
    #[must_use]
    pub fn key(self) -> u64 {
        self.0 as u64
    }

    /// The operation.
    #[inline(always)]
    #[must_use]
    pub fn operation(self) -> Option<u8> {
        io_kiocb::opcode.read(self.0)
    }

    /// The open file that it works on.
    #[inline(always)]
    #[must_use]
    pub fn file(self) -> Option<Pointer> {
        io_kiocb::file.read(self.0)
    }

    /// By what its completions are known.
    #[inline(always)]
    #[must_use]
    pub fn tag(self) -> Option<Tag> {
        let completion = io_kiocb::cqe.of(self.0)?;
        Some(Tag {
            context: io_kiocb::ctx.read(self.0)?,
            user_data: io_cqe::user_data.read(completion)?,
        })
    }

    /// Whether nothing is seen of it when it succeeds.
    #[inline(always)]
    #[must_use]
    pub fn completes_silently(self) -> bool {
        io_kiocb::flags.read::<u32>(self.0).is_some_and(|flags| flags & CQE_SKIP != 0)
    }
}

/// By what a process knows the completions of a request.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tag {
    /// The `struct io_ring_ctx`.
    context: u64,
    /// What the process gave the request to be known by.
    user_data: u64,
}

impl Tag {
    /// Of a `struct io_uring_cqe` in a `struct io_ring_ctx`.
    #[inline(always)]
    #[must_use]
    pub fn of_completion(context: u64, completion: Pointer) -> Option<Self> {
        Some(Self { context, user_data: io_uring_cqe::user_data.read(completion)? })
    }
}

/// The result in a `struct io_uring_cqe`.
#[inline(always)]
#[must_use]
pub fn result_in(completion: Pointer) -> Option<i32> {
    io_uring_cqe::res.read(completion)
}
