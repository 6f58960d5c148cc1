//! Paths of sockets that are longer than a socket's address can hold.

use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `sun_path` has 108 bytes, the last one a NUL (unix(7)).
const LONGEST: usize = 107;

/// The path to use in a socket's address: the path itself, or one through a descriptor of its
/// directory, which has to stay open as long as the path is used.
pub(super) fn address(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok((path.to_path_buf(), None)) };
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_path_buf(), None));
    }
    let directory = open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((short, Some(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_path_longer_than_an_address_can_be_listened_on_and_reached() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("plim.sock");

        let (there, _open) = address(&path).unwrap();
        let listener = UnixListener::bind(there).unwrap();
        let (back, _open) = address(&path).unwrap();

        assert!(UnixStream::connect(back).is_ok());
        drop(listener);
    }
}
