//! Signals to this process: caught as bytes in a pipe, ignored, or died of.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{IntoRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Signal, getpid, kill_process},
};

/// A signal that was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Which.
    pub signal: Signal,
    /// The kernel sent it by itself, such as for a key on the terminal, and no process.
    pub by_kernel: bool,
}

/// The writing end of the pipe that handlers write to, or -1.
static NOTES: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(number: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: for a handler with SA_SIGINFO the kernel passes one.
    let by_kernel = unsafe { (*info).si_code } > 0;
    let message = [u8::try_from(number).unwrap_or(0), u8::from(by_kernel)];
    // SAFETY: write(2) may be called in a handler, and reads two bytes of ours; errno is this thread's,
    // and is left as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(NOTES.load(Ordering::Relaxed), message.as_ptr().cast(), message.len());
        *errno = before;
    }
}

/// Catches these signals from now on, except those that whoever started us had ignored: those stay
/// ignored. Returns where [`read`] finds them. To be called once.
pub fn catch(signals: &[Signal]) -> io::Result<OwnedFd> {
    let (notes, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    NOTES.store(writer.into_raw_fd(), Ordering::Relaxed);
    for &signal in signals {
        if !is_ignored(signal)? {
            set(signal, note as *const () as libc::sighandler_t)?;
        }
    }
    Ok(notes)
}

/// Ends this process after so many seconds, by a signal.
pub fn set_alarm(seconds: u64) -> io::Result<()> {
    set(Signal::ALARM, libc::SIG_DFL)?;
    let seconds = libc::c_uint::try_from(seconds).unwrap_or(libc::c_uint::MAX);
    // SAFETY: it has no argument but a number, and changes no memory of ours.
    unsafe { libc::alarm(seconds) };
    Ok(())
}

/// The signals that were caught since.
pub fn read(notes: &OwnedFd) -> Vec<Caught> {
    let mut bytes = [0; 128];
    // Each is written at once, and thus read at once.
    let length = rustix::io::read(notes, &mut bytes).unwrap_or(0);
    bytes[..length]
        .chunks_exact(2)
        .filter_map(|note| {
            let signal = Signal::from_named_raw(note[0].into())?;
            Some(Caught { signal, by_kernel: note[1] != 0 })
        })
        .collect()
}

/// Ignores a signal.
pub fn ignore(signal: Signal) -> io::Result<()> {
    set(signal, libc::SIG_IGN)
}

/// Lets a signal do what it does where nobody cares.
pub fn reset(signal: Signal) -> io::Result<()> {
    set(signal, libc::SIG_DFL)
}

/// The first of the two signals that the C library keeps for itself.
pub const RESERVED: u32 = 32;

/// Stops this process. It is stopped, and continued, when this returns: a signal to the whole process
/// might be another thread's to take, some time later.
pub fn stop() {
    // SAFETY: touches no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Resets the two signals that the C library keeps for itself: it ignores them in every program that it
/// starts.
pub fn reset_reserved() -> io::Result<()> {
    // Handler, flags, restorer, signals to block: the default is all zeros.
    let default = [0_u64; 4];
    for number in RESERVED..=RESERVED + 1 {
        // SAFETY: reads an action as large as the kernel's, whose set of signals has 8 bytes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends this process by a signal. Returns where it does not: as the first process of a pid namespace.
pub fn die_of(signal: Signal) {
    let _ = reset(signal);
    let _ = kill_process(getpid(), signal);
}

/// Blocks the signals whose bits are set (bit 0: signal 1) for this thread, and no others.
pub fn block(bits: u64) -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set; the others change nothing else.
    let result = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in (1..=64).filter(|number| bits >> (number - 1) & 1 != 0) {
            // It refuses those that the C library keeps for itself.
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: fills the action, of which all zeros is one as well, and changes nothing.
    let action = unsafe {
        if libc::sigaction(signal.as_raw(), ptr::null(), action.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        action.assume_init()
    };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

fn set(signal: Signal, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: all zeros is an action: no flags, an empty mask. The handler is `note`, which may run at
    // any time, or one of the kernel's two.
    let result = unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(signal.as_raw(), &raw const action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
