//! The revisions of a source that were accepted, on disk.
//!
//! Each is kept whole, so that an agent that starts without its server knows what to do, and so that a person
//! can go back to one.

use super::durable;
use crate::source::{Commit, Revision};
use crate::spec::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// So many are kept.
const KEPT: usize = 50;
/// Text becomes a fifth of itself at this level; higher ones cost much time for little.
const COMPRESSION: i32 = 3;

/// What is kept of one source.
pub(super) struct Revisions {
    dir: PathBuf,
    index: Index,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Index {
    /// What they were fetched from: the URL, the directory, the reference.
    origin: String,
    /// The oldest first.
    kept: Vec<Kept>,
    /// The one that holds although there may be newer ones.
    pinned: Option<Pin>,
}

/// A revision that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kept {
    /// Counts up with every revision of the source.
    pub number: u64,
    pub accepted_at: Timestamp,
    pub commit: Commit,
}

/// A person's word that a revision is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    pub number: u64,
    /// The user's number.
    pub by: u32,
    pub since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Revisions {
    /// Opens what is kept below `dir`; nothing, if it is damaged: the next fetch brings the newest again.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let index = match fs::read(dir.join("index.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { dir, index })
    }

    pub fn list(&self) -> &[Kept] {
        &self.index.kept
    }

    pub fn newest(&self) -> Option<&Kept> {
        self.index.kept.last()
    }

    pub fn pinned(&self) -> Option<&Pin> {
        self.index.pinned.as_ref()
    }

    /// The commit that the next one has to come after, if the newest came from this very origin.
    pub fn newest_of(&self, origin: &str) -> Option<&Kept> {
        self.newest().filter(|_| self.index.origin == origin)
    }

    /// The one that is to hold: the pinned one, or the newest.
    pub fn in_force(&self) -> Option<&Kept> {
        let pinned = self.index.pinned.as_ref();
        let pinned = pinned.and_then(|pin| self.index.kept.iter().find(|kept| kept.number == pin.number));
        pinned.or_else(|| self.newest())
    }

    /// The one that people mean by a number, or by the beginning of a commit.
    pub fn find(&self, text: &str) -> Option<&Kept> {
        let by_number = |kept: &&Kept| kept.number.to_string() == text;
        let by_commit = |kept: &&Kept| text.len() >= 4 && kept.commit.id.starts_with(text);
        let kept = &self.index.kept;
        kept.iter().rev().find(by_number).or_else(|| kept.iter().rev().find(by_commit))
    }

    pub fn load(&self, kept: &Kept) -> io::Result<Revision> {
        let file = fs::File::open(self.file(kept))?;
        Revision::read(BufReader::new(zstd::Decoder::new(file)?))
    }

    /// Keeps one more, and forgets the oldest ones that are too many. Durable on return.
    pub fn add(&mut self, revision: &Revision, origin: &str, now: Timestamp) -> io::Result<()> {
        let number = self.newest().map_or(1, |newest| newest.number + 1);
        let kept = Kept { number, accepted_at: now, commit: revision.about.clone() };
        let mut bytes = zstd::Encoder::new(Vec::new(), COMPRESSION)?;
        revision.write(&mut bytes)?;
        durable::write(&self.file(&kept), &bytes.finish()?)?;
        let mut index = self.index.clone();
        index.kept.push(kept);
        origin.clone_into(&mut index.origin);
        let pinned = index.pinned.as_ref().map(|pin| pin.number);
        let too_many = index.kept.len().saturating_sub(KEPT);
        let old: Vec<Kept> =
            index.kept.iter().take(too_many).filter(|kept| Some(kept.number) != pinned).cloned().collect();
        index.kept.retain(|kept| !old.contains(kept));
        self.save(index)?;
        for kept in old {
            // Nobody asks for it any more; one that stays is a file too many.
            let _ = fs::remove_file(self.file(&kept));
        }
        Ok(())
    }

    /// Has one revision hold, or the newest again. Durable on return.
    pub fn pin(&mut self, pin: Option<Pin>) -> io::Result<()> {
        self.save(Index { pinned: pin, ..self.index.clone() })
    }

    fn save(&mut self, index: Index) -> io::Result<()> {
        durable::write(&self.dir.join("index.json"), &serde_json::to_vec(&index)?)?;
        self.index = index;
        Ok(())
    }

    fn file(&self, kept: &Kept) -> PathBuf {
        let Kept { number, commit, accepted_at: _ } = kept;
        Path::join(&self.dir, format!("{number}-{}.zst", commit.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Found;
    use std::collections::BTreeMap;

    fn revision(id: &str) -> Revision {
        let about =
            Commit { id: id.repeat(40), summary: String::new(), author: String::new(), at: Timestamp(0), signer: None };
        let files = BTreeMap::from([("a.yaml".to_owned(), Found::Text(id.as_bytes().to_vec()))]);
        Revision { about, files, ignored: BTreeMap::new() }
    }

    fn pin(number: u64) -> Option<Pin> {
        Some(Pin { number, by: 0, since: Timestamp(0), reason: None })
    }

    #[test]
    fn what_was_accepted_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Revisions::open(dir.path().join("kept")).unwrap();
        open().add(&revision("a"), "here", Timestamp(5)).unwrap();
        open().add(&revision("b"), "here", Timestamp(6)).unwrap();

        let revisions = open();

        let in_force = revisions.in_force().unwrap();
        assert_eq!((in_force.number, in_force.accepted_at), (2, Timestamp(6)));
        assert_eq!(revisions.load(in_force).unwrap(), revision("b"));
        assert_eq!(revisions.newest_of("here").unwrap().commit.id, "b".repeat(40));
        assert_eq!(revisions.newest_of("elsewhere"), None);
        assert_eq!(revisions.find("1").unwrap().commit.id, "a".repeat(40));
        assert_eq!(revisions.find("bbbb").unwrap().number, 2);
        assert_eq!(revisions.find("c"), None);
    }

    #[test]
    fn a_pinned_revision_holds_and_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut revisions = Revisions::open(dir.path().to_owned()).unwrap();
        revisions.add(&revision("a"), "here", Timestamp(0)).unwrap();
        revisions.pin(pin(1)).unwrap();
        for _ in 0..KEPT + 5 {
            revisions.add(&revision("b"), "here", Timestamp(0)).unwrap();
        }

        assert_eq!(revisions.in_force().unwrap().number, 1);
        assert_eq!(revisions.load(revisions.in_force().unwrap()).unwrap(), revision("a"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), revisions.list().len() + 1, "and the index");
        revisions.pin(None).unwrap();
        assert_eq!(revisions.in_force().unwrap().number, u64::try_from(KEPT).unwrap() + 6);
    }

    #[test]
    fn a_damaged_index_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        Revisions::open(dir.path().to_owned()).unwrap().add(&revision("a"), "here", Timestamp(0)).unwrap();
        fs::write(dir.path().join("index.json"), "{").unwrap();

        assert_eq!(Revisions::open(dir.path().to_owned()).unwrap().in_force(), None);
    }
}
