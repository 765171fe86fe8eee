//! Any classic tracepoint: its own record, byte for byte, behind a header.
//!
//! Loaded once for each tracepoint from the configuration, with what the tracepoint's `format` says
//! as frozen constants.
#![no_std]
#![no_main]

use tipstaff_probes::{
    aya_ebpf::{
        EbpfContext as _, Global, helpers::generated::bpf_probe_read_kernel, macros::tracepoint,
        programs::TracePointContext,
    },
    events::{
        Ring,
        tracepoint::{MAX_BYTES, MAX_LOCATIONS, RELATIVE},
        wire::{ABSENT, Header, LOST_MISSED, MAX_TEXT},
    },
    kernel::{self, Pointer},
    map::{lost, wanted},
    record::Draft,
    task,
};

/// Largest record, as a length.
const BYTES_AT_MOST: usize = MAX_BYTES as usize;

/// Number of the kind.
#[unsafe(no_mangle)]
static KIND: Global<u32> = Global::new(0);
/// Bytes of the tracepoint's record. Behind it the kernel's buffer holds what other events left.
#[unsafe(no_mangle)]
static BYTES: Global<u32> = Global::new(0);
/// Offset of its first own field: before it lie `common_*`, where eBPF sees a kernel pointer.
#[unsafe(no_mangle)]
static FIRST: Global<u32> = Global::new(8);
/// Offset of each `__data_loc` field, then [`ABSENT`].
#[unsafe(no_mangle)]
static LOCATIONS: Global<[u32; MAX_LOCATIONS]> = Global::new([ABSENT; MAX_LOCATIONS]);

/// 1 if it is passed by what the current process does, never in an interrupt that came while it ran.
#[unsafe(no_mangle)]
static IN_PROCESS: Global<u32> = Global::new(0);

#[tracepoint]
fn any(ctx: TracePointContext) -> u32 {
    on_event(ctx.as_ptr());
    0
}

#[inline(always)]
fn on_event(own: Pointer) {
    let kind = KIND.load() as u16;
    let word = wanted(kind);
    if word == 0 || IN_PROCESS.load() != 0 && task::is_hidden() {
        return;
    }
    let Some(mut draft) = Draft::of_header(task::header(kind, word)) else { return };
    match copy(&mut draft, own) {
        Some(()) => draft.emit_as(kind, Ring::Bulk, word),
        None => lost(kind, LOST_MISSED),
    }
}

/// Appends the tracepoint's record and what its `__data_loc` fields point at.
#[inline(always)]
fn copy(draft: &mut Draft<Header>, own: Pointer) -> Option<()> {
    let record = draft.room::<BYTES_AT_MOST>()?;
    let bytes = BYTES.load() as usize;
    if bytes > BYTES_AT_MOST {
        return None; // the runtime does not do this; the verifier cannot know
    }
    // SAFETY: the room is that large, and aligned to 8.
    unsafe {
        bpf_probe_read_kernel(record.cast(), bytes as u32, own);
        record.cast::<u64>().write(0);
        if FIRST.load() > 8 {
            record.cast::<u64>().add(1).write(0);
        }
    }
    let base = draft.keep(bytes, false).offset;
    let locations = LOCATIONS.load();
    let mut index = 0;
    while index < MAX_LOCATIONS {
        let location = locations[index];
        if location == ABSENT {
            break;
        }
        let field = location & (RELATIVE - 1);
        let from = if location & RELATIVE != 0 { field + 4 } else { 0 };
        let found: u32 = kernel::read(own.wrapping_byte_add(field as usize))?;
        let (mut length, offset) = ((found >> 16) as usize, found & 0xffff);
        let string = own.wrapping_byte_add((from + offset) as usize);
        // Of a string that just fits the NUL need not.
        if length == MAX_TEXT + 1 && kernel::read(string.wrapping_byte_add(MAX_TEXT)) == Some(0_u8)
        {
            length = MAX_TEXT;
        }
        let moved = match draft.kernel_bytes(string, length) {
            // The flag of a text that was cut is in its length.
            Some(text) => u32::from(text.length) << 16 | (u32::from(text.offset - base) - from),
            // It cannot be read: the field has no value.
            None => 0,
        };
        if field as usize > BYTES_AT_MOST - size_of::<u32>() {
            return None;
        }
        // SAFETY: checked above.
        unsafe { record.add(field as usize).cast::<u32>().write_unaligned(moved) };
        index += 1;
    }
    Some(())
}
