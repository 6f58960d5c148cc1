//! One listing of a directory, and what its files say.

use super::Known;
use super::bytes::{FileBytes, LOOK, Stamp, cannot_open, stamp, time};
use crate::image::tree;
use crate::source::names;
use crate::source::rights::Rights;
use crate::source::snapshot::{FileState, Files, MAX_DEPTH, MAX_DOCUMENTS, MAX_FILES, MAX_TOTAL};
use crate::source::text::{self, Text, bad_drop_in};
use crate::source::trust::Judge;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A drop-in that was there has this long to come back before it is gone.
pub(super) const GONE_WINDOW: Duration = Duration::from_secs(1);
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// One listing while it is made.
pub(super) struct Reading<'a> {
    source: &'a str,
    rights: &'a Rights,
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
    /// How many of the files are drop-ins of others.
    drop_ins: usize,
    documents: usize,
    total: u64,
    pub(super) settle: Option<Duration>,
}

/// A file that is there, by its `stat`.
struct Found {
    /// Below the directory that it was found in.
    name: String,
    link: bool,
    stamp: Stamp,
    bytes: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        (source, path): (&'a str, &'a Path),
        rights: &'a Rights,
        root: &'a OwnedFd,
        known: &'a HashMap<String, Known>,
        judge: Judge<'a>,
    ) -> Self {
        Self {
            source,
            rights,
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
            drop_ins: 0,
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
        let entries = self.list(directory, prefix)?;
        let beside = |file: &str| {
            let at = entries.binary_search_by(|(name, _)| name.as_str().cmp(file));
            at.is_ok_and(|at| entries[at].1 != FileType::Directory)
        };
        for (name, kind) in &entries {
            let file = format!("{prefix}{name}");
            if *kind == FileType::Directory {
                match names::changed_by(name) {
                    // Read with that file.
                    Some(changed) if beside(changed) => {}
                    Some(changed) => {
                        let reason = format!("drop-ins of {changed}, which is not beside it");
                        self.ignored.insert(file, reason);
                    }
                    None => self.directory(directory, name, &file, depth)?,
                }
            } else if let Some(reason) = names::ignored(name) {
                self.ignored.insert(file, reason.to_owned());
            } else {
                let drop_ins = format!("{name}.d");
                let at = entries.binary_search_by(|(name, _)| name.as_str().cmp(&drop_ins));
                let changed = at.is_ok_and(|at| entries[at].1 == FileType::Directory);
                self.file(directory, prefix, file, *kind, changed)?;
            }
        }
        Ok(())
    }

    /// The entries of `directory` by name.
    fn list(&mut self, directory: &OwnedFd, prefix: &str) -> Result<Vec<(String, FileType)>, String> {
        let shown = self.path.join(prefix);
        let failed = |error: Errno| format!("listing {}: {}", shown.display(), io::Error::from(error));
        let found = rustix::fs::fstat(directory).map_err(failed)?;
        self.judge
            .check(found.st_uid, found.st_gid, found.st_mode)
            .map_err(|reason| format!("{} {reason}", shown.display()))?;
        self.directories.push((format!("{prefix}."), stamp(&found)));
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
        let mut listed = Vec::with_capacity(entries.len());
        for (name, mut kind) in entries {
            if kind == FileType::Unknown {
                match stat(directory, &name) {
                    Ok(stat) => kind = FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failed(error)),
                }
            }
            listed.push((name, kind));
        }
        Ok(listed)
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
        match self.enter(parent, name, path)? {
            Some(directory) => self.walk(&directory, &format!("{path}/"), depth + 1),
            None => Ok(()),
        }
    }

    /// `None` when it is gone, or no directory any more, since it was listed.
    fn enter(&self, parent: &OwnedFd, name: &str, path: &str) -> Result<Option<OwnedFd>, String> {
        let shown = self.path.join(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match tree::open_resolved(parent, name, flags, BELOW | ResolveFlags::NO_XDEV) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(format!("{} is another mount: what it hides cannot be told", shown.display())),
            Err(error) => Err(format!("opening {}: {}", shown.display(), io::Error::from(error))),
        }
    }

    /// Reads a file, with its drop-ins where there is a directory of them.
    fn file(
        &mut self,
        parent: &OwnedFd,
        prefix: &str,
        file: String,
        kind: FileType,
        changed: bool,
    ) -> Result<(), String> {
        if self.files.len() + self.unchanged.len() + self.drop_ins >= MAX_FILES {
            return Err(format!("{} has more than {MAX_FILES} files", self.path.display()));
        }
        let name = &file[prefix.len()..];
        let found = match self.look(parent, name, &file, kind) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(reason) => {
                self.keep_unreadable(&file, &reason);
                return Ok(());
            }
        };
        self.weigh(&found)?;
        let directory = if changed { self.enter(parent, &format!("{name}.d"), &format!("{file}.d"))? } else { None };
        let drop_ins = match &directory {
            Some(directory) => self.drop_ins(directory, &file)?,
            None => Ok(Vec::new()),
        };
        let drop_ins = match drop_ins {
            Ok(drop_ins) => drop_ins,
            Err(reason) => {
                self.keep_unreadable(&file, &reason);
                return Ok(());
            }
        };

        if let Some(wait) = self.misses(parent, directory.as_ref(), &file, &drop_ins) {
            self.settle = Some(self.settle.map_or(wait, |other| other.min(wait)));
            if let Some(Known { stamp, drop_ins, hash, state, settled: _ }) = self.known.get(&file) {
                let (stamp, drop_ins, hash, state) = (*stamp, drop_ins.clone(), *hash, Arc::clone(state));
                self.keep(&file, Known { stamp, drop_ins, hash, state, settled: false });
            }
            return Ok(());
        }

        let as_before = |known: &&Known| {
            let same =
                |(found, (name, stamp)): (&Found, &(String, Stamp))| found.name == *name && found.stamp == *stamp;
            known.settled
                && known.stamp == found.stamp
                && known.drop_ins.len() == drop_ins.len()
                && drop_ins.iter().zip(&known.drop_ins).all(same)
        };
        let state = match self.known.get(&file).filter(as_before) {
            Some(known) => {
                self.unchanged.push((file, Arc::clone(&known.state)));
                Some(Arc::clone(&known.state))
            }
            None => self.read(parent, &found, &file, directory.as_ref().map(|directory| (directory, &*drop_ins))),
        };
        if let Some(FileState::Read(text)) = state.as_deref() {
            self.documents += text.documents;
        }
        if self.documents > MAX_DOCUMENTS {
            return Err(format!("{} has more than {MAX_DOCUMENTS} documents", self.path.display()));
        }
        Ok(())
    }

    /// How long a drop-in that is gone is waited for: many a program takes a file away before it puts the
    /// next one there, and what has no drop-in for that long would be changed twice.
    fn misses(&self, parent: &OwnedFd, directory: Option<&OwnedFd>, file: &str, found: &[Found]) -> Option<Duration> {
        let known = self.known.get(file)?;
        let gone = |(name, _): &(String, Stamp)| found.iter().all(|found| found.name != *name);
        if !known.drop_ins.iter().any(gone) {
            return None;
        }
        let stat = rustix::fs::fstat(directory.unwrap_or(parent)).ok()?;
        let age = self.now.duration_since(time(stat.st_mtime, stat.st_mtime_nsec)?).ok()?;
        GONE_WINDOW.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// The drop-ins of `file`, in the order of their names, or why one of them cannot be told.
    ///
    /// # Errors
    /// The reason why the listing is not complete.
    fn drop_ins(&mut self, directory: &OwnedFd, file: &str) -> Result<Result<Vec<Found>, String>, String> {
        let prefix = format!("{file}.d/");
        let mut drop_ins = Vec::new();
        for (name, kind) in self.list(directory, &prefix)? {
            let path = format!("{prefix}{name}");
            let ignored =
                if kind == FileType::Directory { Some("a directory among drop-ins") } else { names::ignored(&name) };
            if let Some(reason) = ignored {
                self.ignored.insert(path, reason.to_owned());
                continue;
            }
            match self.look(directory, &name, &path, kind) {
                Ok(Some(found)) => {
                    self.weigh(&found)?;
                    drop_ins.push(found);
                }
                Ok(None) => {}
                Err(reason) => return Ok(Err(bad_drop_in(&path, &reason))),
            }
        }
        self.drop_ins += drop_ins.len();
        Ok(Ok(drop_ins))
    }

    /// What stands at `name`, which is `path` below the root; `None` when that is gone since it was listed, or
    /// nothing to be read.
    fn look(&mut self, parent: &OwnedFd, name: &str, path: &str, kind: FileType) -> Result<Option<Found>, String> {
        let link = kind == FileType::Symlink;
        let found = match if link { self.follow(path) } else { stat(parent, name) } {
            Ok(found) => found,
            Err(Errno::NOENT) if !link => return Ok(None),
            Err(error) => return Err(cannot_open(error)),
        };
        if link {
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                self.ignored.insert(path.to_owned(), String::from("a link to a directory"));
                return Ok(None);
            }
            self.links.push((path.to_owned(), stamp(&found)));
        }
        let bytes = u64::try_from(found.st_size).unwrap_or(0);
        Ok(Some(Found { name: name.to_owned(), link, stamp: stamp(&found), bytes }))
    }

    fn weigh(&mut self, found: &Found) -> Result<(), String> {
        self.total = self.total.saturating_add(found.bytes);
        if self.total > MAX_TOTAL {
            return Err(format!("the files in {} are more than {} MiB", self.path.display(), MAX_TOTAL >> 20));
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
    fn read(
        &mut self,
        parent: &OwnedFd,
        found: &Found,
        file: &str,
        drop_ins: Option<(&OwnedFd, &[Found])>,
    ) -> Option<Arc<FileState>> {
        let content = match self.content(parent, found, file) {
            Ok(content) => content?,
            Err(reason) => return Some(self.keep_unreadable(file, &reason)),
        };
        let before = self.known.get(file);
        let mut held_back = match content.unsettled(self.now) {
            // An empty file that was never anything else has nothing to keep.
            Some(_) if content.bytes.is_empty() && before.is_none() => None,
            wait => wait,
        };
        let mut changes = Vec::new();
        let mut empty = None;
        let (directory, drop_ins) = drop_ins.unzip();
        for (directory, found) in directory.into_iter().cycle().zip(drop_ins.unwrap_or_default()) {
            let path = format!("{file}.d/{}", found.name);
            let content = match self.content(directory, found, &path) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(reason) => return Some(self.keep_unreadable(file, &bad_drop_in(&path, &reason))),
            };
            held_back = match (held_back, content.unsettled(self.now)) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if content.bytes.is_empty() {
                empty = Some(bad_drop_in(&path, "is empty"));
            }
            changes.push((found.name.clone(), content));
        }
        let stamps = changes.iter().map(|(name, content)| (name.clone(), content.stamp)).collect();
        if let Some(wait) = held_back {
            self.settle = Some(self.settle.map_or(wait, |other| other.min(wait)));
            let state = before.map_or_else(
                || Arc::new(FileState::Unreadable(Arc::from("is being written"))),
                |known| Arc::clone(&known.state),
            );
            let hash = before.and_then(|known| known.hash);
            let stamp = content.stamp;
            return Some(self.keep(file, Known { stamp, drop_ins: stamps, hash, state, settled: false }));
        }
        if content.bytes.is_empty() {
            return Some(self.keep_unreadable(file, "is empty"));
        }
        if let Some(reason) = empty {
            return Some(self.keep_unreadable(file, &reason));
        }
        let changes: Vec<(&str, &[u8])> =
            changes.iter().map(|(name, content)| (name.as_str(), content.bytes.as_slice())).collect();
        let hash = text::hash(&content.bytes, &changes);
        let state = match before.filter(|known| known.hash == Some(hash)) {
            Some(known) => Arc::clone(&known.state),
            None => {
                self.parsed += 1;
                let shown = self.path.join(file).display().to_string();
                let text = Text::read((self.source, file), &shown, &content.bytes, &changes, self.rights);
                Arc::new(FileState::Read(text))
            }
        };
        let stamp = content.stamp;
        Some(self.keep(file, Known { stamp, drop_ins: stamps, hash: Some(hash), state, settled: true }))
    }

    /// What stands in a file; `None` when it is gone since it was listed.
    fn content(&mut self, parent: &OwnedFd, found: &Found, path: &str) -> Result<Option<FileBytes>, String> {
        let opened = if found.link {
            tree::open_resolved(self.root, path, LOOK, BELOW)
        } else {
            tree::open_resolved(parent, &*found.name, LOOK | OFlags::NOFOLLOW, BELOW)
        };
        match opened {
            Ok(opened) => FileBytes::read(opened, &mut self.judge).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(cannot_open(error)),
        }
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
        self.keep(file, Known { stamp: Stamp::default(), drop_ins: Box::default(), hash: None, state, settled: false })
    }
}

fn stat(parent: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}
