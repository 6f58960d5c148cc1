//! A directory of manifests, listed and read as one.
//!
//! The root is opened once per snapshot and everything is found below that descriptor, so that a
//! link which is swapped meanwhile never mixes two revisions. Files whose `stat` has not changed are
//! not opened again; files whose content has not changed are not parsed again, and give the same
//! [`Wanted`] as before, pointer and all.

mod bytes;
mod reading;

use super::place::{Lasting, Place};
use super::rights::Rights;
use super::snapshot::{FileState, Files, Snapshot};
use super::trust::{Judge, Trust};
use super::way::Way;
use crate::image::tree;
use crate::plan::SourceState;
use bytes::Stamp;
use reading::Reading;
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A file that was written to within this time may be half of what it is about to be.
pub const WINDOW: Duration = Duration::from_millis(20);
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
    /// What changes it, by name.
    drop_ins: Box<[(String, Stamp)]>,
    /// Of the content that `state` was read from.
    hash: Option<[u8; 32]>,
    state: Arc<FileState>,
    /// Whether an equal stamp says that the content is equal.
    settled: bool,
}

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

        let mut reading = Reading::new((&self.name, &self.path), &self.rights, &root, &self.known, judge);
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

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    tree::open_directory(path)
}

/// Whether the path still leads to the directory that was read.
fn is_still(path: &Path, before: Place) -> bool {
    rustix::fs::stat(path).is_ok_and(|now| (now.st_dev, now.st_ino) == (before.device, before.inode))
}

#[cfg(test)]
mod tests;
