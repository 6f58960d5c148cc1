//! What others see of a process that executes nothing.

use std::io;

/// Where the kernel keeps the arguments that this process was started with, which anybody may read as
/// its command line (`arg_start` and `arg_end` of proc_pid_stat(5)).
#[derive(Debug, Clone, Copy)]
pub struct Arguments {
    start: usize,
    end: usize,
}

impl Arguments {
    /// Those of the calling process. Allocates.
    pub fn find() -> io::Result<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name before the bracket may hold anything; behind it the first field is the third.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let mut fields = fields.split_ascii_whitespace().skip(48 - 3).map(str::parse);
        match (fields.next(), fields.next()) {
            (Some(Ok(start)), Some(Ok(end))) if start != 0 && start < end => Ok(Self { start, end }),
            // Zeroes for one that may not know.
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Puts `title` in place of the arguments, as far as there is room.
    ///
    /// For a child of [`clone3`](super::clone3) that does not ask for its arguments any more.
    pub fn overwrite(self, title: &[u8]) {
        // The last byte stays: without a zero there the kernel goes on into the environment.
        let last = self.end - 1;
        for (address, byte) in (self.start..last).zip(title.iter().copied().chain(std::iter::repeat(0))) {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: between `start` and `end` lie the argument strings that the kernel has put on the
            // first stack, which is mapped writable for the whole life of the process and of its copy in
            // a child. They are no object of Rust's: the standard library copies what it is asked for.
            // The child has one thread, so nobody reads meanwhile.
            unsafe { place.write_volatile(byte) };
        }
    }
}
