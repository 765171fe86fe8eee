//! Paths, by walking from a directory entry up to the root that the calling process sees.
//!
//! `bpf_d_path` is refused in all program types that tracepoints can have, so this does what the
//! kernel's `d_path` does: name by name through the parents, and at the root of a mount on through
//! the place where it is mounted. No locks are taken: a rename at the same moment can give a path
//! that mixes old and new names, never anything but names that the files had.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::map, maps::PerCpuArray};

use crate::{
    events::{
        catalogue::FILE_STATE,
        index,
        wire::{MAX_TEXT, Text},
    },
    kernel::{
        self, Pointer, dentry, fdtable, file, files_struct, fs_struct, mount, task_struct, vfsmount,
    },
    record::{Draft, SLOTS},
    task,
};

/// The file has a name that leads to it from the caller's root.
pub const PRESENT: u8 = index(FILE_STATE, "present");
/// Its name was removed; the path is the one that it had.
pub const DELETED: u8 = index(FILE_STATE, "deleted");
/// It never had a name: the text is `memfd:NAME`.
pub const MEMFD: u8 = index(FILE_STATE, "memfd");
/// No way leads from the caller's root to it (another mount namespace or root, a detached mount, or
/// more than [`MAX_STEPS`] levels): the text is the known end of the path, and begins without `/`.
pub const UNREACHABLE: u8 = index(FILE_STATE, "unreachable");
/// A pipe, a socket, or another object of the kernel: the text is its name there, often empty.
pub const NOT_A_FILE: u8 = index(FILE_STATE, "not_a_file");

/// The descriptor that stands for the working directory.
pub const AT_FDCWD: i32 = -100;

/// Names and mounts that are walked through at most.
const MAX_STEPS: u32 = 256;
/// Room for the names, filled from its end: longer paths are cut at [`MAX_TEXT`] afterwards.
const ROOM: usize = 16 * 1024;
/// What the kernel's name for a memfd begins with. Users cannot name such an entry.
const MEMFD_NAME: [u8; 6] = *b"memfd:";
/// Longest name.
const NAME_MAX: usize = 255;

/// A walk under way: where it is, and what it has found.
#[repr(C)]
struct Walk {
    place: Place,
    root: Place,
    /// Root of `place.mount`.
    mount_root: u64,
    /// Index in `FILE_STATE`.
    state: u32,
    /// 1 if the beginning of the path is missing.
    too_long: u64,
    /// Where in `bytes` the path starts: it is put together from its end.
    start: u32,
    /// `ROOM` for what is kept, and a name's length behind it, so that the verifier sees that a
    /// name that begins anywhere in the room ends inside.
    bytes: [u8; ROOM + NAME_MAX + 1],
}

/// One for each scratch buffer: who builds a record has both to itself. A program can be interrupted,
/// and in Linux 7.2 preempted, by another one that looks for paths too.
#[map]
static PATH: PerCpuArray<Walk> = PerCpuArray::with_max_entries(SLOTS, 0);

/// A `struct path`: a directory entry, and the mount through which it is seen.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    mount: u64,
    entry: u64,
}

/// What a walk needs of a `struct dentry`, in one read: these members lie side by side.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    /// `d_hash.pprev`: null once the name is removed.
    hashed: u64,
    parent: u64,
    name_hash: u32,
    name_length: u32,
    name: u64,
}

/// A path in a record, and what became of the file ([`FILE_STATE`]).
#[derive(Clone, Copy)]
pub struct Found {
    /// The path.
    pub text: Text,
    /// Index in [`FILE_STATE`].
    pub state: u8,
}

/// What a function that the verifier checks by itself returns: a text, what became of the file, and
/// how far the record is filled now. Without an offset there is no text.
#[derive(Clone, Copy)]
struct Packed(u64);

impl Packed {
    const NONE: Self = Self(0);

    #[inline(always)]
    fn new(text: Text, state: u8, draft: &Draft<()>) -> Self {
        Self(
            u64::from(text.offset)
                | u64::from(text.length) << 16
                | u64::from(draft.place().1 as u16) << 32
                | u64::from(state) << 48,
        )
    }

    #[inline(always)]
    fn take_over<R>(self, draft: &mut Draft<R>) -> Option<Found> {
        let text = Text { offset: self.0 as u16, length: (self.0 >> 16) as u16 };
        if text.offset == 0 {
            return None;
        }
        draft.filled_to(u32::from((self.0 >> 32) as u16));
        Some(Found { text, state: (self.0 >> 48) as u8 })
    }
}

/// Appends the path of a `struct path`, as the current process sees it.
#[inline(always)]
pub fn of<R>(draft: &mut Draft<R>, path: Pointer) -> Option<Found> {
    let (slot, length) = draft.place();
    Packed(path_append(slot, length, path as u64)).take_over(draft)
}

/// Appends the path of an open file.
#[inline(always)]
pub fn of_file<R>(draft: &mut Draft<R>, open_file: Pointer) -> Option<Found> {
    of(draft, file::f_path.of(open_file)?)
}

/// The open file behind a descriptor of the current process.
#[inline(always)]
pub fn file_of(descriptor: i32) -> Option<Pointer> {
    let files: Pointer = task_struct::files.read(task::current())?;
    let table: Pointer = files_struct::fdt.read(files)?;
    let count: u32 = fdtable::max_fds.read(table)?;
    let descriptor = u32::try_from(descriptor).ok().filter(|number| *number < count)?;
    let array: Pointer = fdtable::fd.read(table)?;
    let open_file: Pointer =
        kernel::read(array.wrapping_byte_add(descriptor as usize * size_of::<Pointer>()))?;
    (!open_file.is_null()).then_some(open_file)
}

/// The number of the mount through which an open file is seen.
#[inline(always)]
pub fn mount_of(open_file: Pointer) -> Option<u32> {
    // The first member of a `struct path` is its mount.
    let mounted: Pointer = file::f_path.read(open_file)?;
    mount::mnt_id.read(mount::mnt.container_of(mounted)?)
}

/// The path that a given path means: itself if it is absolute, else behind the directory that it
/// starts from. Nothing is resolved: symbolic links and `..` stay as they are.
#[inline(always)]
pub fn joined<R>(draft: &mut Draft<R>, directory: i32, given: Text) -> Option<Text> {
    let (slot, length) = draft.place();
    let given = u32::from(given.offset) | u32::from(given.length) << 16;
    Some(Packed(path_join(slot, length, directory, given)).take_over(draft)?.text)
}

/// [`of`], as a function that the verifier checks by itself, once: inlined into a loop or a program
/// it would follow each way through each turn, and give up.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn path_append(slot: u32, length: u32, path: u64) -> u64 {
    append(slot, length, path as Pointer).unwrap_or(Packed::NONE).0
}

#[inline(always)]
fn append(slot: u32, length: u32, path: Pointer) -> Option<Packed> {
    let mut draft = Draft::<()>::at_place(slot, length)?;
    let place: Place = kernel::read(path)?;
    let root: Place = fs_struct::root.read(task_struct::fs.read(task::current())?)?;
    let walk = PATH.get_ptr_mut(slot)?;
    // SAFETY: a map value that nothing else uses until the end: it belongs to the draft. `path_step`
    // has its own pointer to it.
    unsafe { (*walk).begin(place, root) };
    let mut steps = 0;
    while path_step(slot) == GO_ON {
        steps += 1;
        if steps > MAX_STEPS {
            // SAFETY: as above.
            unsafe { (*walk).give_up() };
            break;
        }
    }
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    let start = walk.start as usize;
    let mut text = draft
        .kernel_bytes(walk.bytes.as_ptr().wrapping_add(start).cast(), ROOM.saturating_sub(start))?;
    if walk.too_long != 0 {
        text.length |= Text::CUT;
    }
    Some(Packed::new(text, walk.state as u8, &draft))
}

/// [`joined`], as a function that the verifier checks by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn path_join(slot: u32, length: u32, directory: i32, given: u32) -> u64 {
    let given = Text { offset: given as u16, length: (given >> 16) as u16 };
    join(slot, length, directory, given).unwrap_or(Packed::NONE).0
}

#[inline(always)]
fn join(slot: u32, length: u32, directory: i32, given: Text) -> Option<Packed> {
    let mut draft = Draft::<()>::at_place(slot, length)?;
    let given_length = usize::from(given.len()).min(MAX_TEXT);
    let source = draft.at(given);
    if given_length > 0 && kernel::read::<u8>(source)? == b'/' {
        return Some(Packed::new(given, PRESENT, &draft));
    }
    let start = if directory == AT_FDCWD {
        fs_struct::pwd.of(task_struct::fs.read(task::current())?)?
    } else {
        file::f_path.of(file_of(directory)?)?
    };
    let base = of(&mut draft, start)?.text;
    let base_length = usize::from(base.len()).min(MAX_TEXT);
    let ends_with_slash = base_length == 1 && kernel::read::<u8>(draft.at(base))? == b'/';
    let slash = usize::from(base_length > 0 && !ends_with_slash);
    let room = draft.room::<{ MAX_TEXT + 1 }>()?;
    // SAFETY: the room has one byte more than the longest text.
    let result = unsafe {
        room.write(b'/');
        bpf_probe_read_kernel(room.add(slash).cast(), given_length as u32, source)
    };
    if result != 0 {
        return None;
    }
    let length = base_length + slash + given_length;
    let kept = length.min(MAX_TEXT);
    draft.keep(kept - base_length, false);
    let cut = base.is_cut() || given.is_cut() || length > kept;
    Some(Packed::new(Text::new(base.offset, kept as u16, cut), PRESENT, &draft))
}

/// One name or one mount. Checked by itself as well.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn path_step(slot: u32) -> u32 {
    let Some(walk) = PATH.get_ptr_mut(slot) else { return WALKED };
    // SAFETY: as in `append`, which uses its own pointer before and after.
    if unsafe { (*walk).step() } { GO_ON } else { WALKED }
}

/// Result of [`path_step`]: all done.
const WALKED: u32 = 0;
/// Result of [`path_step`]: the root is not reached yet.
const GO_ON: u32 = 1;
impl Walk {
    #[inline(always)]
    fn begin(&mut self, place: Place, root: Place) {
        self.place = place;
        self.root = root;
        self.mount_root = mount_root(place);
        self.state = PRESENT.into();
        self.too_long = 0;
        self.start = ROOM as u32;
    }

    /// Whether to go on.
    #[inline(always)]
    fn step(&mut self) -> bool {
        let is_leaf = self.start == ROOM as u32;
        if self.place == self.root {
            // The root itself is the one path that ends with a slash.
            if is_leaf {
                self.start = ROOM as u32 - 1;
                self.bytes[ROOM - 1] = b'/';
            }
            return false;
        }
        if self.place.entry == self.mount_root {
            let Some(outside) = mounted_at(self.place.mount) else { return self.stop(UNREACHABLE) };
            self.place = outside;
            self.mount_root = mount_root(outside);
            return true;
        }
        let Some(entry) = entry_at(self.place.entry) else { return self.stop(UNREACHABLE) };
        if self.start < (NAME_MAX + 1) as u32 {
            return self.give_up();
        }
        let name = self.prepend(&entry);
        if entry.parent == self.place.entry {
            if is_leaf && name[0] == b'/' {
                self.start = ROOM as u32; // what the kernel calls an entry without a name
            }
            return self.stop(match (is_leaf, name) {
                (false, _) => UNREACHABLE,
                (true, MEMFD_NAME) => MEMFD,
                (true, _) => NOT_A_FILE,
            });
        }
        if is_leaf && entry.hashed == 0 {
            self.state = DELETED.into();
        }
        self.place.entry = entry.parent;
        true
    }

    /// Ends before the root is reached: what was found has no slash before it.
    #[inline(always)]
    fn stop(&mut self, state: u8) -> bool {
        self.state = state.into();
        if self.start < ROOM as u32 {
            self.start += 1;
        }
        false
    }

    /// Ends where the path is too long to be followed any further.
    #[inline(always)]
    fn give_up(&mut self) -> bool {
        self.too_long = 1;
        self.stop(UNREACHABLE)
    }

    /// Puts a slash and the name before what is there. Returns the first bytes of the name, and
    /// what else is there if it is shorter.
    #[inline(always)]
    fn prepend(&mut self, entry: &Entry) -> [u8; MEMFD_NAME.len()] {
        let length = entry.name_length as usize & NAME_MAX;
        self.start -= length as u32 + 1;
        let at = self.start as usize & (ROOM - 1);
        // SAFETY: `at` is in the room, and the name's length behind it in the buffer.
        unsafe {
            let bytes = self.bytes.as_mut_ptr().add(at);
            bytes.write(b'/');
            bpf_probe_read_kernel(bytes.add(1).cast(), length as u32, entry.name as Pointer);
            bytes.add(1).cast::<[u8; MEMFD_NAME.len()]>().read_unaligned()
        }
    }
}

/// Root of the mount that a place is in; 0, which is no entry, where there is none.
#[inline(always)]
fn mount_root(place: Place) -> u64 {
    vfsmount::mnt_root.read(place.mount as Pointer).unwrap_or(0)
}

#[inline(always)]
fn entry_at(entry: u64) -> Option<Entry> {
    kernel::read(dentry::d_hash.of(entry as Pointer)?.wrapping_byte_add(size_of::<u64>()))
}

/// Where the root of a mount is mounted; `None` if nowhere.
#[inline(always)]
fn mounted_at(mounted: u64) -> Option<Place> {
    let inner = mount::mnt.container_of(mounted as Pointer)?;
    let outer: Pointer = mount::mnt_parent.read(inner)?;
    if outer == inner {
        return None;
    }
    Some(Place { mount: mount::mnt.of(outer)? as u64, entry: mount::mnt_mountpoint.read(inner)? })
}
