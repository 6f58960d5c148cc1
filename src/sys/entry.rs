//! A program's first function, in place of the standard library's.

use super::Errno;
use rustix::fs::{Mode, OFlags};
use std::sync::OnceLock;

/// Where the argument strings stand that the kernel has put on the first stack.
static ARGUMENTS: OnceLock<(usize, usize)> = OnceLock::new();

pub(super) fn arguments() -> Option<(usize, usize)> {
    ARGUMENTS.get().copied()
}

/// Makes a function without arguments, which returns the exit code, a program's first one.
///
/// The standard library's own reads `/proc/self/maps` and makes a second stack, to say in words that the first
/// one is full: a tenth of what a short command costs. What it does beside that is done here, too. For a
/// C library that tells the standard library the arguments by itself: that is glibc.
#[macro_export]
macro_rules! entry {
    ($run:expr) => {
        #[allow(unsafe_code, reason = "the name that the C library calls")]
        // SAFETY: no other function of this program has the name, and it is of the form that the C library calls.
        #[unsafe(no_mangle)]
        extern "C" fn main(count: std::ffi::c_int, words: *const *const std::ffi::c_char) -> std::ffi::c_int {
            // SAFETY: these are the arguments of `main`, and nothing has run before.
            unsafe { $crate::sys::begin(count, words) };
            let code: u8 = $run();
            // With what is still to be written to standard output.
            std::process::exit(code.into())
        }
    };
}

/// What the standard library sees to before `main`: the three standard streams are open, or the next file
/// would be taken for one of them, and who writes where nobody reads gets an error for it.
///
/// # Safety
/// `count` and `words` have to be the arguments of the C library's `main`.
pub unsafe fn begin(count: std::ffi::c_int, words: *const *const std::ffi::c_char) {
    // SAFETY: it takes two integers, and there is no handler to lose.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let is_open = |number: std::ffi::c_int| {
        // SAFETY: integers alone, and nothing changes.
        let flags = unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD) };
        flags >= 0
    };
    while !(0..3).all(is_open) {
        // The lowest number that is free; it stays open for as long as the process lives.
        match rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty()) {
            Ok(null) => drop(std::os::fd::IntoRawFd::into_raw_fd(null)),
            Err(Errno::INTR) => {}
            Err(_) => super::exit(1),
        }
    }
    let Some(last) = usize::try_from(count).ok().and_then(|count| count.checked_sub(1)) else { return };
    // SAFETY: the first of `count` pointers, and there is one.
    let first = unsafe { words.read() };
    // SAFETY: this is the place of the last of them.
    let last = unsafe { words.add(last) };
    // SAFETY: see above.
    let last = unsafe { last.read() };
    // SAFETY: each points to a string with a zero byte at its end.
    let length = unsafe { std::ffi::CStr::from_ptr(last) }.count_bytes();
    let (start, end) = (first.expose_provenance(), last.expose_provenance().saturating_add(length + 1));
    // Set once: there is one first function.
    let _ = ARGUMENTS.set((start, end));
}
