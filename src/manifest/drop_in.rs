//! Which document of a file each drop-in beside it changes.
//!
//! A file of one document has no doubt about it. With several, a drop-in names `kind` and
//! `metadata.name` of the one that it means. Whatever is wrong with a drop-in makes the document invalid that
//! it is for, and all of the file where that cannot be told: a change that somebody wrote is never left
//! out in silence.

use super::document::{Finding, identity};
use super::source::Source;
use super::tree::{self, Node, Value};
use super::{Diagnostic, MAX_DOCUMENTS, merge, split};
use crate::spec::ObjectId;
use std::ops::Range;
use std::rc::Rc;

/// A drop-in's name for messages, and its text.
#[derive(Debug, Clone, Copy)]
pub struct DropIn<'a> {
    pub file: &'a str,
    pub bytes: &'a [u8],
}

/// A file and its drop-ins, whose offsets keep apart.
pub(super) struct Texts<'a> {
    pub(super) file: Source<'a>,
    drop_ins: Vec<Source<'a>>,
}

impl Texts<'_> {
    pub(super) fn diagnostic(&self, finding: &Finding) -> Diagnostic {
        let of = self.drop_ins.iter().rev().find(|source| source.base() <= finding.span.start).unwrap_or(&self.file);
        finding.diagnostic(of)
    }
}

/// What stands beside a file.
#[derive(Default)]
pub(super) struct DropIns {
    pieces: Vec<Piece>,
    problems: Vec<(Target, Diagnostic)>,
}

/// One document of a drop-in.
struct Piece {
    of: Target,
    drop_in: usize,
    root: Rc<Node>,
    text: String,
}

/// By where the document begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Document(usize),
    All,
}

impl Target {
    fn is(self, start: usize) -> bool {
        match self {
            Self::Document(of) => of == start,
            Self::All => true,
        }
    }
}

/// The file's own documents, as far as it can be told whose they are.
struct Own {
    start: usize,
    id: Option<ObjectId>,
}

impl DropIns {
    /// What `given` says about the documents in `ranges` of `file`.
    pub(super) fn read<'a>(file: Source<'a>, ranges: &[Range<usize>], given: &[DropIn<'a>]) -> (Texts<'a>, Self) {
        let mut texts = Texts { file, drop_ins: Vec::new() };
        let mut all = Self::default();
        if given.is_empty() {
            return (texts, all);
        }
        let own = ranges.iter().filter_map(|range| {
            let root = tree::parse(&texts.file.text()[range.clone()], range.start).root?;
            let holds_something = !(root.is_null() && root.span.is_empty());
            holds_something.then(|| Own { start: range.start, id: identity(&root) })
        });
        let own: Vec<Own> = own.collect();
        for (drop_in, DropIn { file, bytes }) in given.iter().enumerate() {
            let source = match Source::new(file, bytes) {
                Ok(source) => source.at(texts.drop_ins.last().unwrap_or(&texts.file).end()),
                Err(diagnostic) => {
                    all.problems.push((Target::All, *diagnostic));
                    continue;
                }
            };
            for range in split::documents(source.text(), source.start()).into_iter().take(MAX_DOCUMENTS) {
                all.piece(&source, range, drop_in, &own, &texts);
            }
            texts.drop_ins.push(source);
        }
        (texts, all)
    }

    fn piece(&mut self, source: &Source<'_>, range: Range<usize>, drop_in: usize, own: &[Own], texts: &Texts<'_>) {
        let text = &source.text()[range.clone()];
        let mut tree = tree::parse(text, source.base() + range.start);
        let root = tree.root.take();
        let (of, wrong) = match &root {
            Some(root) => target(root, own, texts.file.name()),
            None => (Target::All, None),
        };
        let bad = tree.broken.into_iter().chain(tree.refused).map(Finding::from);
        let mut findings: Vec<Finding> =
            bad.chain(tree.duplicates.into_iter().map(|(problem, _)| problem.into())).collect();
        if findings.is_empty() {
            let Some(root) = root.filter(|root| !(root.is_null() && root.span.is_empty())) else { return };
            findings.extend(wrong);
            if findings.is_empty() {
                self.pieces.push(Piece { of, drop_in, root, text: text.to_owned() });
            }
        }
        self.problems.extend(findings.iter().map(|finding| (of, finding.diagnostic(source))));
    }

    /// What is wrong with drop-ins of the document that begins at `start`.
    pub(super) fn problems(&self, start: usize) -> impl Iterator<Item = &Diagnostic> {
        self.problems.iter().filter(move |(of, _)| of.is(start)).map(|(_, diagnostic)| diagnostic)
    }

    pub(super) fn change(&self, start: usize) -> bool {
        self.pieces.iter().any(|piece| piece.of.is(start))
    }

    /// The document that begins at `start`, with all that changes it.
    pub(super) fn laid_over(&self, start: usize, root: Rc<Node>) -> Rc<Node> {
        let pieces = self.pieces.iter().filter(|piece| piece.of.is(start));
        pieces.fold(root, |root, piece| merge::merge(&root, &piece.root))
    }

    /// Which drop-ins change the document that begins at `start`, in their order.
    pub(super) fn of(&self, start: usize) -> Vec<usize> {
        let mut of: Vec<usize> =
            self.pieces.iter().filter(|piece| piece.of.is(start)).map(|piece| piece.drop_in).collect();
        of.dedup();
        of
    }

    /// Their texts, for the document's revision.
    pub(super) fn texts(&self, start: usize) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter(move |piece| piece.of.is(start)).map(|piece| piece.text.as_str())
    }

    /// One problem of those that concern the whole file, where it has no document at all.
    pub(super) fn in_vain(&self, texts: &Texts<'_>) -> Option<Diagnostic> {
        let of = self.pieces.first()?;
        let message = format!("{} holds nothing that this could change", texts.file.name());
        Some(texts.diagnostic(&Finding::new(of.root.span.clone(), message, None::<&str>)))
    }
}

/// The document that a drop-in is for, and what is wrong with what it says about that.
fn target(root: &Node, own: &[Own], file: &str) -> (Target, Option<Finding>) {
    let help = "write only what is to be another way: `spec: {resources: {memory: {limit: 1Gi}}}`";
    let Value::Mapping(_) = &root.value else {
        let of = if let [one] = own { Target::Document(one.start) } else { Target::All };
        return (of, Some(Finding::new(root.span.clone(), "this is not a part of a manifest", Some(help))));
    };
    let metadata = root.get("metadata");
    let kind = root.get("kind");
    let name = metadata.and_then(|metadata| metadata.get("name"));
    let namespace = metadata.and_then(|metadata| metadata.get("namespace"));
    if let [one] = own {
        let wrong = one.id.as_ref().and_then(|id| {
            let is = [(kind, id.kind.to_string()), (name, id.name.to_string()), (namespace, id.namespace.to_string())];
            let (node, _) = is
                .into_iter()
                .find_map(|(node, is)| node.filter(|node| node.text() != Some(&is)).map(|node| (node, is)))?;
            let message = format!("this is for another object, and {file} is {id}");
            Some(Finding::new(node.span.clone(), message, Some("a drop-in changes no name: leave it out")))
        });
        return (Target::Document(one.start), wrong);
    }
    let top = root.span.start..root.span.start + 1;
    if own.is_empty() {
        return (Target::All, None);
    }
    let (Some(kind), Some(name)) = (kind.and_then(Node::text), name.and_then(Node::text)) else {
        let message = format!("{file} has {} documents, and this does not say which one it is for", own.len());
        return (Target::All, Some(Finding::new(top, message, Some("write its `kind` and `metadata: {name: …}`"))));
    };
    let namespace = namespace.and_then(Node::text);
    let mut found = own.iter().filter(|own| {
        own.id.as_ref().is_some_and(|id| {
            id.kind.to_string() == kind
                && id.name.to_string() == name
                && namespace.is_none_or(|namespace| id.namespace.to_string() == namespace)
        })
    });
    match (found.next(), found.next()) {
        (Some(one), None) => (Target::Document(one.start), None),
        (Some(_), Some(_)) => {
            let message = format!("{file} has several documents of {kind} {name}");
            (Target::All, Some(Finding::new(top, message, Some("write its `metadata: {namespace: …}` too"))))
        }
        (None, _) => {
            let message = format!("no document of {file} is {kind} {name}");
            (Target::All, Some(Finding::new(top, message, None::<&str>)))
        }
    }
}

#[cfg(test)]
mod tests;
