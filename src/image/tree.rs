//! Directories by descriptor: opened without leaving them, removed without following anything.
//!
//! A container can write below some of these directories while we work in them. Nothing here joins
//! a path as text and opens it again.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Deeper than this, directories are brought up before they are emptied: whoever made them chose
/// the depth, and neither our stack nor our descriptors are to depend on it.
const DEPTH: u32 = 32;

/// Opens a directory of the host by its path, to work below it.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `path` as if `root` were the root directory: links and `..` end inside (openat2(2)).
pub(crate) fn open_in_root(root: impl AsFd, path: impl Arg, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_resolved(root, path, flags, resolve)
}

/// openat2(2) with the given way of resolving, tried again when the tree moves under it (`EAGAIN`).
pub(crate) fn open_resolved(
    root: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    path.into_with_c_str(|path| {
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < 128 => tries += 1,
                result => return result,
            }
        }
    })
}

/// What [`read_regular`] made of a descriptor.
#[derive(Debug)]
pub(crate) enum Regular {
    Read(Vec<u8>),
    /// A FIFO, device, socket or directory.
    Other,
    TooLarge,
}

/// Reads a whole file, when it is a regular one of at most `limit` bytes. Open it with `O_NONBLOCK`:
/// opening a FIFO waits for a writer otherwise.
pub(crate) fn read_regular(file: OwnedFd, limit: u64) -> io::Result<Regular> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Regular::Other);
    }
    let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 20));
    File::from(file).take(limit.saturating_add(1)).read_to_end(&mut content)?;
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    Ok(if length > limit { Regular::TooLarge } else { Regular::Read(content) })
}

/// Removes `name` in `parent` with everything below it. Fine when it is not there.
///
/// Follows no link and crosses no mount: one below it is an error (`EXDEV` or `EBUSY`), and what is
/// under it stays.
pub(crate) fn remove(parent: impl AsFd, name: impl Arg) -> Result<(), Errno> {
    let name = name.into_c_str()?;
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, &*name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let top = match open_child(parent, &name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    clear(&top)?;
    match rustix::fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes everything in `top`, with the promises of [`remove`].
pub(crate) fn clear(top: &OwnedFd) -> Result<(), Errno> {
    let mut brought_up = 0;
    // Somebody who still writes here is not raced for ever: the caller sees ENOTEMPTY and comes back.
    let mut without_progress = 0;
    while without_progress < 3 {
        let before = brought_up;
        empty(top, top, DEPTH, &mut brought_up)?;
        if is_empty(top)? {
            return Ok(());
        }
        without_progress = if brought_up > before { 0 } else { without_progress + 1 };
    }
    Err(Errno::NOTEMPTY)
}

fn empty(directory: &OwnedFd, top: &OwnedFd, depth: u32, brought_up: &mut u64) -> Result<(), Errno> {
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth == 0 {
            bring_up(directory, name, top, brought_up)?;
            continue;
        }
        let child = match open_child(directory, name) {
            Ok(child) => child,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        empty(&child, top, depth - 1, brought_up)?;
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            // What was skipped because it appeared while we read is seen in the next pass.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn bring_up(directory: &OwnedFd, name: &CStr, top: &OwnedFd, brought_up: &mut u64) -> Result<(), Errno> {
    loop {
        *brought_up += 1;
        let new = CString::new(format!(".deep-{brought_up}")).map_err(|_| Errno::INVAL)?;
        match rustix::fs::renameat_with(directory, name, top, &*new, RenameFlags::NOREPLACE) {
            // Whoever made the tree may have used our name.
            Err(Errno::EXIST) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn open_child(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    open_resolved(directory, name, flags, resolve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn removes_a_tree_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir_all(kept.join("inner")).unwrap();
        fs::write(kept.join("inner/file"), "x").unwrap();
        let gone = dir.path().join("gone");
        fs::create_dir_all(gone.join("a/b")).unwrap();
        symlink(&kept, gone.join("a/link")).unwrap();
        symlink("/", gone.join("a/b/root")).unwrap();
        let parent = open_directory(dir.path()).unwrap();

        remove(&parent, "gone").unwrap();
        remove(&parent, "gone").unwrap();

        assert!(!gone.exists());
        assert!(kept.join("inner/file").exists());
    }

    #[test]
    fn removes_a_tree_deeper_than_any_path() {
        let dir = tempfile::tempdir().unwrap();
        let parent = open_directory(dir.path()).unwrap();
        let mut at = parent.try_clone().unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, "deep", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        fs::create_dir(dir.path().join("deep/.deep-1")).unwrap();

        remove(&parent, "deep").unwrap();

        assert!(is_empty(&parent).unwrap());
    }

    #[test]
    fn a_path_through_links_stays_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("passwd"), "inside").unwrap();
        symlink("/../../passwd", dir.path().join("link")).unwrap();
        let root = open_directory(dir.path()).unwrap();

        let file = open_in_root(&root, "link", OFlags::RDONLY).unwrap();

        assert!(matches!(read_regular(file, 100).unwrap(), Regular::Read(text) if text == b"inside"));
    }

    #[test]
    fn a_fifo_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_directory(dir.path()).unwrap();
        rustix::fs::mkfifoat(&root, "fifo", Mode::from_raw_mode(0o600)).unwrap();

        let file = open_in_root(&root, "fifo", OFlags::RDONLY | OFlags::NONBLOCK).unwrap();

        assert!(matches!(read_regular(file, 100).unwrap(), Regular::Other));
    }

    mod root {
        use super::*;

        #[test]
        #[ignore = "needs root"]
        fn a_mount_below_is_left_alone() {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path().join("tree/mounted");
            fs::create_dir_all(&at).unwrap();
            let other = dir.path().join("other");
            fs::create_dir(&other).unwrap();
            fs::write(other.join("file"), "x").unwrap();
            rustix::mount::mount_bind(&other, &at).unwrap();
            let parent = open_directory(dir.path()).unwrap();

            let result = remove(&parent, "tree");

            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert!(matches!(result, Err(Errno::XDEV | Errno::BUSY)), "{result:?}");
            assert!(other.join("file").exists());
        }
    }
}
