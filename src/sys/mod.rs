//! System calls that have no safe wrapper elsewhere: one small typed function per call.
//!
//! This is the only home of `unsafe`. Arguments are typed, descriptors owned or borrowed, errors are
//! an [`Errno`]; there is no policy and no logging here. Every function may be called between `clone`
//! and `exec`: none allocates, takes a lock or panics, unless its documentation says so.
#![allow(unsafe_code, reason = "the one place where the kernel is called directly")]

mod clone;
mod exec;
mod pidfd_info;

pub use clone::{Cloned, Request, clone3, exit};
pub use exec::{Pointers, execve};
pub use pidfd_info::pidfd_exit_status;
pub use rustix::io::Errno;

/// The error of the libc call that has just failed.
fn last_error() -> Errno {
    // SAFETY: __errno_location gives a valid pointer to this thread's errno.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: see above; the value is a plain integer that only this thread writes.
    Errno::from_raw_os_error(unsafe { *location })
}
