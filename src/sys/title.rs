//! What others see of a process that executes nothing.

/// Where the kernel keeps the arguments that this process was started with, which anybody may read as
/// its command line (`arg_start` and `arg_end` of proc_pid_stat(5)).
#[derive(Debug, Clone, Copy)]
pub struct Arguments {
    start: usize,
    end: usize,
}

impl Arguments {
    /// Those of the calling process. Allocates.
    pub fn find() -> Option<Self> {
        let address = |number| usize::try_from(super::stat_field(number)).ok();
        let known = super::entry::arguments()
            .map_or_else(|| (address(48), address(49)), |(start, end)| (Some(start), Some(end)));
        match known {
            (Some(start), Some(end)) if start != 0 && start < end => Some(Self { start, end }),
            // Zeroes for one that may not know.
            _ => None,
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
