//! bpf(2): what aya does not tell about a loaded program, links that are ours to hand on, and reading
//! maps many keys at a time.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// Commands of bpf(2).
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;
/// `ENOTSUPP`, which the kernel returns although it is none of user space's numbers.
const ENOTSUPP: i32 = 524;
/// Keys that are read at a time, at first: a kernel that has more in one bucket asks for more room.
const BATCH: usize = 512;
/// Most bytes of their values, which on a machine of many CPUs are large; but [`FEWEST`] keys at least.
const BATCH_BYTES: usize = 1 << 20;
const FEWEST: usize = 16;

/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Bytes of `struct bpf_prog_info` up to and with `recursion_misses`. The kernel fills in as much
/// as it has and leaves the rest.
const INFO_BYTES: u32 = 224;
/// Offsets of `run_time_ns` and `recursion_misses` (u64).
const RUN_TIME: usize = 192;
const RECURSION_MISSES: usize = 208;

/// Types of maps that have a value for each CPU: hash, array, hash that forgets.
const PER_CPU: [u64; 3] = [5, 6, 10];

/// The start of `union bpf_attr` for this command.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// What the kernel counts of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runs {
    /// How long it ran, while that was measured.
    pub nanoseconds: u64,
    /// How often it was due and was not run, because it, or another on the same kind of hook, was
    /// running on that CPU. 0 before Linux 5.12, which does not count.
    pub misses: u64,
}

/// What the kernel counted of a program since it was loaded.
pub fn runs(program: BorrowedFd<'_>) -> io::Result<Runs> {
    let mut found = [0_u64; INFO_BYTES as usize / 8];
    info(program, &mut found)?;
    Ok(Runs { nanoseconds: found[RUN_TIME / 8], misses: found[RECURSION_MISSES / 8] })
}

/// What the kernel says of an object, as far as there is room. All of it is zero before.
fn info(object: BorrowedFd<'_>, found: &mut [u64]) -> io::Result<()> {
    found.fill(0);
    let mut attributes = InfoAttributes {
        fd: object.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of_val(found)).unwrap_or(0),
        info: found.as_mut_ptr() as u64,
    };
    // SAFETY: `attributes` is what the command takes, of the size given; `info` points at `length`
    // writable bytes that live until after the call. The kernel writes no more than that, and reads
    // pointers in `info`, all of which are null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size_of::<InfoAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where a program can be attached to a cgroup: `enum bpf_attach_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CgroupHook {
    /// A packet leaves.
    Egress = 1,
    /// `bind` of an IPv4 address.
    Bind4 = 8,
    /// `bind` of an IPv6 address.
    Bind6 = 9,
    /// `connect` to an IPv4 address.
    Connect4 = 10,
    /// `connect` to an IPv6 address.
    Connect6 = 11,
    /// Sending by UDP to an IPv4 address.
    Sendmsg4 = 14,
    /// Sending by UDP to an IPv6 address.
    Sendmsg6 = 15,
    /// Receiving by UDP from an IPv4 address.
    Recvmsg4 = 19,
    /// Receiving by UDP from an IPv6 address.
    Recvmsg6 = 20,
    /// `getpeername` of an IPv4 address.
    Getpeername4 = 29,
    /// `getpeername` of an IPv6 address.
    Getpeername6 = 30,
}

/// The part of `union bpf_attr` for making links to cgroups.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup and all below it until the result, and every copy of it, is closed
/// (Linux 5.7).
pub fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    hook: CgroupHook,
) -> io::Result<OwnedFd> {
    let attributes = LinkAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        target: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: hook as u32,
        flags: 0,
    };
    // SAFETY: `attributes` is what the command takes, of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LINK_CREATE,
            &raw const attributes,
            size_of::<LinkAttributes>(),
        )
    };
    let link =
        i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us (closed when a program is executed).
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// The part of `union bpf_attr` for commands on one key.
#[repr(C)]
#[derive(Default)]
struct KeyAttributes {
    map: u32,
    pad: u32,
    key: u64,
    /// The value, or the next key.
    value: u64,
    flags: u64,
}

/// The part for reading many keys.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    /// Where the last batch ended; null: at the start.
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    key_flags: u64,
    flags: u64,
}

/// A hash map, a trie or an array, read and written as bytes.
#[derive(Debug)]
pub struct Table {
    map: OwnedFd,
    key: usize,
    /// Bytes of a value: of all CPUs, each rounded up to 8, where the map has one for each.
    value: usize,
    entries: u32,
    has_batches: bool,
}

impl Table {
    /// The map of this descriptor, if its keys and values have these sizes. `cpus`: all possible CPUs, a
    /// per-CPU map has a value for each.
    pub fn new(map: OwnedFd, key: usize, value: usize, cpus: usize) -> io::Result<Self> {
        // Type, id, sizes of key and value, entries, flags.
        let mut found = [0_u64; 3];
        info(map.as_fd(), &mut found)?;
        let halves = |word: u64| (word & 0xffff_ffff, word >> 32);
        let ((ty, _), sizes) = (halves(found[0]), halves(found[1]));
        let entries = u32::try_from(halves(found[2]).0).unwrap_or(u32::MAX);
        if sizes != (key as u64, value as u64) {
            let message =
                format!("keys and values of {sizes:?} bytes, expected {:?}", (key, value));
            return Err(io::Error::other(message));
        }
        let value = if PER_CPU.contains(&ty) { value.next_multiple_of(8) * cpus } else { value };
        Ok(Self { map, key, value, entries, has_batches: true })
    }

    /// Most keys that it can have.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Hands out every key with its value, or values. What is put in or taken out meanwhile may be
    /// handed out or not; what is there all the time is handed out once where the kernel reads many at
    /// a time (Linux 5.6), and may come twice elsewhere.
    pub fn read(&mut self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        if self.has_batches {
            match self.read_batches(&mut each) {
                Err(error) if is_unknown(&error) => self.has_batches = false,
                result => return result,
            }
        }
        self.read_one_by_one(&mut each)
    }

    fn read_batches(&mut self, each: &mut impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut room = (BATCH_BYTES / self.value.max(1)).clamp(FEWEST, BATCH);
        // Given back at the end: a reading may need much more than most do.
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        let mut from = vec![0_u8; self.key.max(8)];
        let mut to = from.clone();
        let mut is_first = true;
        loop {
            all_keys.resize(room * self.key, 0_u8);
            all_values.resize(room * self.value, 0_u8);
            let mut attributes = BatchAttributes {
                from: if is_first { 0 } else { from.as_ptr() as u64 },
                to: to.as_mut_ptr() as u64,
                keys: all_keys.as_mut_ptr() as u64,
                values: all_values.as_mut_ptr() as u64,
                count: u32::try_from(room).unwrap_or(u32::MAX),
                map: self.map.as_raw_fd().cast_unsigned(),
                ..BatchAttributes::default()
            };
            // SAFETY: `attributes` is what the command takes. `keys` and `values` have room for `count`
            // entries of the sizes that the map was made with, as `new` has checked, for all possible CPUs; `from` and `to`
            // hold at least a key, which is more than what the kernel keeps there. All live until after
            // the call.
            let result = unsafe { call(MAP_LOOKUP_BATCH, &mut attributes) };
            let is_last = match result {
                Ok(()) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    Some(libc::ENOSPC) => {
                        room *= 2;
                        continue;
                    }
                    Some(libc::EINTR) => continue,
                    _ => return Err(error),
                },
            };
            let found = usize::try_from(attributes.count).unwrap_or(0).min(room);
            let keys = all_keys.chunks_exact(self.key);
            for (key, value) in keys.zip(all_values.chunks_exact(self.value)).take(found) {
                each(key, value);
            }
            if is_last {
                return Ok(());
            }
            std::mem::swap(&mut from, &mut to);
            is_first = false;
        }
    }

    fn read_one_by_one(&mut self, each: &mut impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut key: Option<Vec<u8>> = None;
        let mut value = vec![0; self.value];
        loop {
            let mut next = vec![0; self.key];
            match self.on_key(MAP_GET_NEXT_KEY, key.as_deref(), &mut next, 0) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                result => result?,
            }
            match self.on_key(MAP_LOOKUP_ELEM, Some(&next), &mut value, 0) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => {
                    result?;
                    each(&next, &value);
                }
            }
            key = Some(next);
        }
    }

    /// Takes a key out, and hands out what was there. Before Linux 5.14, where that is not one command,
    /// what is added to the value in the very moment is lost.
    pub fn take(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value];
        let taken = match self.on_key(MAP_LOOKUP_AND_DELETE_ELEM, Some(key), &mut value, 0) {
            Err(error) if is_unknown(&error) => self
                .on_key(MAP_LOOKUP_ELEM, Some(key), &mut value, 0)
                .and_then(|()| self.remove(key)),
            result => result,
        };
        match taken {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            result => result.map(|()| Some(value)),
        }
    }

    /// Takes a key out; one that is not there is as good as removed.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        match self.on_key(MAP_DELETE_ELEM, Some(key), &mut [], 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// The value of a key, which is there.
    pub fn get(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value];
        self.on_key(MAP_LOOKUP_ELEM, Some(key), &mut value, 0)?;
        Ok(value)
    }

    /// Puts a value in. Not for per-CPU maps.
    pub fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut value = value.to_vec();
        self.on_key(MAP_UPDATE_ELEM, Some(key), &mut value, 0)
    }

    fn on_key(
        &self,
        command: libc::c_int,
        key: Option<&[u8]>,
        value: &mut [u8],
        flags: u64,
    ) -> io::Result<()> {
        let room = match command {
            MAP_GET_NEXT_KEY => self.key,
            MAP_DELETE_ELEM => 0,
            _ => self.value,
        };
        if key.is_some_and(|key| key.len() != self.key) || value.len() != room {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attributes = KeyAttributes {
            map: self.map.as_raw_fd().cast_unsigned(),
            key: key.map_or(0, |key| key.as_ptr() as u64),
            value: if room == 0 { 0 } else { value.as_mut_ptr() as u64 },
            flags,
            ..KeyAttributes::default()
        };
        // SAFETY: `attributes` is what the commands take; key and value have the sizes that the map was
        // made with, as was just checked, and live until after the call.
        unsafe { call(command, &mut attributes) }
    }
}

/// Whether the kernel does not know the command, or not for this type of map.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP | ENOTSUPP))
}

/// # Safety
/// `attributes` is what the command takes, and what it points at is as large as the command needs.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the caller promises.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
