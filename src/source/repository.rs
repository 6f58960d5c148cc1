//! A source whose manifests come from a repository, one revision at a time.

use super::revision::{Commit, Found, Revision};
use super::rights::Rights;
use super::snapshot::{FileState, Files, MAX_DOCUMENTS, Snapshot};
use super::text::Text;
use crate::plan::SourceState;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is in use of a repository.
#[derive(Debug)]
pub struct Repository {
    name: String,
    rights: Rights,
    /// What the files of the last revision held, so that what has not changed gives the same objects.
    known: HashMap<String, ([u8; 32], Arc<FileState>)>,
    current: Option<Current>,
    /// Why there is nothing yet.
    missing: Arc<str>,
}

#[derive(Debug)]
struct Current {
    about: Commit,
    files: Arc<Files>,
    ignored: BTreeMap<String, String>,
}

impl Repository {
    pub fn new(name: &str, rights: Rights) -> Self {
        let missing = Arc::from("nothing was fetched yet");
        Self { name: name.to_owned(), rights, known: HashMap::new(), current: None, missing }
    }

    /// Takes a revision for what is asked for from now on. Comes back with how many files were parsed.
    ///
    /// # Errors
    /// When it holds more than a source may; what was in use stays.
    pub fn take(&mut self, revision: &Revision) -> Result<usize, String> {
        let mut files = Files::new();
        let mut known = HashMap::new();
        let (mut parsed, mut documents) = (0, 0);
        for (file, found) in &revision.files {
            let state = match found {
                Found::Unusable(reason) => Arc::new(FileState::Unreadable(reason.as_str().into())),
                Found::Text(bytes) if bytes.is_empty() => Arc::new(FileState::Unreadable("is empty".into())),
                Found::Text(bytes) => {
                    let hash: [u8; 32] = Sha256::digest(bytes).into();
                    let state = match self.known.get(file).filter(|(before, _)| *before == hash) {
                        Some((_, state)) => Arc::clone(state),
                        None => {
                            parsed += 1;
                            // As `git show` takes it after a commit.
                            let shown = format!("{}:{file}", self.name);
                            Arc::new(FileState::Read(Text::read(&self.name, file, &shown, bytes, &self.rights)))
                        }
                    };
                    known.insert(file.clone(), (hash, Arc::clone(&state)));
                    state
                }
            };
            if let FileState::Read(text) = &*state {
                documents += text.documents;
            }
            files.insert(file.clone(), state);
        }
        if documents > MAX_DOCUMENTS {
            return Err(format!("it has more than {MAX_DOCUMENTS} documents"));
        }
        let same = self.current.take().map(|current| current.files).filter(|before| **before == files);
        self.known = known;
        self.current = Some(Current {
            about: revision.about.clone(),
            files: same.unwrap_or_else(|| Arc::new(files)),
            ignored: revision.ignored.clone(),
        });
        Ok(parsed)
    }

    /// Why nothing was fetched, as long as that is so.
    pub fn is_missing(&mut self, reason: &str) {
        self.missing = reason.into();
    }

    /// The commit that is in use.
    pub fn commit(&self) -> Option<&Commit> {
        self.current.as_ref().map(|current| &current.about)
    }

    /// What is asked for now: complete as long as there is a revision, wherever its server is.
    pub fn snapshot(&self) -> Snapshot {
        match &self.current {
            None => Snapshot::unavailable(self.missing.to_string(), 0, None),
            Some(Current { about: _, files, ignored }) => Snapshot {
                files: Arc::clone(files),
                state: SourceState::Complete,
                ignored: ignored.clone(),
                parsed: 0,
                settle: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::desired;
    use super::*;
    use crate::plan::Wish;
    use crate::spec::{ObjectId, Timestamp};

    fn revision(id: &str, files: &[(&str, &str)]) -> Revision {
        let about =
            Commit { id: id.to_owned(), summary: String::new(), author: String::new(), at: Timestamp(0), signer: None };
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), Found::Text(text.as_bytes().to_vec())));
        Revision { about, files: files.collect(), ignored: BTreeMap::new() }
    }

    fn manifest(name: &str, more: &str) -> String {
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec: {{image: 'host:/', command: [c]{more}}}\n"
        )
    }

    fn wish(source: &Repository, name: &str) -> Wish {
        let id = ObjectId::try_from(format!("Container/default/{name}")).unwrap();
        desired(&[("fleet", &source.snapshot())]).objects.remove(&id).unwrap()
    }

    #[test]
    fn before_the_first_revision_nothing_is_known_to_be_absent() {
        let mut source = Repository::new("fleet", Rights::default());
        source.is_missing("the server is away");

        let snapshot = source.snapshot();

        assert_eq!(snapshot.state, SourceState::Unavailable { reason: "the server is away".into() });
    }

    #[test]
    fn a_revision_changes_only_what_differs_in_it() {
        let mut source = Repository::new("fleet", Rights::default());
        let (a, b) = (manifest("a", ""), manifest("b", ""));
        assert_eq!(source.take(&revision("1", &[("a.yaml", &a), ("b.yaml", &b)])), Ok(2));
        let (Wish::Present(a1), Wish::Present(b1)) = (wish(&source, "a"), wish(&source, "b")) else { panic!() };
        let files = source.snapshot().files;

        assert_eq!(source.take(&revision("2", &[("a.yaml", &a), ("b.yaml", &b)])), Ok(0));
        assert!(Arc::ptr_eq(&files, &source.snapshot().files), "a commit that changes no manifest is no news");
        let changed = manifest("b", ", args: [x]");
        assert_eq!(source.take(&revision("3", &[("a.yaml", &a), ("b.yaml", &changed)])), Ok(1));

        let (Wish::Present(a3), Wish::Present(b3)) = (wish(&source, "a"), wish(&source, "b")) else { panic!() };
        assert!(Arc::ptr_eq(&a1, &a3) && b1 != b3);
        assert_eq!((a3.provenance.source.as_str(), a3.provenance.path.as_str()), ("fleet", "fleet:a.yaml"));
        assert_eq!(source.commit().map(|commit| commit.id.as_str()), Some("3"));
    }

    #[test]
    fn what_a_source_may_not_have_is_invalid_with_its_place() {
        let rights = Rights { privileged: false, ..Rights::default() };
        let mut source = Repository::new("fleet", rights);
        source.take(&revision("1", &[("a.yaml", &manifest("a", ", network: host"))])).unwrap();

        let Wish::Invalid { message, .. } = wish(&source, "a") else { panic!() };

        assert!(message.starts_with("fleet:a.yaml:4:"), "{message}");
        assert!(message.contains("the source fleet may not use the host's network"), "{message}");
    }
}
