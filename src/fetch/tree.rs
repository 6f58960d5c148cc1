//! The manifests in a commit's tree, by the same rules as those in a directory.

use crate::host::chain;
use crate::manifest::MAX_FILE_BYTES;
use crate::source::{Found, MAX_DEPTH, MAX_FILES, MAX_TOTAL, ignored, ignored_directory};
use gix::objs::tree::EntryKind;
use gix::{ObjectId, Repository};
use std::collections::{BTreeMap, VecDeque};

/// As the kernel: more links than this are a circle.
const MAX_LINKS: usize = 8;

/// What was found below a directory of a tree.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub files: BTreeMap<String, Found>,
    pub ignored: BTreeMap<String, String>,
    total: u64,
    directories: usize,
}

/// Reads the manifests below `path` of the tree.
///
/// # Errors
/// Why this tree cannot be a source: the directory is not there, or there is more than a source may have.
pub(super) fn read(repository: &Repository, root: ObjectId, path: &str) -> Result<Manifests, String> {
    let start: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let reader = Reader { repository, root };
    let directory = match reader.find(&start)? {
        Some((EntryKind::Tree, id)) => id,
        Some(_) => return Err(format!("{path} is not a directory in it")),
        None => return Err(format!("there is no directory {path} in it")),
    };
    let mut found = Manifests::default();
    reader.walk(directory, &start, "", 0, &mut found)?;
    Ok(found)
}

struct Reader<'a> {
    repository: &'a Repository,
    root: ObjectId,
}

impl Reader<'_> {
    fn entries(&self, id: ObjectId) -> Result<Vec<(String, EntryKind, ObjectId)>, String> {
        let tree =
            self.repository.find_tree(id).map_err(|error| format!("reading a directory of it: {}", chain(&error)))?;
        let mut entries = Vec::new();
        for entry in tree.iter() {
            let entry = entry.map_err(|error| format!("reading a directory of it: {}", chain(&error)))?;
            entries.push((entry.filename().to_string(), entry.kind(), entry.object_id()));
        }
        Ok(entries)
    }

    /// What stands at a path from the repository's root, links not followed.
    fn find(&self, path: &[&str]) -> Result<Option<(EntryKind, ObjectId)>, String> {
        let mut at = (EntryKind::Tree, self.root);
        for part in path {
            if at.0 != EntryKind::Tree {
                return Ok(None);
            }
            match self.entries(at.1)?.into_iter().find(|(name, ..)| name == part) {
                Some((_, kind, id)) => at = (kind, id),
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn walk(
        &self,
        directory: ObjectId,
        start: &[&str],
        prefix: &str,
        depth: usize,
        into: &mut Manifests,
    ) -> Result<(), String> {
        into.directories += 1;
        if into.directories > MAX_FILES {
            return Err(format!("it has more than {MAX_FILES} directories"));
        }
        for (name, kind, id) in self.entries(directory)? {
            let path = format!("{prefix}{name}");
            // Git itself makes no such names; a tree can hold them.
            if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                return Err(format!("{path:?} is not a name of a file"));
            }
            match kind {
                EntryKind::Tree => match ignored_directory(&name) {
                    Some(reason) => drop(into.ignored.insert(path, reason.to_owned())),
                    None if depth >= MAX_DEPTH => return Err(format!("{path} is deeper than {MAX_DEPTH} directories")),
                    None => self.walk(id, start, &format!("{path}/"), depth + 1, into)?,
                },
                EntryKind::Commit => drop(into.ignored.insert(path, "a submodule".to_owned())),
                EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link => match ignored(&name) {
                    Some(reason) => drop(into.ignored.insert(path, reason.to_owned())),
                    None => {
                        if into.files.len() >= MAX_FILES {
                            return Err(format!("it has more than {MAX_FILES} files"));
                        }
                        let found = match kind {
                            EntryKind::Link => self.follow(id, start, &path, into)?,
                            _ => Some(self.blob(id, into)?),
                        };
                        match found {
                            Some(found) => drop(into.files.insert(path, found)),
                            None => drop(into.ignored.insert(path, "a link to a directory".to_owned())),
                        }
                    }
                },
            }
        }
        Ok(())
    }

    fn blob(&self, id: ObjectId, into: &mut Manifests) -> Result<Found, String> {
        let failed = |error| format!("reading a file of it: {}", chain(&error));
        // Asked before it is unpacked: it may be much more than the pack shows.
        let size = self.repository.find_header(id).map_err(failed)?.size();
        if size > u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) {
            return Ok(Found::Unusable(format!("is larger than {} KiB", MAX_FILE_BYTES >> 10)));
        }
        into.total += size;
        if into.total > MAX_TOTAL {
            return Err(format!("its files are more than {} MiB", MAX_TOTAL >> 20));
        }
        Ok(Found::Text(self.repository.find_blob(id).map_err(failed)?.take_data()))
    }

    /// What a link leads to within the repository; `None` for a directory.
    fn follow(
        &self,
        link: ObjectId,
        start: &[&str],
        path: &str,
        into: &mut Manifests,
    ) -> Result<Option<Found>, String> {
        let mut at: Vec<String> = start.iter().map(|part| (*part).to_owned()).collect();
        at.extend(path.split('/').map(str::to_owned));
        let mut target = link;
        for _ in 0..MAX_LINKS {
            at.pop();
            let Found::Text(text) = self.blob(target, into)? else {
                return Ok(Some(Found::Unusable("is a link to nothing".to_owned())));
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.starts_with('/') {
                return Ok(Some(Found::Unusable("is a link that leads out of the repository".to_owned())));
            }
            let mut rest: VecDeque<&str> = text.split('/').collect();
            while let Some(part) = rest.pop_front() {
                match part {
                    "" | "." => {}
                    ".." => {
                        if at.pop().is_none() {
                            let reason = "is a link that leads out of the repository";
                            return Ok(Some(Found::Unusable(reason.to_owned())));
                        }
                    }
                    part => at.push(part.to_owned()),
                }
            }
            let parts: Vec<&str> = at.iter().map(String::as_str).collect();
            match self.find(&parts)? {
                Some((EntryKind::Blob | EntryKind::BlobExecutable, id)) => return self.blob(id, into).map(Some),
                Some((EntryKind::Link, id)) => target = id,
                Some((EntryKind::Tree, _)) => return Ok(None),
                Some((EntryKind::Commit, _)) | None => {
                    return Ok(Some(Found::Unusable("is a link to nothing".to_owned())));
                }
            }
        }
        Ok(Some(Found::Unusable("is a link in a circle".to_owned())))
    }
}
