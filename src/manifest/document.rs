//! One document: from its text to an object or to everything that is wrong with it.

use super::drop_in::{DropIns, Texts};
use super::envelope::{DEFAULT_NAMESPACE, KINDS, Manifest};
use super::source::Source;
use super::tree::{self, Node, Problem, Value};
use super::typed::{self, Written};
use super::{Content, Diagnostic, Severity, check, fields, habits};
use crate::spec::{API_VERSION, Kind, Name, Object, ObjectId};
use std::ops::Range;

pub(super) struct Read {
    pub(super) line: u32,
    pub(super) content: Content,
    /// Set when the text is not YAML.
    pub(super) broken: Option<Diagnostic>,
    pub(super) notes: Vec<Diagnostic>,
}

/// Of one document; more would help nobody.
pub(super) const MAX_DIAGNOSTICS: usize = 50;

/// One thing that is wrong, before it knows its line.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Finding {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>, help: Option<impl Into<String>>) -> Self {
        Self { span, message: message.into(), help: help.map(Into::into) }
    }

    pub(super) fn diagnostic(&self, source: &Source<'_>) -> Diagnostic {
        let diagnostic = source.diagnostic(self.span.clone(), self.message.as_str());
        match &self.help {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        }
    }
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        Self::new(problem.span, problem.message, problem.help)
    }
}

/// `None` for a document that holds nothing.
pub(super) fn read(texts: &Texts<'_>, range: Range<usize>, drop_ins: &DropIns) -> Option<Read> {
    let source = &texts.file;
    let text = &source.text()[range.clone()];
    let mut tree = tree::parse(text, range.start);
    let root = tree.root.take();
    let line = root.as_ref().map_or(range.start, |root| root.span.start);
    let id = root.as_deref().and_then(identity);
    if let Some(problem) = tree.broken {
        let diagnostic = Finding::from(problem).diagnostic(source);
        let content = Content::Invalid { id, diagnostics: vec![diagnostic.clone()] };
        return Some(Read { line: source.line(line), content, broken: Some(diagnostic), notes: Vec::new() });
    }
    let mut root = root.filter(|root| !(root.is_null() && root.span.is_empty()))?;

    let mut findings: Vec<Finding> = tree.refused.into_iter().map(Finding::from).collect();
    let mut object = None;
    let mut written = Written::Here { text, base: range.start };
    if findings.is_empty() && tree.duplicates.is_empty() && drop_ins.change(range.start) {
        root = drop_ins.laid_over(range.start, root);
        written = Written::Apart;
    }
    if findings.is_empty() && is_ours(&root, &mut findings) {
        object = parse(written, &root, tree.duplicates, &mut findings);
    }
    findings.sort_by_key(|finding| finding.span.start);
    // What an alias repeats is wrong only once.
    findings.dedup_by(|a, b| a.span == b.span && a.message == b.message);
    findings.truncate(MAX_DIAGNOSTICS);
    let diagnostics: Vec<Diagnostic> = drop_ins
        .problems(range.start)
        .cloned()
        .chain(findings.iter().map(|finding| texts.diagnostic(finding)))
        .take(MAX_DIAGNOSTICS)
        .collect();
    let content = match object {
        Some(object) if diagnostics.is_empty() => Content::Valid(Box::new(object)),
        _ => Content::Invalid { id, diagnostics },
    };
    Some(Read { line: source.line(line), content, broken: None, notes: notes(texts, &root) })
}

fn parse(
    written: Written<'_>,
    root: &Node,
    duplicates: Vec<(Problem, Range<usize>)>,
    findings: &mut Vec<Finding>,
) -> Option<Object> {
    let mut unusable = Vec::new();
    for (problem, range) in duplicates {
        findings.push(problem.into());
        unusable.push(range);
    }
    fields::check(root, findings, &mut unusable);
    let Manifest { metadata, spec, .. } = typed::parse(written, root, &mut unusable, findings)?;
    let id = ObjectId { kind: Kind::Container, namespace: metadata.namespace, name: metadata.name };
    let object = Object { id, labels: metadata.labels, annotations: metadata.annotations, spec };
    check::object(&object, root, &unusable, findings);
    Some(object)
}

/// Whose document it is, also when nothing else about it is right.
///
/// A kind that is misspelt gives no identity: better to know nothing than to take the text for
/// another object's.
pub(super) fn identity(root: &Node) -> Option<ObjectId> {
    let kind = match root.get("kind")?.text()? {
        "Container" => Kind::Container,
        _ => return None,
    };
    let metadata = root.get("metadata")?;
    let name = |node: &Node| node.text()?.parse::<Name>().ok();
    let namespace = match &metadata.value {
        Value::Mapping(entries) if entries.iter().any(|entry| entry.key.text() == Some("namespace")) => {
            name(metadata.get("namespace")?)?
        }
        _ => DEFAULT_NAMESPACE.parse().expect("a name"),
    };
    Some(ObjectId { kind, namespace, name: name(metadata.get("name")?)? })
}

/// Whether the rest of the document is in our format, so that more can be said about it.
fn is_ours(root: &Node, findings: &mut Vec<Finding>) -> bool {
    let help = "a manifest begins with `apiVersion: plimsoll/v1` and `kind: Container`";
    let Value::Mapping(_) = &root.value else {
        findings.push(Finding::new(root.span.clone(), "this is not a manifest", Some(help)));
        return false;
    };
    let before = findings.len();
    let top = root.span.start..root.span.start + 1;
    for (key, known) in [("apiVersion", [API_VERSION]), ("kind", KINDS)] {
        let Some(entry) = root.entry(key) else {
            // A duplicate is reported as such.
            if !has(root, key) {
                findings.push(Finding::new(top.clone(), format!("missing field `{key}`"), Some(help)));
            }
            continue;
        };
        let span = if entry.value.span.is_empty() { entry.key.span.clone() } else { entry.value.span.clone() };
        let Some(word) = entry.value.text() else {
            findings.push(Finding::new(span, format!("`{key}` has to be a word"), Some(help)));
            continue;
        };
        if !known.contains(&word) {
            let message = format!("unknown {key} `{word}`");
            let later = word.starts_with("plimsoll/");
            let help = match habits::nearest(word, known) {
                Some(near) if !later => format!("did you mean `{near}`?"),
                Some(_) | None => format!("this version of plimsoll reads `{}`", known.join("`, `")),
            };
            findings.push(Finding::new(span, message, Some(help)));
        }
    }
    findings.len() == before
}

fn has(root: &Node, key: &str) -> bool {
    match &root.value {
        Value::Mapping(entries) => entries.iter().any(|entry| entry.key.text() == Some(key)),
        Value::Scalar { .. } | Value::Sequence(_) => false,
    }
}

fn notes(texts: &Texts<'_>, root: &Node) -> Vec<Diagnostic> {
    let status = root.entry("status").map(|entry| {
        let message = "`status` is what the agent reports, and is ignored here";
        let finding = Finding::new(entry.key.span.clone(), message, Some("leave it out"));
        texts.diagnostic(&finding).with_severity(Severity::Warning)
    });
    status.into_iter().collect()
}
