//! Compiled seccomp filters, kept by what they were compiled from.
//!
//! Compiling takes some 20 ms, several times what a whole start does. The result depends on the
//! profile, the capabilities, what compiles it, its library and the kernel, and all five are in the name of
//! its file. A file that others could have written is not believed: it is made anew.

use super::OciError;
use super::config::Seccomp;
use crate::sandbox::seccomp::{self, Profile};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// Begins with a dot, which no container's id does.
const DIRECTORY: &str = ".seccomp";
/// In a container's own directory: what `exec` takes, whatever becomes of the others.
pub(super) const OWN: &str = "seccomp.bpf";

fn failed(path: &Path) -> impl Fn(std::io::Error) -> OciError + '_ {
    move |source| OciError::Io { what: format!("writing {}", path.display()), source }
}

/// The profile's filter, which is compiled if there is none yet.
pub(super) fn compiled(root: &Path, profile: &Seccomp, capabilities: u64) -> Result<File, OciError> {
    let profile = super::seccomp::profile(profile);
    let directory = root.join(DIRECTORY);
    let path = directory.join(key(&profile, capabilities, seccomp::BUILD));
    if let Some(file) = ours(&path) {
        return Ok(file);
    }
    let filter = seccomp::compile(&profile, capabilities).map_err(OciError::Seccomp)?;
    // It took a megabyte, which a container that waits for its start would hold.
    crate::sys::give_back_memory();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed(&directory))?;
    // By a name of our own first: another start may write the same at the same time.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    let new = directory.join(format!(".{}.{now}", std::process::id()));
    write(&new, &filter)
        .and_then(|file| std::fs::rename(&new, &path).map(|()| file))
        .inspect_err(|_| drop(std::fs::remove_file(&new)))
        .map_err(failed(&path))
}

/// A name that changes with all that a filter depends on.
fn key(profile: &Profile, capabilities: u64, build: u64) -> String {
    let mut hash = Hash(Sha256::new());
    // Debug output names every field, which is all that a key has to do. Writing to a hash can't fail.
    let _ = write!(hash, "{profile:?}");
    let Hash(mut hash) = hash;
    hash.update(capabilities.to_ne_bytes());
    hash.update(build.to_ne_bytes());
    hash.update(seccomp::library());
    hash.update(rustix::system::uname().release().to_bytes());
    hex::encode(hash.finalize())
}

/// Takes a text in the pieces in which it is made.
struct Hash(Sha256);

impl std::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

fn write(path: &Path, filter: &[u8]) -> std::io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(filter)?;
    // Or a name might outlive what it stands for when the host loses its power.
    file.sync_data()?;
    Ok(file)
}

/// The file, if nobody but us can have written it.
fn ours(path: &Path) -> Option<File> {
    let open = |path: &Path, flags: OFlags| -> Option<(OwnedFd, rustix::fs::Stat)> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
        is_ours.then_some((file, stat))
    };
    open(path.parent()?, OFlags::PATH | OFlags::DIRECTORY)?;
    let (file, stat) = open(path, OFlags::RDONLY)?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    // As the kernel takes it; 8 bytes are one instruction.
    let is_whole = stat.st_size > 0 && stat.st_size % 8 == 0;
    (is_regular && is_whole).then(|| File::from(file))
}

/// Keeps a filter for who enters the container later.
pub(super) fn keep(filter: &File, home: &Path) -> Result<(), OciError> {
    let own = home.join(OWN);
    // The file that was looked at, whatever its name stands for by now.
    let path = format!("/proc/self/fd/{}", filter.as_raw_fd());
    match rustix::fs::linkat(CWD, path, CWD, &own, AtFlags::SYMLINK_FOLLOW) {
        // Its name stands for another start's, or for none.
        Err(Errno::NOENT) => copy(filter, &own).map_err(failed(&own)),
        result => result.map_err(|errno| failed(&own)(errno.into())),
    }
}

fn copy(filter: &File, to: &Path) -> std::io::Result<()> {
    let length = usize::try_from(filter.metadata()?.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    filter.read_exact_at(&mut bytes, 0)?;
    write(to, &bytes).map(drop)
}

/// What [`keep`] has kept.
pub(super) fn kept(home: &Path) -> Result<File, OciError> {
    let path = home.join(OWN);
    File::open(&path).map_err(|source| OciError::Io { what: format!("opening {}", path.display()), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_another_build_is_not_taken() {
        let profile = seccomp::default_profile();
        let own = key(&profile, 1, seccomp::BUILD);

        assert_eq!(own, key(&profile, 1, seccomp::BUILD));
        assert_ne!(own, key(&profile, 1, seccomp::BUILD + 1));
        assert_ne!(own, key(&profile, 2, seccomp::BUILD));
    }
}
