//! A source whose manifests come from a repository, one revision at a time.

use super::names;
use super::revision::{Commit, Found, Revision};
use super::rights::Rights;
use super::snapshot::{FileState, Files, MAX_DOCUMENTS, Snapshot};
use super::text::{self, Text, bad_drop_in};
use crate::plan::SourceState;
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

    /// The same source before anything of it was taken.
    pub fn empty(&self) -> Self {
        Self::new(&self.name, self.rights.clone())
    }

    /// Takes a revision for what is asked for from now on. Comes back with how many files were parsed.
    ///
    /// # Errors
    /// When it holds more than a source may; what was in use stays.
    pub fn take(&mut self, revision: &Revision) -> Result<usize, String> {
        let mut files = Files::new();
        let mut known = HashMap::new();
        let (mut parsed, mut documents) = (0, 0);
        let mut ignored = revision.ignored.clone();
        let mut drop_ins: BTreeMap<&str, Vec<(&str, &Found)>> = BTreeMap::new();
        let mut own: Vec<(&String, &Found)> = Vec::new();
        for (path, found) in &revision.files {
            match names::as_drop_in(path) {
                None => own.push((path, found)),
                Some((_, name)) if name.contains('/') => {
                    ignored.insert(path.clone(), "in a directory among drop-ins".to_owned());
                }
                Some((file, _)) if !revision.files.contains_key(file) => {
                    ignored.insert(path.clone(), format!("a drop-in of {file}, which is not beside it"));
                }
                Some((file, name)) => drop_ins.entry(file).or_default().push((name, found)),
            }
        }
        for (file, found) in own {
            let drop_ins = drop_ins.remove(file.as_str()).unwrap_or_default();
            let state = match texts(file, found, &drop_ins) {
                Err(reason) => Arc::new(FileState::Unreadable(reason.into())),
                Ok((bytes, drop_ins)) => {
                    let hash = text::hash(bytes, &drop_ins);
                    let state = match self.known.get(file).filter(|(before, _)| *before == hash) {
                        Some((_, state)) => Arc::clone(state),
                        None => {
                            parsed += 1;
                            // As `git show` takes it after a commit.
                            let shown = format!("{}:{file}", self.name);
                            let text = Text::read((&self.name, file), &shown, bytes, &drop_ins, &self.rights);
                            Arc::new(FileState::Read(text))
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
        self.current =
            Some(Current { about: revision.about.clone(), files: same.unwrap_or_else(|| Arc::new(files)), ignored });
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

/// What a file and its drop-ins hold, or why that cannot be told.
#[allow(clippy::type_complexity, reason = "as it is passed on")]
fn texts<'a>(
    file: &str,
    found: &'a Found,
    drop_ins: &[(&'a str, &'a Found)],
) -> Result<(&'a [u8], Vec<(&'a str, &'a [u8])>), String> {
    let text = |found: &'a Found| match found {
        Found::Unusable(reason) => Err(reason.clone()),
        Found::Text(bytes) if bytes.is_empty() => Err("is empty".to_owned()),
        Found::Text(bytes) => Ok(bytes.as_slice()),
    };
    let changed_by = drop_ins.iter().map(|(name, found)| match text(found) {
        Ok(bytes) => Ok((*name, bytes)),
        Err(reason) => Err(bad_drop_in(&format!("{file}.d/{name}"), &reason)),
    });
    Ok((text(found)?, changed_by.collect::<Result<_, String>>()?))
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
    fn drop_ins_of_a_revision_change_the_file_beside_them() {
        let mut source = Repository::new("fleet", Rights::default());
        let limit = |memory: &str| format!("spec: {{resources: {{memory: {{limit: {memory}}}}}}}\n");
        let a = manifest("a", "");
        let files = [
            ("t/a.yaml", a.as_str()),
            ("t/a.yaml.d/10.yaml", &limit("64Mi")),
            ("t/a.yaml.d/20.yaml", &limit("32Mi")),
            ("t/b.yaml.d/10.yaml", &limit("1Mi")),
        ];
        assert_eq!(source.take(&revision("1", &files)), Ok(1));

        let Wish::Present(wanted) = wish(&source, "a") else { panic!() };
        assert_eq!(wanted.object.spec.resources.memory.limit.map(|limit| limit.0), Some(32 << 20));
        assert_eq!(wanted.provenance.drop_in_files(), ["t/a.yaml.d/10.yaml", "t/a.yaml.d/20.yaml"]);
        assert_eq!(source.snapshot().ignored.keys().collect::<Vec<_>>(), ["t/b.yaml.d/10.yaml"]);
        assert_eq!(source.take(&revision("2", &files)), Ok(0));
        assert_eq!(source.take(&revision("3", &files[..2])), Ok(1));

        source.take(&revision("4", &[files[0], ("t/a.yaml.d/10.yaml", "spec: {memroy: 1}")])).unwrap();
        let Wish::Invalid { message, .. } = wish(&source, "a") else { panic!() };
        assert!(message.starts_with("fleet:t/a.yaml.d/10.yaml:1:8"), "{message}");
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
