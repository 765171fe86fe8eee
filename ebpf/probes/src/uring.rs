//! Operations of `io_uring`, which pass no system call of their own: seen where they are submitted
//! and where they complete.
//!
//! A completion that finds no room in the process's queue is put aside, and then passes another
//! tracepoint, which does not say of which request it is. So those under way have a [`Place`] each.

use core::ptr;

use aya_ebpf::{macros::map, maps::Array};

use crate::{
    events::{catalogue::VIA, index},
    kernel::{self, Pointer, io_cqe, io_kiocb, io_uring_cqe},
    map::add,
    record::at_most,
};

/// The operation came by `io_uring`.
pub const IO_URING: u8 = index(VIA, "io_uring");

/// Operations, from `linux/io_uring.h`.
pub mod operation {
    /// readv.
    pub const READV: u8 = 1;
    /// writev.
    pub const WRITEV: u8 = 2;
    /// pread64 into a buffer that was registered.
    pub const READ_FIXED: u8 = 4;
    /// pwrite64 from a buffer that was registered.
    pub const WRITE_FIXED: u8 = 5;
    /// accept4.
    pub const ACCEPT: u8 = 13;
    /// connect.
    pub const CONNECT: u8 = 16;
    /// openat.
    pub const OPENAT: u8 = 18;
    /// pread64.
    pub const READ: u8 = 22;
    /// pwrite64.
    pub const WRITE: u8 = 23;
    /// openat2.
    pub const OPENAT2: u8 = 28;
    /// renameat2.
    pub const RENAMEAT: u8 = 35;
    /// unlinkat.
    pub const UNLINKAT: u8 = 36;
    /// mkdirat.
    pub const MKDIRAT: u8 = 37;
    /// listen (Linux 6.11).
    pub const LISTEN: u8 = 57;
}

/// Bit of `io_kiocb.flags`: success is not reported (`IOSQE_CQE_SKIP_SUCCESS`).
const CQE_SKIP: u32 = 1 << 6;
/// Bit of `io_kiocb.flags`: it failed.
const FAIL: u32 = 1 << 8;
/// Bit of `io_kiocb.flags`: it holds something that it gives back when it was carried out (a path).
const NEED_CLEANUP: u32 = 1 << 13;
/// Bit of a completion's flags: more of the same request follow.
pub const MORE: u32 = 1 << 1;

/// Requests that have a place at the same time.
pub const PLACES: u32 = 512;

/// A request under way, and by what its completion is known.
#[repr(C)]
struct Place {
    /// 1 while it is taken.
    users: u64,
    /// The request; 0 until the tag is there.
    request: u64,
    tag: Tag,
}

#[map]
static UNDER_WAY: Array<[Place; PLACES as usize]> = Array::with_max_entries(1, 0);

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

    /// Gives it a place, by which [`Self::completed`] finds it; false where none is left.
    ///
    /// Works without compare-and-swap: who adds 1 and then reads 1 is alone.
    #[inline(always)]
    pub fn keep(self) -> bool {
        let (Some(tag), Some(number)) = (self.tag(), self.number()) else { return false };
        let mut step = 0;
        while step < PLACES {
            let Some(place) = nth_place(number, step) else { return false };
            // SAFETY: a map value, aligned. A place is written by who has taken it.
            unsafe {
                let (users, request) = (&raw mut (*place).users, &raw mut (*place).request);
                // Left behind by the request that was here before in the kernel's memory?
                let is_own = request.read_volatile() == number;
                if !is_own {
                    add(users, 1);
                }
                if is_own || users.read_volatile() == 1 {
                    (&raw mut (*place).tag).write_volatile(tag);
                    request.write_volatile(number);
                    return true;
                }
                add(users, u64::MAX);
            }
            step += 1;
        }
        false
    }

    /// Gives its place back; false where it has none.
    #[inline(always)]
    pub fn forget(self) -> bool {
        let Some(number) = self.number() else { return false };
        let mut step = 0;
        while step < PLACES {
            let Some(place) = nth_place(number, step) else { return false };
            // SAFETY: as in `keep`.
            unsafe {
                let request = &raw mut (*place).request;
                if request.read_volatile() == number {
                    request.write_volatile(0);
                    add(&raw mut (*place).users, u64::MAX);
                    return true;
                }
            }
            step += 1;
        }
        false
    }

    /// Its address, to compute with: the verifier allows that for no pointer that it knows.
    #[inline(always)]
    fn number(self) -> Option<u64> {
        kernel::read((&raw const self.0).cast())
    }

    /// The request whose completion is known by this tag: of those that are under way one that was
    /// carried out, with that result and those flags.
    #[inline(always)]
    #[must_use]
    pub fn completed(tag: Tag, result: i32, flags: u32) -> Option<Self> {
        let mut index = 0;
        while index < PLACES {
            let place = place(index as usize)?;
            // SAFETY: as in `keep`.
            let (key, known) = unsafe {
                (
                    (&raw const (*place).request).read_volatile(),
                    (&raw const (*place).tag).read_volatile(),
                )
            };
            let request = Self(key as Pointer);
            if key != 0
                && known.context == tag.context
                && known.user_data == tag.user_data
                && request.was_carried_out(result, flags)
            {
                return Some(request);
            }
            index += 1;
        }
        None
    }

    /// Others may have the same tag, and are still under way. Of those that were carried out with the
    /// same result one is as good as another.
    #[inline(always)]
    fn was_carried_out(self, result: i32, flags: u32) -> bool {
        let Some(completion) = io_kiocb::cqe.of(self.0) else { return false };
        let own: u32 = io_kiocb::flags.read(self.0).unwrap_or(NEED_CLEANUP);
        (own & NEED_CLEANUP == 0 || own & FAIL != 0)
            && io_cqe::res.read(completion) == Some(result)
            // Before, the descriptor that it works on stands there.
            && io_cqe::flags.read(completion) == Some(flags)
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

    /// The request that is told when this one completes and has no place any more: its own completion was
    /// taken for that of another with the same tag, which is the one that is left.
    #[inline(always)]
    #[must_use]
    pub fn exchanged(self, result: i32) -> Option<Self> {
        let completion = io_kiocb::cqe.of(self.0)?;
        Self::completed(self.tag()?, result, io_cqe::flags.read(completion)?)
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
    /// Of a completion in a `struct io_ring_ctx`.
    #[inline(always)]
    #[must_use]
    pub fn new(context: u64, user_data: u64) -> Self {
        Self { context, user_data }
    }

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

/// Where a request with this address is looked for: one place after the other.
#[inline(always)]
fn nth_place(number: u64, step: u32) -> Option<*mut Place> {
    // Requests lie some hundred bytes apart.
    place((((number >> 8) as u32 + step) & (PLACES - 1)) as usize)
}

#[inline(always)]
fn place(index: usize) -> Option<*mut Place> {
    let places = UNDER_WAY.get_ptr_mut(0)?;
    let index = at_most!(index, PLACES as usize - 1);
    // SAFETY: the index is in the array.
    Some(unsafe { ptr::from_mut(&mut *places).cast::<Place>().add(index) })
}
