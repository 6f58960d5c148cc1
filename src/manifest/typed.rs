//! The typed object, by `serde_yaml`, and where its complaints belong.

use super::document::Finding;
use super::merge;
use super::tree::{Node, Step};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use std::ops::Range;

/// Complaints about one document; more would help nobody.
const MAX_ERRORS: usize = 20;
/// A document that no person wrote is not parsed again for more than one complaint.
const MAX_PATIENT_BYTES: usize = 64 << 10;

/// Where the text of a document stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written<'a> {
    /// Here, and its first byte is byte `base` of the file.
    Here { text: &'a str, base: usize },
    /// Parts of it in several files.
    Apart,
}

impl Written<'_> {
    /// The text of `root` without what stands in `gaps`.
    fn without(&self, root: &Node, gaps: &[Range<usize>]) -> Vec<u8> {
        match self {
            Self::Here { text, base } => {
                let mut text = text.as_bytes().to_vec();
                gaps.iter().for_each(|range| blank(&mut text, *base, range));
                text
            }
            Self::Apart => merge::text(root, gaps).into_bytes(),
        }
    }
}

/// Deserialises the document whose tree is `root`.
///
/// A typed parser stops at its first error. So what is known to be `unusable` is left out of a copy
/// of the text, and likewise each value that it complains about, until it is content or cannot be
/// helped. An object that comes out after complaints is for further checks alone: it lacks what was
/// left out.
pub(super) fn parse<T: DeserializeOwned>(
    written: Written<'_>,
    root: &Node,
    unusable: &mut Vec<Range<usize>>,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    let mut text = written.without(root, unusable);
    let mut left = if text.len() <= MAX_PATIENT_BYTES { MAX_ERRORS } else { 1 };
    loop {
        let deserializer = serde_yaml::Deserializer::from_slice(&text);
        let error = match serde_path_to_error::deserialize(deserializer) {
            Ok(typed) => return Some(typed),
            Err(error) => error,
        };
        let (steps, complete) = steps(error.path());
        let place = root.find(&steps);
        let range = place.entry.map(|entry| entry.range.clone());
        let message = message(error.path(), error.inner());
        // What was blanked is now missing, or leaves nothing of what it was in; that is no news.
        let whole = range.clone().unwrap_or_default();
        let emptied = unusable.iter().any(|gap| whole.start <= gap.start && gap.end <= whole.end);
        let nothing = message.starts_with("invalid type: unit value") && emptied;
        let news = !message.starts_with("missing field") && !nothing && complete;
        if findings.is_empty() || news && findings.iter().all(|finding| finding.span != place.span()) {
            findings.push(finding(place.span(), &message));
        }
        let known = |range: &Range<usize>| unusable.iter().any(|old| old.start <= range.start && range.end <= old.end);
        match range.filter(|range| !known(range)) {
            Some(range) if left > 0 => {
                left -= 1;
                unusable.push(range);
                text = written.without(root, unusable);
            }
            _ => return None,
        }
    }
}

fn steps(path: &Path) -> (Vec<Step>, bool) {
    let mut steps = Vec::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => steps.push(Step::Index(*index)),
            Segment::Map { key } => steps.push(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => return (steps, false),
        }
    }
    let complete = !steps.is_empty();
    (steps, complete)
}

/// The complaint without the path and the position that `serde_yaml` puts around it.
fn message(path: &Path, error: &serde_yaml::Error) -> String {
    let mut message = error.to_string();
    if let Some(at) = error.location() {
        let suffix = format!(" at line {} column {}", at.line(), at.column());
        if let Some(bare) = message.strip_suffix(&suffix) {
            message.truncate(bare.len());
        }
    }
    // It names the path as far as it knows it, which may be an outer part of ours.
    let path = path.to_string();
    let prefix = message.find(": ").filter(|end| path.starts_with(&message[..*end]));
    match prefix {
        Some(end) => message.split_off(end + 2),
        None => message,
    }
}

/// `message` with what it says to write as its help.
pub(super) fn finding(span: Range<usize>, message: &str) -> Finding {
    let message = match message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("expected {expected}, found {found}"),
        None => message.to_owned(),
    };
    // Our own types put what to write at the end.
    let (what, help) = match (message.split_once(": write "), message.split_once(" (did you mean ")) {
        (Some((what, write)), _) => (what, Some(format!("write {write}"))),
        (None, Some((what, near))) => (what, Some(format!("did you mean {}", near.trim_end_matches(')')))),
        (None, None) => (message.as_str(), None),
    };
    Finding::new(span, what, help)
}

/// Puts spaces in place of an entry, and of the comma after it where there is one, so that every
/// other character stays where it was.
fn blank(text: &mut [u8], base: usize, range: &Range<usize>) {
    let start = (range.start - base).min(text.len());
    let end = (range.end - base).clamp(start, text.len());
    let gap = text[end..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let end = if text.get(end + gap) == Some(&b',') { end + gap + 1 } else { end };
    for byte in text[start..end].iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
}
