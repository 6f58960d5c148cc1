//! Whether a file is being written to, as leases tell.

use super::{Errno, last_error};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Whether some process has the file open for writing now; `None` where the file system has no leases or
/// the file is somebody else's. The file is to be open for reading alone.
///
/// A read lease is granted only while nobody has the file open for writing, and is given back at once:
/// whoever opens it in between waits for some microseconds, or fails with `EWOULDBLOCK` if it asked not to
/// wait (`F_SETLEASE` in fcntl(2)).
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> Option<bool> {
    /// Of `asm-generic/fcntl.h`; the C library's headers have it for programs that ask for GNU's extensions.
    const F_SETSIG: libc::c_int = 10;
    let set = |command: libc::c_int, argument: libc::c_int| {
        // SAFETY: the descriptor is open, as it is borrowed; the arguments are integers.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
        if result == -1 { Err(last_error()) } else { Ok(()) }
    };
    // A lease that is broken is told by a signal, and SIGIO, the usual one, would end us; this one is ignored.
    set(F_SETSIG, libc::SIGURG).ok()?;
    let granted = set(libc::F_SETLEASE, libc::F_RDLCK);
    if granted.is_ok() {
        // What is not given back here goes with the descriptor.
        let _given_back = set(libc::F_SETLEASE, libc::F_UNLCK);
    }
    match granted {
        Ok(()) => Some(false),
        Err(Errno::AGAIN) => Some(true),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_file_is_open_for_writing_as_long_as_somebody_has_it_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();

        assert_eq!(is_open_for_writing(reader.as_fd()), Some(true));
        drop(writer);
        let _another = File::open(&path).unwrap();
        assert_eq!(is_open_for_writing(reader.as_fd()), Some(false));

        // The lease was given back: nobody is kept waiting.
        drop(File::options().append(true).open(&path).unwrap());
    }

    #[test]
    fn a_writer_that_comes_meanwhile_waits_for_no_signal_and_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        drop(File::create(&path).unwrap());
        let asking = std::thread::spawn({
            let path = path.clone();
            move || {
                (0..20_000).filter(|_| is_open_for_writing(File::open(&path).unwrap().as_fd()) == Some(true)).count()
            }
        });

        while !asking.is_finished() {
            drop(File::options().append(true).open(&path).unwrap());
        }

        assert!(asking.join().unwrap() < 20_000);
    }
}
