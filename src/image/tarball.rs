//! `tar:PATH`: a root filesystem tarball, unpacked once per content.
//!
//! A tarball is somebody else's text. Every entry is made relative to the new root's descriptor
//! with `RESOLVE_IN_ROOT`, so that neither its name nor a link that an earlier entry made can lead
//! out; names that try to are refused. Device nodes are left out. A failed unpacking leaves nothing.

use super::tree;
use super::{ImageError, Layers, Prepared, make_private};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tar::EntryType;

const MAX_ENTRIES: u64 = 2_000_000;
const MAX_BYTES: u64 = 256 << 30;
/// Bytes that any tarball may unpack to, and how many times its own size a larger one may.
const FREE_BYTES: u64 = 128 << 20;
const MAX_RATIO: u64 = 100;
const MAX_NAME: usize = 4096;
/// Ids above are nobody's in a container.
const MAX_ID: u64 = 65_535;
/// At most this many remarks on what was left out.
const MAX_NOTES: usize = 20;

/// Enough of a file to tell that it is another one now.
pub(super) type Stamp = (u64, u64, u64, i64, i64, i64, i64);

#[derive(Debug)]
pub(super) struct Tarball {
    path: PathBuf,
    file: File,
    pub(super) stamp: Stamp,
    size: u64,
}

pub(super) fn open(path: &Path) -> Result<Tarball, ImageError> {
    let refused = |why: &str| ImageError::Tarball { path: path.to_owned(), why: why.to_owned() };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(refused("there is no such file")),
        Err(error) => return Err(ImageError::io("opening", path)(error)),
    };
    let found = file.metadata().map_err(ImageError::io("looking at", path))?;
    if !found.is_file() {
        return Err(refused("is not a regular file"));
    }
    let stamp =
        (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
    Ok(Tarball { path: path.to_owned(), file, stamp, size: found.size() })
}

/// Unpacks it below `directory` under the name of its content, unless it is there.
pub(super) fn prepare(directory: &Path, mut tarball: Tarball) -> Result<Prepared, ImageError> {
    let path = tarball.path.clone();
    let digest = hash(&mut tarball.file).map_err(ImageError::io("reading", &path))?;
    let place = directory.join(&digest);
    let mut notes = Vec::new();
    if !place.is_dir() {
        make_private(directory)?;
        let parent = tree::open_directory(directory).map_err(ImageError::io("opening", directory))?;
        let unfinished = format!(".new-{digest}");
        tree::remove(&parent, &*unfinished).map_err(ImageError::io("clearing", directory))?;
        let unpacked = make_root(&parent, &unfinished)
            .map_err(ImageError::io("making", &directory.join(&unfinished)))
            .and_then(|root| {
                notes = unpack(&root, &mut tarball, &digest)?;
                rustix::fs::syncfs(&root)
                    .and_then(|()| rustix::fs::renameat(&parent, &*unfinished, &parent, &*digest))
                    .and_then(|()| rustix::fs::fsync(&parent))
                    .map_err(ImageError::io("naming", &place))
            });
        if let Err(error) = unpacked {
            // The first error is the one to tell; what stays is cleared by the next try.
            let _ = tree::remove(&parent, &*unfinished);
            return Err(error);
        }
    }
    let layers = Layers::Overlay { base: place, grafts: Arc::from([]) };
    Ok(Prepared { layers, digest: Some(format!("sha256:{digest}")), notes: notes.into() })
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hex::encode(hash.finalize()))
}

fn make_root(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(parent, name, mode)?;
    rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Hashes what goes through it: what is unpacked has to be what was hashed before.
struct Hashing<R> {
    inner: R,
    hash: Rc<std::cell::RefCell<Sha256>>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// Ends with an error when more comes out than a tarball of this size may unpack to.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        spend(&self.left, u64::try_from(read).unwrap_or(u64::MAX))?;
        Ok(read)
    }
}

fn spend(left: &Cell<u64>, bytes: u64) -> io::Result<()> {
    let rest = left.get().checked_sub(bytes).ok_or_else(|| {
        io::Error::other(format!("it unpacks to more than {MAX_RATIO} times its size, as a bomb does"))
    })?;
    left.set(rest);
    Ok(())
}

fn unpack(root: &OwnedFd, tarball: &mut Tarball, digest: &str) -> Result<Vec<String>, ImageError> {
    let path = tarball.path.clone();
    let reading = || ImageError::io("reading", &path);
    let mut magic = [0_u8; 6];
    let length = tarball.file.read(&mut magic).map_err(reading())?;
    tarball.file.seek(SeekFrom::Start(0)).map_err(reading())?;
    let hash = Rc::new(std::cell::RefCell::new(Sha256::new()));
    let allowed = FREE_BYTES.saturating_add(tarball.size.saturating_mul(MAX_RATIO)).min(MAX_BYTES);
    let left = Rc::new(Cell::new(allowed));
    let file = tarball.file.try_clone().map_err(reading())?;
    let raw = BufReader::with_capacity(1 << 18, Hashing { inner: file, hash: Rc::clone(&hash) });

    let stream: Box<dyn Read> = match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(reading())?;
            // 128 MiB, what `zstd --ultra` uses at most without `--long`.
            decoder.window_log_max(27).map_err(reading())?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] | [b'B', b'Z', b'h', ..] => {
            let why = "is compressed with xz or bzip2: plain, gzip and zstd can be read".to_owned();
            return Err(ImageError::Tarball { path, why });
        }
        _ => Box::new(raw),
    };
    let mut archive = tar::Archive::new(Bounded { inner: stream, left: Rc::clone(&left) });
    archive.set_ignore_zeros(false);
    let mut unpacking = Unpacking {
        tarball: path.clone(),
        root,
        left,
        entries: 0,
        notes: Vec::new(),
        unmade: BTreeSet::new(),
        buffer: vec![0; 1 << 17],
    };
    for entry in archive.entries().map_err(reading())? {
        unpacking.entry(entry.map_err(reading())?)?;
    }
    if unpacking.entries == 0 {
        return Err(ImageError::Tarball { path, why: String::from("there is nothing in it") });
    }
    let notes = unpacking.notes;
    // The padding after the last entry belongs to what was hashed.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(reading())?;
    drop(rest);
    // And so does whatever a decoder leaves unread.
    let mut tail = Hashing { inner: &tarball.file, hash: Rc::clone(&hash) };
    io::copy(&mut tail, &mut io::sink()).map_err(reading())?;
    let unpacked = hex::encode(hash.borrow().clone().finalize());
    if unpacked != digest {
        return Err(ImageError::Tarball { path, why: String::from("it changed while it was being unpacked") });
    }
    Ok(notes)
}

struct Unpacking<'a> {
    tarball: PathBuf,
    root: &'a OwnedFd,
    left: Rc<Cell<u64>>,
    entries: u64,
    notes: Vec<String>,
    /// Entries that were left out on purpose: a hard link to one is left out too.
    unmade: BTreeSet<PathBuf>,
    buffer: Vec<u8>,
}

/// What an entry says about itself beside its content.
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<(), ImageError> {
        self.entries += 1;
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let tarball = self.tarball.clone();
        let refused = |why| ImageError::Entry { path: tarball.clone(), entry: shown.clone(), why };
        if self.entries > MAX_ENTRIES {
            return Err(refused("there are more entries than an image may have"));
        }
        let kind = entry.header().entry_type();
        if matches!(
            kind,
            EntryType::XGlobalHeader | EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            return Ok(());
        }
        let path = inner_path(&name).map_err(refused)?;
        let failed = |operation: &'static str| {
            let (path, entry) = (tarball.clone(), shown.clone());
            move |source: io::Error| ImageError::Unpack { path, operation, entry, source }
        };
        let attributes = self.attributes(&mut entry, &shown).map_err(failed("reading"))?;
        let Some(file_name) = path.file_name().map(ToOwned::to_owned) else {
            // "./": the root itself.
            return set_attributes(self.root, &attributes).map_err(failed("setting the attributes of"));
        };
        let parent = self.parent(&path).map_err(failed("making the directory of"))?;

        match kind {
            EntryType::Directory => {
                let made = make_directory(&parent, file_name.as_bytes()).map_err(failed("making"))?;
                set_attributes(&made, &attributes).map_err(failed("setting the attributes of"))
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let file = make_file(&parent, file_name.as_bytes()).map_err(failed("making"))?;
                self.copy(&mut entry, &file, kind == EntryType::GNUSparse).map_err(failed("writing"))?;
                set_attributes(file.as_fd(), &attributes).map_err(failed("setting the attributes of"))
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                if target.is_empty() || target.len() > MAX_NAME || target.contains(&0) {
                    return Err(refused("is a link to nothing that can be named"));
                }
                replace(&parent, file_name.as_bytes(), |parent, name| {
                    rustix::fs::symlinkat(target.as_slice(), parent, name)
                })
                .and_then(|()| own_link(&parent, file_name.as_bytes(), &attributes))
                .map_err(failed("making"))
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = inner_path(&target).map_err(|_| refused("is a hard link that leads out of the image"))?;
                if self.unmade.contains(&target) {
                    self.unmade.insert(path);
                    return Ok(());
                }
                let Some(target_name) = target.file_name() else {
                    return Err(refused("is a hard link to a directory"));
                };
                if target == path {
                    return Ok(());
                }
                let from = self.directory_of(&target).map_err(failed("finding the target of"))?;
                replace(&parent, file_name.as_bytes(), |parent, name| {
                    rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty())
                })
                .map_err(failed("making"))
            }
            EntryType::Fifo => replace(&parent, file_name.as_bytes(), |parent, name| {
                rustix::fs::mkfifoat(parent, name, Mode::from_raw_mode(attributes.mode & 0o7777))
            })
            .and_then(|()| own_link(&parent, file_name.as_bytes(), &attributes))
            .map_err(failed("making")),
            EntryType::Char | EntryType::Block => {
                self.unmade.insert(path);
                self.note(format!("{shown}: a device node, left out"));
                Ok(())
            }
            _ => {
                self.unmade.insert(path);
                self.note(format!("{shown}: an unknown kind of entry, left out"));
                Ok(())
            }
        }
    }

    fn attributes<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, shown: &str) -> io::Result<Attributes> {
        let header = entry.header();
        let (uid, gid) = (header.uid()?, header.gid()?);
        let mode = header.mode()? & 0o7777;
        let mtime = i64::try_from(header.mtime()?).unwrap_or(0);
        if uid > MAX_ID || gid > MAX_ID {
            self.note(format!("{shown}: owner {uid}:{gid} is beyond a container's ids"));
        }
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let name = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr."));
                // What the kernel or a security module would believe is not taken from an archive.
                if let Some(name) = name.filter(|name| *name == "security.capability" || name.starts_with("user.")) {
                    xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
                }
            }
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).unwrap_or(65_534);
        Ok(Attributes { mode, uid: id(uid), gid: id(gid), mtime, xattrs })
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(text);
        }
    }

    /// The directory that `path` is to be in, made as far as it is missing.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.directory_of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut so_far = PathBuf::new();
        let mut at = self.directory_of(Path::new("x"))?;
        for part in path.parent().into_iter().flat_map(Path::components) {
            so_far.push(part);
            at = match tree::open_in_root(self.root, &so_far, DIRECTORY) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                    tree::open_in_root(self.root, &so_far, DIRECTORY)?
                }
                result => result?,
            };
        }
        Ok(at)
    }

    fn directory_of(&self, path: &Path) -> io::Result<OwnedFd> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(tree::open_in_root(self.root, parent, DIRECTORY)?)
    }

    fn copy(&mut self, from: &mut impl Read, to: &OwnedFd, sparse: bool) -> io::Result<()> {
        loop {
            let read = from.read(&mut self.buffer)?;
            if read == 0 {
                return Ok(());
            }
            if sparse {
                // Holes come out of nothing, past the bound on what is read.
                spend(&self.left, u64::try_from(read).unwrap_or(u64::MAX))?;
            }
            let mut rest = &self.buffer[..read];
            while !rest.is_empty() {
                let written = rustix::io::write(to, rest)?;
                rest = &rest[written..];
            }
        }
    }
}

/// An entry's name as a path from the root, without `.`; empty for the root itself.
fn inner_path(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.len() > MAX_NAME || name.contains(&0) {
        return Err("has a name that is no path");
    }
    let mut path = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err("is an absolute path"),
            Component::ParentDir => return Err("leads out with \"..\""),
        }
    }
    Ok(path)
}

fn make_file(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let mut made = None;
    replace(parent, name, |parent, name| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        made = Some(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        Ok(())
    })?;
    made.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn make_directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let open = || rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        // A directory may be listed again, for its attributes.
        Ok(found) => return Ok(found),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
        Err(error) => return Err(error.into()),
    }
    replace(parent, name, |parent, name| rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)))?;
    Ok(open()?)
}

/// Makes something where an earlier entry may have made something else: the later one counts.
fn replace(
    parent: &OwnedFd,
    name: &[u8],
    mut make: impl FnMut(&OwnedFd, &[u8]) -> Result<(), Errno>,
) -> io::Result<()> {
    match make(parent, name) {
        Err(Errno::EXIST) => {
            tree::remove(parent, name)?;
            Ok(make(parent, name)?)
        }
        result => Ok(result?),
    }
}

fn set_attributes(file: impl std::os::fd::AsFd, attributes: &Attributes) -> io::Result<()> {
    let Attributes { mode, uid, gid, mtime, xattrs } = attributes;
    // A change of owner takes set-user-ID and file capabilities away, so it comes first.
    rustix::fs::fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
    for (name, value) in xattrs {
        match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
            // Not every file system has them, and a program without its capability still runs.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let time = Timespec { tv_sec: *mtime, tv_nsec: 0 };
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?)
}

fn own_link(parent: &OwnedFd, name: &[u8], attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    Ok(rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests;
