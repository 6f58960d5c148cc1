//! Extended regular expressions of the C library (regex(7)).

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// A compiled expression. Allocates.
pub struct Pattern(Box<libc::regex_t>);

impl Pattern {
    /// Compiles an expression; an error is the library's own sentence about it.
    pub fn new(text: &CStr) -> Result<Self, String> {
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: `compiled` is writable memory of the right size and alignment, and the text ends with a zero.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if code != 0 {
            return Err(sentence(code, &compiled));
        }
        // SAFETY: regcomp has returned 0, so it has filled the whole of it.
        Ok(Self(unsafe { compiled.assume_init() }))
    }

    /// Whether any part of the text matches.
    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled and not freed before the drop, the text ends with a zero, and
        // no place for matches is read where their number is 0.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and is freed here alone.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

fn sentence(code: i32, compiled: &MaybeUninit<libc::regex_t>) -> String {
    let mut text = [0u8; 128];
    // SAFETY: the buffer is as long as is said, and regerror takes the expression that the error is of.
    unsafe { libc::regerror(code, compiled.as_ptr(), text.as_mut_ptr().cast::<c_char>(), text.len()) };
    CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy().into_owned()
}
