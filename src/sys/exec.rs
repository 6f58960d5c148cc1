//! `execve(2)` with lists of strings that were made beforehand.

use super::{Errno, last_error};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;

/// A list of strings as `execve` takes it: pointers with a null pointer at the end.
#[derive(Debug)]
pub struct Pointers<'a> {
    list: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Pointers<'a> {
    /// Allocates.
    pub fn new(strings: impl Iterator<Item = &'a CStr>) -> Self {
        let list = strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect();
        Self { list, strings: PhantomData }
    }
}

/// Becomes another program; returns only when that failed (`execve(2)`).
pub fn execve(path: &CStr, argv: &Pointers<'_>, env: &Pointers<'_>) -> Errno {
    // SAFETY: `path` ends with a zero byte; both lists end with a null pointer, which only
    // `Pointers::new` can make, and the strings live as long as they do.
    unsafe { libc::execve(path.as_ptr(), argv.list.as_ptr(), env.list.as_ptr()) };
    last_error()
}
