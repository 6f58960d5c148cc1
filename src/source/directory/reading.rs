//! One listing of a directory, and what its files say.

use super::Known;
use super::bytes::{FileBytes, LOOK, Stamp, cannot_open, stamp};
use crate::image::tree;
use crate::source::names;
use crate::source::snapshot::{FileState, Files, MAX_DOCUMENTS, MAX_FILES, MAX_TOTAL};
use crate::source::text::Text;
use crate::source::trust::Judge;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const MAX_DEPTH: usize = 32;
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// One listing while it is made.
pub(super) struct Reading<'a> {
    source: &'a str,
    path: &'a Path,
    root: &'a OwnedFd,
    known: &'a HashMap<String, Known>,
    judge: Judge<'a>,
    now: SystemTime,
    /// What is to be remembered, beside what is known and has not changed.
    pub(super) new: HashMap<String, Known>,
    pub(super) files: Files,
    /// Files that are as they were, beside those in `files`.
    pub(super) unchanged: Vec<(String, Arc<FileState>)>,
    pub(super) ignored: BTreeMap<String, String>,
    /// Links and what they led to.
    links: Vec<(String, Stamp)>,
    /// Directories and what they were before they were listed: a link in one cannot be swapped there
    /// and back without a trace.
    directories: Vec<(String, Stamp)>,
    pub(super) parsed: usize,
    documents: usize,
    total: u64,
    pub(super) settle: Option<Duration>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        source: &'a str,
        path: &'a Path,
        root: &'a OwnedFd,
        known: &'a HashMap<String, Known>,
        judge: Judge<'a>,
    ) -> Self {
        Self {
            source,
            path,
            root,
            known,
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
        }
    }

    /// Reads `directory` and what is below it.
    ///
    /// # Errors
    /// The reason why the listing is not complete.
    pub(super) fn walk(&mut self, directory: &OwnedFd, prefix: &str, depth: usize) -> Result<(), String> {
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
    pub(super) fn links_stand(&self) -> bool {
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
        let content = match FileBytes::read(opened, &mut self.judge) {
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
                Arc::new(FileState::Read(Text::read(self.source, file, &shown, &content.bytes)))
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
}

fn stat(parent: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}
