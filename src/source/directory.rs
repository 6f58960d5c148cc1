//! A directory of manifests, listed and read as one.
//!
//! The root is opened once per snapshot and everything is found below that descriptor, so that a
//! link which is swapped meanwhile never mixes two revisions. Files whose `stat` has not changed are
//! not opened again; files whose content has not changed are not parsed again, and give the same
//! [`Wanted`] as before, pointer and all.

use super::names;
use super::place::{Lasting, Place};
use super::rights::Rights;
use super::snapshot::{FileState, Files, MAX_DEPTH, MAX_DOCUMENTS, MAX_FILES, MAX_TOTAL, Snapshot};
use super::text::Text;
use super::trust::{Judge, Trust};
use super::way::Way;
use crate::image::tree;
use crate::manifest;
use crate::plan::SourceState;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that was written to within this time may be half of what it is about to be.
pub const WINDOW: Duration = Duration::from_millis(20);
/// An empty file has this long to become something before it is called empty.
const EMPTY_WINDOW: Duration = Duration::from_secs(1);
/// A file that somebody has open for writing, and has changed within this time, is not taken for whole.
const OPEN_WINDOW: Duration = Duration::from_secs(5);
/// How often a listing is begun again because a link was swapped under it.
const MAX_TRIES: usize = 4;

/// A directory source and what is remembered of its last listing.
#[derive(Debug)]
pub struct Directory {
    name: String,
    path: PathBuf,
    trust: Trust,
    rights: Rights,
    /// Where the first complete listing was: another mount later is another directory.
    place: Option<Place>,
    /// Where it was when an agent before this one listed it.
    before: Option<Lasting>,
    known: HashMap<String, Known>,
    /// What `known` says of each file; `None` when it has learnt something since.
    files: Option<Arc<Files>>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// Of the content that `state` was read from.
    hash: Option<[u8; 32]>,
    state: Arc<FileState>,
    /// Whether an equal stamp says that the content is equal.
    settled: bool,
}

/// Device, inode, size, mtime and ctime: what changes when a file does.
type Stamp = (u64, u64, i64, i64, i64, i64, i64);

impl Directory {
    /// Nothing is read yet. A relative path is taken from the current directory.
    pub fn new(name: &str, path: &Path, trust: Trust) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = name.to_owned();
        let rights = Rights::default();
        Self { name, path, trust, rights, place: None, before: None, known: HashMap::new(), files: None }
    }

    /// Its objects may have no more than this.
    pub fn with_rights(self, rights: Rights) -> Self {
        Self { rights, ..self }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the directory for what it is now, whatever it was before: for a person who has moved
    /// the manifests to another file system.
    pub fn forget_place(&mut self) {
        (self.place, self.before) = (None, None);
    }

    /// The same directory as an agent before this one has listed, or nothing of it is removed.
    pub fn remember_place(&mut self, before: Lasting) {
        self.before = Some(before);
    }

    /// Where it was when it was last listed as a whole.
    pub fn last_place(&self) -> Option<Lasting> {
        self.place.map(|place| place.lasting).or(self.before)
    }

    /// Lists and reads everything. Never fails: what is wrong is in the snapshot.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut parsed = 0;
        for _ in 0..MAX_TRIES {
            match self.read_once(&mut parsed) {
                Ok(Some(snapshot)) => return snapshot,
                // Swapped while it was read.
                Ok(None) => {}
                Err(reason) => return Snapshot::unavailable(reason, parsed, None),
            }
        }
        let reason = format!("{} changed each time it was read", self.path.display());
        Snapshot::unavailable(reason, parsed, Some(WINDOW))
    }

    /// `None` when a link was swapped meanwhile, and what was read may be of two revisions.
    fn read_once(&mut self, parsed: &mut usize) -> Result<Option<Snapshot>, String> {
        let shown = self.path.display();
        let root = open_root(&self.path).map_err(|error| match error {
            Errno::NOENT => format!("{shown} is not there"),
            Errno::NOTDIR => format!("{shown} is not a directory"),
            error => format!("opening {shown}: {}", io::Error::from(error)),
        })?;
        let place = Place::of(&root).map_err(|error| format!("looking at {shown}: {}", io::Error::from(error)))?;
        let mut judge = Judge::new(&self.trust);
        judge.check_way(&Way::to(&self.path))?;

        let mut reading = Reading {
            source: &self.name,
            rights: &self.rights,
            path: &self.path,
            root: &root,
            known: &self.known,
            judge,
            now: SystemTime::now(),
            new: HashMap::new(),
            files: BTreeMap::new(),
            unchanged: Vec::new(),
            ignored: BTreeMap::new(),
            links: Vec::new(),
            directories: Vec::new(),
            parsed: 0,
            documents: 0,
            total: 0,
            settle: None,
        };
        let mut listed = reading.walk(&root, "", 0);
        *parsed += reading.parsed;
        if !reading.links_stand() || !is_still(&self.path, place) {
            let new = reading.new;
            self.learn(new);
            return Ok(None);
        }
        if listed.is_ok() && !self.is_in_its_place(place) {
            let accept = format!("`plim approve --source {}` accepts it", self.name);
            listed = Err(format!("{shown} is on another mount than before; nothing of it is removed; {accept}"));
        }

        let Reading { new, mut files, unchanged, ignored, settle, .. } = reading;
        self.learn(new);
        // Each of them is in the map, under one name each: as many are the same ones.
        let same = self.files.take_if(|known| files.is_empty() && unchanged.len() == known.len());
        let files = same.unwrap_or_else(|| {
            files.extend(unchanged);
            Arc::new(files)
        });
        let state = match listed {
            Ok(()) => {
                self.place.get_or_insert(place);
                // Every file that was listed is known: more are known only when one is gone.
                if self.known.len() != files.len() {
                    self.known.retain(|file, _| files.contains_key(file));
                }
                self.files = Some(Arc::clone(&files));
                SourceState::Complete
            }
            Err(reason) => SourceState::Unavailable { reason: reason.into() },
        };
        Ok(Some(Snapshot { files, state, ignored, parsed: *parsed, settle }))
    }

    fn is_in_its_place(&self, now: Place) -> bool {
        match self.place {
            Some(before) => now.is_as(before),
            None => self.before.is_none_or(|before| now.lasting.is_as(before)),
        }
    }

    fn learn(&mut self, new: HashMap<String, Known>) {
        if !new.is_empty() {
            self.files = None;
            self.known.extend(new);
        }
    }
}

const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
/// A FIFO would otherwise wait for its writer, and a terminal become ours.
const LOOK: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    tree::open_directory(path)
}

/// Whether the path still leads to the directory that was read.
fn is_still(path: &Path, before: Place) -> bool {
    rustix::fs::stat(path).is_ok_and(|now| (now.st_dev, now.st_ino) == (before.device, before.inode))
}

fn stamp(stat: &Stat) -> Stamp {
    let nanos = |nanos| i64::try_from(nanos).unwrap_or(0);
    (
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        nanos(stat.st_mtime_nsec),
        stat.st_ctime,
        nanos(stat.st_ctime_nsec),
    )
}

/// One listing while it is made.
struct Reading<'a> {
    source: &'a str,
    rights: &'a Rights,
    path: &'a Path,
    root: &'a OwnedFd,
    known: &'a HashMap<String, Known>,
    judge: Judge<'a>,
    now: SystemTime,
    /// What is to be remembered, beside what is known and has not changed.
    new: HashMap<String, Known>,
    files: Files,
    /// Files that are as they were, beside those in `files`.
    unchanged: Vec<(String, Arc<FileState>)>,
    ignored: BTreeMap<String, String>,
    /// Links and what they led to.
    links: Vec<(String, Stamp)>,
    /// Directories and what they were before they were listed: a link in one cannot be swapped there
    /// and back without a trace.
    directories: Vec<(String, Stamp)>,
    parsed: usize,
    documents: usize,
    total: u64,
    settle: Option<Duration>,
}

impl Reading<'_> {
    /// Reads `directory` and what is below it.
    ///
    /// # Errors
    /// The reason why the listing is not complete.
    fn walk(&mut self, directory: &OwnedFd, prefix: &str, depth: usize) -> Result<(), String> {
        let shown = self.path.join(prefix);
        let failed = |error: Errno| format!("listing {}: {}", shown.display(), io::Error::from(error));
        let stat = rustix::fs::fstat(directory).map_err(failed)?;
        self.judge
            .check(stat.st_uid, stat.st_gid, stat.st_mode)
            .map_err(|reason| format!("{} {reason}", shown.display()))?;
        self.directories.push((format!("{prefix}."), stamp(&stat)));
        if self.directories.len() > MAX_FILES {
            return Err(format!("{} has more than {MAX_FILES} directories", self.path.display()));
        }
        let mut entries = Vec::new();
        let mut listing = rustix::fs::Dir::read_from(directory).map_err(failed)?;
        while let Some(entry) = listing.read() {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => entries.push((name.to_owned(), entry.file_type())),
                Err(_) => {
                    let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                    self.ignored.insert(name, String::from("its name is not UTF-8"));
                }
            }
        }
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        // While names come and go, a listing may tell one of them twice (readdir(3)).
        entries.dedup_by(|(one, _), (other, _)| one == other);
        for (name, mut kind) in entries {
            if kind == FileType::Unknown {
                match rustix::fs::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => kind = FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failed(error)),
                }
            }
            let ignored = names::ignored(&name);
            let file = if prefix.is_empty() { name } else { format!("{prefix}{name}") };
            if kind == FileType::Directory {
                self.directory(directory, &file[prefix.len()..], &file, depth)?;
            } else if let Some(reason) = ignored {
                self.ignored.insert(file, reason.to_owned());
            } else {
                self.file(directory, prefix, file, kind)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, parent: &OwnedFd, name: &str, path: &str, depth: usize) -> Result<(), String> {
        let shown = self.path.join(path);
        if let Some(reason) = names::ignored_directory(name) {
            self.ignored.insert(path.to_owned(), reason.to_owned());
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(format!("{} is deeper than {MAX_DEPTH} directories", shown.display()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match tree::open_resolved(parent, name, flags, BELOW | ResolveFlags::NO_XDEV) {
            Ok(directory) => self.walk(&directory, &format!("{path}/"), depth + 1),
            // Gone, or no directory any more, since it was listed.
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::XDEV) => Err(format!("{} is another mount: what it hides cannot be told", shown.display())),
            Err(error) => Err(format!("opening {}: {}", shown.display(), io::Error::from(error))),
        }
    }

    fn file(&mut self, parent: &OwnedFd, prefix: &str, file: String, kind: FileType) -> Result<(), String> {
        if self.files.len() + self.unchanged.len() >= MAX_FILES {
            return Err(format!("{} has more than {MAX_FILES} files", self.path.display()));
        }
        let name = &file[prefix.len()..];
        let found = if kind == FileType::Symlink { self.follow(&file) } else { stat(parent, name) };
        let found = match found {
            Ok(found) => found,
            Err(Errno::NOENT) if kind != FileType::Symlink => return Ok(()),
            Err(error) => {
                self.keep_unreadable(&file, &cannot_open(error));
                return Ok(());
            }
        };
        if kind == FileType::Symlink {
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                self.ignored.insert(file, String::from("a link to a directory"));
                return Ok(());
            }
            self.links.push((file.clone(), stamp(&found)));
        }
        self.total = self.total.saturating_add(u64::try_from(found.st_size).unwrap_or(0));
        if self.total > MAX_TOTAL {
            return Err(format!("the files in {} are more than {} MiB", self.path.display(), MAX_TOTAL >> 20));
        }

        let unchanged = self.known.get(&file).filter(|known| known.settled && known.stamp == stamp(&found));
        let state = match unchanged {
            Some(known) => {
                self.unchanged.push((file, Arc::clone(&known.state)));
                Some(Arc::clone(&known.state))
            }
            None if kind == FileType::Symlink => self.read(self.root, &file, &file, OFlags::empty()),
            None => self.read(parent, name, &file, OFlags::NOFOLLOW),
        };
        if let Some(FileState::Read(text)) = state.as_deref() {
            self.documents += text.documents;
        }
        if self.documents > MAX_DOCUMENTS {
            return Err(format!("{} has more than {MAX_DOCUMENTS} documents", self.path.display()));
        }
        Ok(())
    }

    /// What a link leads to, as long as that is below the root.
    fn follow(&self, file: &str) -> Result<Stat, Errno> {
        let target = tree::open_resolved(self.root, file, OFlags::PATH, BELOW)?;
        rustix::fs::fstat(target)
    }

    /// Whether everything was read of one revision: trivially so where there are no links.
    fn links_stand(&self) -> bool {
        self.links.is_empty()
            || (self.links.iter().all(|(file, before)| self.follow(file).is_ok_and(|now| stamp(&now) == *before))
                && self
                    .directories
                    .iter()
                    .all(|(path, before)| stat(self.root, path).is_ok_and(|now| stamp(&now) == *before)))
    }

    /// `None` when it is gone since it was listed.
    fn read(&mut self, parent: &OwnedFd, name: &str, file: &str, flags: OFlags) -> Option<Arc<FileState>> {
        let opened = match tree::open_resolved(parent, name, LOOK | flags, BELOW) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return None,
            Err(error) => return Some(self.keep_unreadable(file, &cannot_open(error))),
        };
        let content = match self.content(opened) {
            Ok(content) => content,
            Err(reason) => return Some(self.keep_unreadable(file, &reason)),
        };
        let before = self.known.get(file);
        let held_back = match content.unsettled(self.now) {
            // An empty file that was never anything else has nothing to keep.
            Some(_) if content.bytes.is_empty() && before.is_none() => None,
            wait => wait,
        };
        if let Some(wait) = held_back {
            self.settle = Some(self.settle.map_or(wait, |other| other.min(wait)));
            let state = before.map_or_else(
                || Arc::new(FileState::Unreadable(Arc::from("is being written"))),
                |known| Arc::clone(&known.state),
            );
            let hash = before.and_then(|known| known.hash);
            return Some(self.keep(file, Known { stamp: content.stamp, hash, state, settled: false }));
        }
        if content.bytes.is_empty() {
            return Some(self.keep_unreadable(file, "is empty"));
        }
        let hash: [u8; 32] = Sha256::digest(&content.bytes).into();
        let state = match before.filter(|known| known.hash == Some(hash)) {
            Some(known) => Arc::clone(&known.state),
            None => {
                self.parsed += 1;
                let shown = self.path.join(file).display().to_string();
                Arc::new(FileState::Read(Text::read(self.source, file, &shown, &content.bytes, self.rights)))
            }
        };
        Some(self.keep(file, Known { stamp: content.stamp, hash: Some(hash), state, settled: true }))
    }

    fn keep(&mut self, file: &str, known: Known) -> Arc<FileState> {
        let state = Arc::clone(&known.state);
        self.files.insert(file.to_owned(), Arc::clone(&state));
        self.new.insert(file.to_owned(), known);
        state
    }

    /// Looked at again each time: what stands in the way need not change the file.
    fn keep_unreadable(&mut self, file: &str, reason: &str) -> Arc<FileState> {
        let state = FileState::Unreadable(reason.into());
        let state = match self.known.get(file) {
            Some(known) if *known.state == state => Arc::clone(&known.state),
            Some(_) | None => Arc::new(state),
        };
        self.keep(file, Known { stamp: Stamp::default(), hash: None, state, settled: false })
    }

    fn content(&mut self, opened: OwnedFd) -> Result<FileBytes, String> {
        let failed = |error: Errno| format!("cannot be read: {}", io::Error::from(error));
        let first = rustix::fs::fstat(&opened).map_err(failed)?;
        let kind = FileType::from_raw_mode(first.st_mode);
        if kind != FileType::RegularFile {
            return Err(format!("is {}, not a regular file", named(kind)));
        }
        self.judge.check(first.st_uid, first.st_gid, first.st_mode).map_err(|reason| reason.to_string())?;
        let too_large = || format!("is larger than {} KiB", manifest::MAX_FILE_BYTES >> 10);
        if usize::try_from(first.st_size).is_ok_and(|size| size > manifest::MAX_FILE_BYTES) {
            return Err(too_large());
        }
        let mut file = File::from(opened);
        let mut bytes = Vec::with_capacity(usize::try_from(first.st_size).unwrap_or(0) + 1);
        let limit = u64::try_from(manifest::MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() > manifest::MAX_FILE_BYTES {
            return Err(too_large());
        }
        let last = rustix::fs::fstat(file.as_fd()).map_err(failed)?;
        let written = time(last.st_mtime, last.st_mtime_nsec);
        let touched = time(last.st_ctime, last.st_ctime_nsec);
        // Asked last: what was read before it is all that there was.
        let open = crate::sys::is_open_for_writing(file.as_fd()).unwrap_or(false);
        Ok(FileBytes { bytes, stamp: stamp(&last), changed: stamp(&first) != stamp(&last), written, touched, open })
    }
}

struct FileBytes {
    bytes: Vec<u8>,
    stamp: Stamp,
    /// It was written to while it was read.
    changed: bool,
    written: Option<SystemTime>,
    /// As `written`, where a program that keeps times cannot set it: of the inode's last change.
    touched: Option<SystemTime>,
    /// Somebody has it open for writing.
    open: bool,
}

impl FileBytes {
    /// How long to wait before what was read can be taken for the whole. Whoever has it open for writing
    /// ends the wait by closing it.
    fn unsettled(&self, now: SystemTime) -> Option<Duration> {
        // A clock that was set back leaves times in the future: those are no news.
        let left = |at: Option<SystemTime>, window: Duration| {
            let age = at.and_then(|at| now.duration_since(at).ok())?;
            window.checked_sub(age).filter(|left| !left.is_zero())
        };
        let open = self.open.then(|| left(self.touched, OPEN_WINDOW)).flatten();
        let fresh = left(self.written, if self.bytes.is_empty() { EMPTY_WINDOW } else { WINDOW });
        open.or(fresh).or(self.changed.then_some(WINDOW))
    }
}

fn time(seconds: i64, nanos: u64) -> Option<SystemTime> {
    let nanos = u32::try_from(nanos).unwrap_or(0);
    u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::new(seconds, nanos))
}

fn stat(parent: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn cannot_open(error: Errno) -> String {
    match error {
        Errno::XDEV => String::from("is a link that leads out of the directory"),
        Errno::NOENT => String::from("is a link to nothing"),
        Errno::LOOP => String::from("is a link in a circle"),
        Errno::NXIO => String::from("is a socket or a device, not a regular file"),
        error => format!("cannot be opened: {}", io::Error::from(error)),
    }
}

fn named(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Directory => "a directory",
        FileType::Symlink => "a link",
        FileType::RegularFile | FileType::Unknown => "something unknown",
    }
}

#[cfg(test)]
mod tests;
