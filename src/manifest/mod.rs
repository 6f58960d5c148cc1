//! The text of a manifest file into objects, or into messages that say where and why not.
//!
//! Pure, and the only place that knows YAML. Two parsers look at each document: `saphyr-parser`
//! gives a tree that knows where everything stands, finds what a typed parser cannot tell apart
//! (duplicate keys, unknown fields, expanding aliases) and bounds what the typed one is given;
//! `serde_yaml` then makes the typed object. Nothing is ignored in silence, and a document with one
//! error gives no object at all: whoever asked for half of it did not ask for the other half.
//!
//! What an invalid document means for what runs is decided elsewhere; here it only keeps its
//! identity, when that can be read.

mod check;
mod diagnostic;
mod document;
mod drop_in;
mod emit;
mod envelope;
mod fields;
mod habits;
mod merge;
mod reference;
mod settings;
mod source;
mod split;
mod tree;
mod typed;

pub use diagnostic::{Diagnostic, Severity};
pub use drop_in::DropIn;
pub use emit::{EmitError, to_yaml};
pub use envelope::schema;
pub use reference::{Field, UnknownField, field};
pub use settings::settings;

use crate::spec::{Object, ObjectId};
use document::Finding;
use drop_in::DropIns;
use sha2::{Digest, Sha256};
use source::Source;
use std::ops::Range;

/// A file larger than this is not read.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A file with more documents than this is not read.
pub const MAX_DOCUMENTS: usize = 16_384;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// The documents in order, without those that hold nothing or only comments. When the file is
    /// broken these are the ones whose extent is known, and all of them are invalid.
    pub documents: Vec<Document>,
    /// Why the file as a whole cannot be read, in which case nobody can tell which objects it
    /// holds: all that it held before stay as they are.
    pub broken: Option<Diagnostic>,
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its place among the documents that hold something, from 1.
    pub number: u32,
    /// Its first line with content, from 1.
    pub line: u32,
    /// `sha256:…` of its text and of what changes it.
    pub revision: String,
    /// Which of the drop-ins change it, by their places among those given.
    pub drop_ins: Vec<usize>,
    pub content: Content,
    /// What was ignored, and said so: a `status` that came with `plim get -o yaml`.
    pub notes: Vec<Diagnostic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Valid(Box<Object>),
    Invalid {
        /// Whose text it is, when kind, namespace and name can be read in spite of the rest.
        id: Option<ObjectId>,
        /// At least one.
        diagnostics: Vec<Diagnostic>,
    },
}

/// Reads the text of `file`, which is only a name for messages, with what `drop_ins` change in it, the
/// first one first.
pub fn read(file: &str, bytes: &[u8], drop_ins: &[DropIn<'_>]) -> FileContent {
    let source = match Source::new(file, bytes) {
        Ok(source) => source,
        Err(diagnostic) => return FileContent { documents: Vec::new(), broken: Some(*diagnostic) },
    };
    let mut documents = Vec::new();
    let mut broken = None;
    let ranges = split::documents(source.text(), source.start());
    let (texts, drop_ins) = DropIns::read(source, &ranges, drop_ins);
    for range in ranges {
        let Some(read) = document::read(&texts, range.clone(), &drop_ins) else { continue };
        if documents.len() == MAX_DOCUMENTS {
            broken =
                Some(texts.file.diagnostic(range, format!("more than the {MAX_DOCUMENTS} documents that are read")));
            break;
        }
        let number = u32::try_from(documents.len() + 1).unwrap_or(u32::MAX);
        if broken.is_none() {
            broken = read.broken;
        }
        documents.push(Document {
            number,
            line: read.line,
            revision: revision(&texts.file.text()[range.clone()], drop_ins.texts(range.start)),
            drop_ins: drop_ins.of(range.start),
            content: read.content,
            notes: read.notes,
        });
    }
    if documents.is_empty() {
        broken = drop_ins.in_vain(&texts);
    }
    if let Some(reason) = &broken {
        documents.iter_mut().for_each(|document| invalidate(document, reason));
    }
    FileContent { documents, broken }
}

/// A sound document of a broken file: its text may be half of what its author is about to save.
fn invalidate(document: &mut Document, reason: &Diagnostic) {
    if let Content::Valid(object) = &document.content {
        let id = Some(object.id.clone());
        document.content = Content::Invalid { id, diagnostics: vec![reason.clone()] };
    }
}

/// Says something about one field of a document that is sound in itself: `spec.mounts.0.host`.
///
/// `None` when the file no longer holds the document that had this revision.
pub fn point(
    (file, bytes): (&str, &[u8]),
    drop_ins: &[DropIn<'_>],
    revision: &str,
    field: &str,
    message: &str,
) -> Option<Diagnostic> {
    let source = Source::new(file, bytes).ok()?;
    let ranges = split::documents(source.text(), source.start());
    let (texts, drop_ins) = DropIns::read(source, &ranges, drop_ins);
    let text = |range: &Range<usize>| &texts.file.text()[range.clone()];
    let is_it = |range: &&Range<usize>| self::revision(text(range), drop_ins.texts(range.start)) == revision;
    let range = ranges.iter().find(is_it)?;
    let root = drop_ins.laid_over(range.start, tree::parse(text(range), range.start).root?);
    let step = |step: &str| step.parse().map_or_else(|_| tree::Step::Key(step.to_owned()), tree::Step::Index);
    let path: Vec<tree::Step> = field.split('.').map(step).collect();
    Some(texts.diagnostic(&Finding::new(root.find(&path).span(), message, None::<&str>)))
}

/// The YAML of an answer, as `plim get -o yaml` prints it: [`read`] takes it back.
pub fn write(value: &serde_json::Value) -> String {
    // `serde_yaml` fails on nested enums and on bytes alone, which JSON does not have.
    serde_yaml::to_string(value).expect("a JSON value is a YAML value")
}

fn revision<'a>(text: &str, drop_ins: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new_with_prefix(text.as_bytes());
    for text in drop_ins {
        // Where the one ends and the next begins is a part of it; no text has this byte.
        hash.update([0xff]);
        hash.update(text.as_bytes());
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests;
