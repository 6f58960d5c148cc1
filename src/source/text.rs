//! What the text of one file asks for.

use super::rights::{Denied, Rights};
use crate::manifest::{self, Content, Document, DropIn};
use crate::plan::{Wanted, Wish};
use crate::spec::{ObjectId, Provenance};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// What the text of a file asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    /// In the order of the documents. An object may be here twice, which [`super::desired`] resolves.
    pub wishes: Vec<(ObjectId, WishOf)>,
    /// Why it cannot be told which objects this file is about: its text is broken as a whole, or a
    /// document's identity cannot be read. Messages as a compiler prints them.
    pub held: Option<Arc<str>>,
    /// What was ignored and is to be said.
    pub notes: Vec<String>,
    pub(super) documents: usize,
}

impl Text {
    /// Reads the text of `file` of the source of that name. `path` is the file as a person finds it;
    /// `drop_ins` are the names and texts of what changes it, in their order. What the source has no right to
    /// is invalid.
    pub(super) fn read(
        (source, file): (&str, &str),
        path: &str,
        bytes: &[u8],
        drop_ins: &[(&str, &[u8])],
        rights: &Rights,
    ) -> Self {
        let shown: Vec<String> = drop_ins.iter().map(|(name, _)| format!("{path}.d/{name}")).collect();
        let given = shown.iter().zip(drop_ins).map(|(file, (_, bytes))| DropIn { file, bytes });
        let given: Vec<DropIn<'_>> = given.collect();
        let content = manifest::read(path, bytes, &given);
        let mut asked = Self { wishes: Vec::new(), held: None, notes: Vec::new(), documents: content.documents.len() };
        let mut held: Vec<manifest::Diagnostic> = content.broken.into_iter().collect();
        for Document { number, line, revision, drop_ins: changed_by, content, notes } in content.documents {
            asked.notes.extend(notes.iter().map(ToString::to_string));
            let provenance = Provenance {
                source: source.to_owned(),
                file: file.to_owned(),
                path: path.to_owned(),
                document: number,
                line,
                revision,
                drop_ins: changed_by.into_iter().map(|at| drop_ins[at].0.to_owned()).collect(),
            };
            match content {
                Content::Valid(object) => {
                    let id = object.id.clone();
                    if let Some(Denied { field, what }) = rights.denied(&object) {
                        let text = format!("the source {source} may not {what}");
                        let place = manifest::point((path, bytes), &given, &provenance.revision, &field, &text);
                        let message = place.map_or_else(|| text.into(), |place| describe(&[place]));
                        asked.wishes.push((id, WishOf::Invalid { message, provenance }));
                        continue;
                    }
                    let wanted = Wanted { object: Arc::from(object), provenance };
                    asked.wishes.push((id, WishOf::Present(Arc::new(wanted))));
                }
                Content::Invalid { id: Some(id), diagnostics } => {
                    let invalid = WishOf::Invalid { message: describe(&diagnostics), provenance };
                    asked.wishes.push((id, invalid));
                }
                Content::Invalid { id: None, diagnostics } => {
                    let new: Vec<_> = diagnostics.into_iter().filter(|found| !held.contains(found)).collect();
                    held.extend(new);
                }
            }
        }
        asked.held = (!held.is_empty()).then(|| describe(&held));
        asked
    }
}

/// Tells a file with its drop-ins from any other.
pub(super) fn hash(bytes: &[u8], drop_ins: &[(&str, &[u8])]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(bytes);
    for (name, text) in drop_ins {
        // Where the one ends and the next begins is a part of it.
        for part in [name.as_bytes(), text] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

/// As the end of a sentence about the file that it changes.
pub(super) fn bad_drop_in(path: &str, reason: &str) -> String {
    format!("cannot be told without its drop-in {path}, which {reason}")
}

/// One line for a table, then every problem with its place in the text.
fn describe(diagnostics: &[manifest::Diagnostic]) -> Arc<str> {
    let first = diagnostics.first().map(ToString::to_string).unwrap_or_default();
    let more = match diagnostics.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let places = diagnostics.iter().map(|diagnostic| diagnostic.render().trim_end().to_owned());
    let lines: Vec<String> = std::iter::once(format!("{first}{more}")).chain(places).collect();
    lines.join("\n").into()
}

/// As [`Wish`], comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WishOf {
    Present(Arc<Wanted>),
    Invalid { message: Arc<str>, provenance: Provenance },
}

impl WishOf {
    pub(super) fn provenance(&self) -> &Provenance {
        match self {
            Self::Present(wanted) => &wanted.provenance,
            Self::Invalid { message: _, provenance } => provenance,
        }
    }
}

impl From<&WishOf> for Wish {
    fn from(wish: &WishOf) -> Self {
        match wish {
            WishOf::Present(wanted) => Self::Present(Arc::clone(wanted)),
            WishOf::Invalid { message, provenance } => {
                Self::Invalid { message: Arc::clone(message), provenance: provenance.clone() }
            }
        }
    }
}
