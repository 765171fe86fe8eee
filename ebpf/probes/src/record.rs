//! Records on their way into a ring.
//!
//! A record of fixed size is built on the stack. One with texts is a [`Draft`] in a scratch buffer
//! of this CPU: the fixed part first, the bytes of the texts behind it.

use aya_ebpf::{
    helpers::generated::{
        bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
        bpf_probe_read_user_str,
    },
    macros::map,
    maps::PerCpuArray,
};
use core::{ffi::c_void, marker::PhantomData, mem::ManuallyDrop, ptr};

use crate::{
    budget::is_within_budget,
    events::{
        Ring,
        catalogue::Record,
        sample::Taken,
        wire::{
            BUDGET_BIT, FILTER_BIT, FILTER_SLOTS, Header, LOST_AGENT_BUDGET, LOST_MISSED,
            LOST_RING, MAX_ARGS, MAX_TEXT, Text, URGENT_BIT,
        },
    },
    kernel::Pointer,
    map::{BULK, LIFE, URGENT, add, filter as filter_at, filter_place, lost, turn},
};

/// Room for the largest record: fixed part, three texts and the arguments, with some to spare.
/// A value of a per-CPU array may have 32 KiB.
const SLOT_BYTES: usize = 24 * 1024 - 8;
/// Programs that build a record at the same time on one CPU: one interrupted by another, and that
/// by a third.
pub(crate) const SLOTS: u32 = 3;

/// A scratch buffer, in use while `users` is 1.
#[repr(C)]
pub struct Slot {
    users: u64,
    bytes: [u8; SLOT_BYTES],
}

#[map]
static SCRATCH: PerCpuArray<Slot> = PerCpuArray::with_max_entries(SLOTS, 0);

/// `at_most!(NUMBER, MOST)`: the number, which is at most that constant, as the verifier can see at
/// this very place.
///
/// The compiler leaves out checks that it knows to hold, and tests one copy of a number and uses
/// another; the verifier forgets bounds when a number is spilled (before Linux 5.16) or copied before
/// it is tested. So the test is an instruction of our own on the register that comes out.
macro_rules! at_most {
    ($number:expr, $most:expr) => {{
        let mut number: usize = $number;
        #[cfg(target_arch = "bpf")]
        // SAFETY: changes nothing but the register.
        unsafe {
            core::arch::asm!(
                "if {number} <= {most} goto +1",
                "{number} = {most}",
                number = inout(reg) number,
                most = const $most as i32,
                options(nomem, nostack),
            );
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            number = number.min($most);
        }
        number
    }};
}

pub(crate) use at_most;

/// Puts a record of fixed size into the ring of its kind, if it passes the kind's filter.
#[inline(always)]
pub fn emit<R: Record>(word: u64, record: &R) {
    if word & FILTER_BIT != 0 {
        // The filter looks at scratch buffers only. What does not reach it counts as missed.
        if let Some(draft) = Draft::new(*record) {
            draft.emit(word);
        }
        return;
    }
    output(R::KIND, R::RING, word, ptr::from_ref(record).cast(), size_of::<R>() as u64);
}

/// One helper call for reserving, copying and submitting: as fast as the two that writing in place
/// takes, and the size need not be a constant. No flags: the kernel wakes the reader only if it had
/// read everything.
#[inline(always)]
fn output(kind: u16, ring: Ring, word: u64, record: *const c_void, length: u64) {
    if word & BUDGET_BIT != 0 {
        // SAFETY: every record begins with a header.
        let cgroup = unsafe { (*record.cast::<Header>()).cgroup };
        if is_within_budget(cgroup, kind.into()) == 0 {
            return;
        }
    }
    let ring = if word & URGENT_BIT != 0 {
        &URGENT
    } else if let Ring::Life = ring {
        &LIFE
    } else {
        &BULK
    };
    let map = ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: `record` has `length` initialised bytes; the verifier checks it.
    let result = unsafe {
        aya_ebpf::helpers::generated::bpf_ringbuf_output(map, record.cast_mut(), length, 0)
    };
    if result < 0 {
        lost(kind, LOST_RING);
    }
}

/// Whether the record in this scratch buffer passes a filter: a function that the verifier checks by
/// itself, once, and not in each program at each place.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn record_passes(filter: u32, slot: u32) -> u32 {
    let place = filter;
    let (Some(filter), Some(slot)) = (filter_at(place), SCRATCH.get_ptr_mut(slot)) else {
        return 1;
    };
    // SAFETY: a map value; the record in it belongs to the caller.
    let bytes = unsafe { (&raw mut (*slot).bytes).cast::<u8>() };
    let passes = filter.passes(|at| {
        let at = at_most!(at, SLOT_BYTES - 8);
        // SAFETY: within the buffer, as checked.
        unsafe { word_at(bytes.add(at)) }
    });
    if !passes || filter.sample == 0 {
        return u32::from(passes);
    }
    let thinned = filter.sample();
    // SAFETY: every record begins with a header, and the buffer is aligned for it.
    let header = unsafe { &mut *bytes.cast::<Header>() };
    header.sample = thinned.sample().number();
    match thinned.takes(header.pid, turn(place)) {
        Taken::Yes => 1,
        Taken::No => 0,
        Taken::Spared => {
            lost((place / u32::from(FILTER_SLOTS)) as u16, LOST_AGENT_BUDGET);
            0
        }
    }
}

/// The 8 bytes at any address: the compiler would read them one by one, the kernel does not ask for
/// that on machines that can do without.
#[inline(always)]
unsafe fn word_at(bytes: *const u8) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: reads what the caller says can be read.
    unsafe {
        let word: u64;
        core::arch::asm!(
            "{word} = *(u64 *)({bytes} + 0)",
            word = out(reg) word,
            bytes = in(reg) bytes,
            options(nostack, readonly),
        );
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        bytes.cast::<u64>().read_unaligned()
    }
}

/// A record with texts, being built. Dropping it gives the scratch buffer back.
pub struct Draft<R> {
    slot: *mut Slot,
    /// Which slot it is.
    index: u32,
    length: usize,
    record: PhantomData<R>,
}

impl<R> Draft<R> {
    /// Takes a scratch buffer of this CPU, if one is left.
    ///
    /// Works without compare-and-swap, which kernels before 5.12 do not have: who adds 1 and then
    /// reads 1 is alone, whether it was interrupted in between or not.
    #[inline(always)]
    fn claim(length: usize) -> Option<Self> {
        let mut index = 0;
        while index < SLOTS {
            let slot = SCRATCH.get_ptr_mut(index)?;
            // SAFETY: a map value, aligned; other users of it only add and read.
            let users = unsafe { &raw mut (*slot).users };
            add(users, 1);
            if unsafe { users.read_volatile() } == 1 {
                return Some(Self { slot, index, length, record: PhantomData });
            }
            add(users, u64::MAX);
            index += 1;
        }
        None
    }

    /// As [`Self::claim`]; where none is left the event counts as missed.
    #[inline(always)]
    fn claim_or_miss(kind: u16, length: usize) -> Option<Self> {
        let draft = Self::claim(length);
        if draft.is_none() {
            lost(kind, LOST_MISSED);
        }
        draft
    }

    /// Where the draft is, as numbers: which scratch buffer, and how far it is filled.
    #[inline(always)]
    pub(crate) fn place(&self) -> (u32, u32) {
        (self.index, self.length as u32)
    }

    /// The draft at [`Self::place`]: a function that the verifier checks by itself is passed numbers
    /// only. Dropping this does not give the scratch buffer back.
    #[inline(always)]
    pub(crate) fn at_place(index: u32, length: u32) -> Option<ManuallyDrop<Self>> {
        let slot = SCRATCH.get_ptr_mut(index)?;
        let length = length as usize;
        Some(ManuallyDrop::new(Self { slot, index, length, record: PhantomData }))
    }

    /// Takes over what such a function has appended.
    #[inline(always)]
    pub(crate) fn filled_to(&mut self, length: u32) {
        self.length = length as usize;
    }

    /// Bytes so far.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn bytes(&self) -> *mut u8 {
        // SAFETY: `slot` is a map value for as long as the program runs.
        unsafe { (&raw mut (*self.slot).bytes).cast() }
    }

    /// Address of the bytes of a text, only good for reading through a helper.
    #[inline(always)]
    pub fn at(&self, text: Text) -> Pointer {
        self.bytes().wrapping_add(usize::from(text.offset)).cast()
    }

    /// Room for `N` bytes behind what is there, or `None` if the draft is full.
    #[inline(always)]
    pub fn room<const N: usize>(&self) -> Option<*mut u8> {
        if self.length > SLOT_BYTES - N {
            return None;
        }
        let length = at_most!(self.length, SLOT_BYTES - N);
        // SAFETY: checked above; the verifier checks it again.
        Some(unsafe { self.bytes().add(length) })
    }

    /// Makes the first `length` bytes of the [`Self::room`] a text of the record.
    #[inline(always)]
    pub fn keep(&mut self, length: usize, cut: bool) -> Text {
        let text = Text::new(self.length as u16, length as u16, cut);
        self.length += length;
        text
    }

    /// Appends a string of the calling process; `None` if it cannot be read.
    #[inline(always)]
    pub fn user_text(&mut self, string: *const u8) -> Option<Text> {
        let room = self.room::<{ MAX_TEXT + 2 }>()?;
        // SAFETY: the room is that large.
        let read =
            unsafe { bpf_probe_read_user_str(room.cast(), MAX_TEXT as u32 + 2, string.cast()) };
        self.keep_string(read)
    }

    /// Appends a string in kernel memory; `None` if it cannot be read.
    #[inline(always)]
    pub fn kernel_text(&mut self, string: Pointer) -> Option<Text> {
        let room = self.room::<{ MAX_TEXT + 2 }>()?;
        // SAFETY: the room is that large.
        let read = unsafe { bpf_probe_read_kernel_str(room.cast(), MAX_TEXT as u32 + 2, string) };
        self.keep_string(read)
    }

    /// `read`: bytes with the NUL. One more than fits was asked for, so a full buffer means a cut.
    #[inline(always)]
    fn keep_string(&mut self, read: i64) -> Option<Text> {
        if read < 1 {
            return None;
        }
        let length = read as usize - 1;
        Some(if length > MAX_TEXT { self.keep(MAX_TEXT, true) } else { self.keep(length, false) })
    }

    /// Appends `length` bytes of the calling process's memory, `MAX_ARGS` at most.
    #[inline(always)]
    pub fn user_bytes(&mut self, bytes: *const u8, length: usize) -> Option<Text> {
        let room = self.room::<MAX_ARGS>()?;
        let kept = at_most!(length, MAX_ARGS);
        // SAFETY: the room is that large.
        let result = unsafe { bpf_probe_read_user(room.cast(), kept as u32, bytes.cast()) };
        (result == 0).then(|| self.keep(kept, length > kept))
    }

    /// Appends `length` bytes of kernel memory, `MAX_TEXT` at most.
    #[inline(always)]
    pub fn kernel_bytes(&mut self, bytes: Pointer, length: usize) -> Option<Text> {
        let room = self.room::<MAX_TEXT>()?;
        let kept = at_most!(length, MAX_TEXT);
        // SAFETY: the room is that large.
        let result = unsafe { bpf_probe_read_kernel(room.cast(), kept as u32, bytes) };
        (result == 0).then(|| self.keep(kept, length > kept))
    }

    /// Puts the record into a ring, if it passes the kind's filter.
    #[inline(always)]
    pub fn emit_as(self, kind: u16, ring: Ring, word: u64) {
        if word & FILTER_BIT != 0 && record_passes(filter_place(kind, word), self.index) == 0 {
            return;
        }
        let length = at_most!(self.length, SLOT_BYTES);
        output(kind, ring, word, self.bytes().cast(), length as u64);
    }
}

impl<R: Record> Draft<R> {
    /// A draft that begins with this fixed part, or `None` (counted) where no scratch buffer is left.
    #[inline(always)]
    pub fn new(record: R) -> Option<Self> {
        let draft = Self::claim_or_miss(R::KIND, size_of::<R>())?;
        draft.begin(record);
        Some(draft)
    }

    /// The same, and the caller counts.
    #[inline(always)]
    pub fn uncounted(record: R) -> Option<Self> {
        let draft = Self::claim(size_of::<R>())?;
        draft.begin(record);
        Some(draft)
    }

    #[inline(always)]
    fn begin(&self, record: R) {
        // SAFETY: the slot is larger than any record, and aligned to 8.
        unsafe { self.bytes().cast::<R>().write(record) };
    }

    /// The fixed part.
    #[inline(always)]
    pub fn record(&mut self) -> &mut R {
        // SAFETY: the bytes are aligned to 8, `new` wrote them, and all bit patterns are valid.
        unsafe { &mut *self.bytes().cast::<R>() }
    }

    /// Puts the record into the ring of its kind.
    #[inline(always)]
    pub fn emit(self, word: u64) {
        self.emit_as(R::KIND, R::RING, word);
    }
}

impl Draft<Header> {
    /// A draft of a kind that is known only at run time.
    #[inline(always)]
    pub fn of_header(header: Header) -> Option<Self> {
        let draft = Self::claim_or_miss(header.kind, size_of::<Header>())?;
        // SAFETY: the slot is larger, and aligned to 8.
        unsafe { draft.bytes().cast::<Header>().write(header) };
        Some(draft)
    }
}

impl<R> Drop for Draft<R> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the slot was claimed by this draft.
        add(unsafe { &raw mut (*self.slot).users }, u64::MAX);
    }
}
