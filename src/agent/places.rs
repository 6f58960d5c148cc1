//! Where the sources were, remembered over a death of the agent.
//!
//! Beside the database and not in it: what is about to be removed because of a directory must not depend
//! on records that may have been rebuilt.

use crate::source::Lasting;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// By the directories' absolute paths.
pub(super) struct Places {
    file: PathBuf,
    saved: BTreeMap<PathBuf, Lasting>,
}

impl Places {
    /// What the file says; nothing, if it is not there or is damaged: then places are taken as they are.
    pub fn load(file: PathBuf) -> Self {
        let saved = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, saved }
    }

    pub fn of(&self, path: &Path) -> Option<Lasting> {
        self.saved.get(path).copied()
    }

    /// Saves where all of them are, if that is news. Durable on return.
    pub fn save(&mut self, places: BTreeMap<PathBuf, Lasting>) -> io::Result<()> {
        if places == self.saved {
            return Ok(());
        }
        super::durable::write(&self.file, &serde_json::to_vec(&places)?)?;
        self.saved = places;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Directory, Trust};
    use std::collections::BTreeSet;

    #[test]
    fn places_are_found_again_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sources.json");
        let trust = Trust::Strict { uids: BTreeSet::from([rustix::process::geteuid().as_raw()]) };
        let mut source = Directory::new("main", dir.path(), trust);
        source.snapshot();
        let place = source.last_place().unwrap();

        Places::load(file.clone()).save(BTreeMap::from([(dir.path().to_owned(), place)])).unwrap();

        assert_eq!(Places::load(file.clone()).of(dir.path()), Some(place));
        assert_eq!(Places::load(file.clone()).of(Path::new("/other")), None);
        fs::write(&file, "{").unwrap();
        assert_eq!(Places::load(file).of(dir.path()), None);
    }
}
