//! Trees laid over each other, and the text of what comes out.

use super::tree::{Entry, Node, Value};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// `base` with what `over` says: mappings key by key, anything else as a whole. An explicit `null` takes
/// the key away.
pub(super) fn merge(base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
    let (Value::Mapping(old), Value::Mapping(new)) = (&base.value, &over.value) else { return plain(over) };
    let mut places: HashMap<&str, usize> =
        old.iter().enumerate().filter_map(|(at, entry)| Some((entry.key.text()?, at))).collect();
    let mut entries: Vec<Option<Entry>> = old.iter().cloned().map(Some).collect();
    let mut removed: Vec<Entry> = base.removed.clone();
    for entry in new {
        // Anything else is refused before.
        let Some(key) = entry.key.text() else { continue };
        if entry.value.is_written_null() {
            if let Some(at) = places.remove(key) {
                entries[at] = None;
            }
            removed.push(entry.clone());
            continue;
        }
        match places.get(key) {
            Some(at) => {
                if let Some(before) = &mut entries[*at] {
                    lay_over(before, entry);
                }
            }
            None => {
                places.insert(key, entries.len());
                entries.push(Some(Entry { value: plain(&entry.value), ..entry.clone() }));
            }
        }
    }
    let given = |gone: &Entry| gone.key.text().is_some_and(|key| places.contains_key(key));
    removed.retain(|gone| !given(gone));
    let value = Value::Mapping(entries.into_iter().flatten().collect());
    Rc::new(Node { span: base.span.clone(), value, removed, size: base.size.saturating_add(over.size) })
}

fn lay_over(before: &mut Entry, entry: &Entry) {
    match (&before.value.value, &entry.value.value) {
        // Where all below a key is commented out, the key says nothing.
        (Value::Mapping(_) | Value::Sequence(_), Value::Scalar { .. }) if entry.value.is_null() => {}
        (Value::Mapping(_), Value::Mapping(_)) => before.value = merge(&before.value, &entry.value),
        _ => *before = Entry { value: plain(&entry.value), ..entry.clone() },
    }
}

/// Without what it would take away, where there is nothing to take it from.
fn plain(node: &Rc<Node>) -> Rc<Node> {
    match &node.value {
        Value::Mapping(_) => {
            let nothing =
                Node { span: node.span.clone(), value: Value::Mapping(Vec::new()), removed: Vec::new(), size: 0 };
            merge(&Rc::new(nothing), node)
        }
        Value::Scalar { .. } | Value::Sequence(_) => Rc::clone(node),
    }
}

/// The text of a tree that stands nowhere as a whole, without the entries that are in `gaps`.
pub(super) fn text(root: &Node, gaps: &[Range<usize>]) -> String {
    let mut text = String::new();
    write(root, gaps, &mut text);
    text.push('\n');
    text
}

fn write(node: &Node, gaps: &[Range<usize>], text: &mut String) {
    match &node.value {
        Value::Scalar { text: word, plain } if *plain && is_resolved(word) => text.push_str(word),
        Value::Scalar { text: word, plain } if *plain && word.is_empty() => text.push_str("null"),
        Value::Scalar { text: word, plain: _ } => quote(word, text),
        Value::Sequence(items) => {
            text.push('[');
            for item in items {
                write(item, gaps, text);
                text.push_str(", ");
            }
            text.push(']');
        }
        Value::Mapping(entries) => {
            text.push('{');
            let in_gap =
                |entry: &&Entry| gaps.iter().any(|gap| gap.start <= entry.range.start && entry.range.end <= gap.end);
            for entry in entries.iter().filter(|entry| !in_gap(entry)) {
                quote(entry.key.text().unwrap_or_default(), text);
                text.push_str(": ");
                write(&entry.value, gaps, text);
                text.push_str(", ");
            }
            text.push('}');
        }
    }
}

/// Whether it may be more than a text where it stands without quotes: only a number, a switch or nothing
/// may, and they are made of these.
fn is_resolved(word: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    word == "~" || (word.bytes().all(known) && word.bytes().any(|byte| byte.is_ascii_alphanumeric()))
}

/// As JSON has it, which YAML reads as well.
fn quote(word: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(word).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tree;

    fn parse(text: &str, base: usize) -> Rc<Node> {
        let tree = tree::parse(text, base);
        assert!(tree.broken.is_none() && tree.refused.is_empty(), "{text}: {tree:?}");
        tree.root.unwrap()
    }

    fn value(text: &str) -> serde_yaml::Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn maps_merge_lists_and_words_replace_and_null_takes_away() {
        for (base, over, merged) in [
            ("a: {b: 1, c: 2}", "a: {c: 3, d: 4}", "a: {b: 1, c: 3, d: 4}"),
            ("a: [1, 2]", "a: [3]", "a: [3]"),
            ("a: 1", "a: {b: {c: null, d: 2}}", "a: {b: {d: 2}}"),
            ("a: {b: 1, c: 2}", "a: {b: null}", "a: {c: 2}"),
            ("a: {b: 1, c: 2}", "a: {b: ~}", "a: {c: 2}"),
            ("a: {b: 1}\nc: 2", "a: null", "c: 2"),
            ("a: {b: 1}", "a:", "a: {b: 1}"),
            ("a: 1", "b: null", "a: 1"),
            ("a: {b: 1}", "a: 2", "a: 2"),
            ("a: &x {b: 1}\nc: *x", "c: {b: 2}", "a: {b: 1}\nc: {b: 2}"),
            (
                "a: \"1\"\nb: 0x10\nc: 1.50\nd: 'null'\ne: x y\nf: true",
                "g: '-'",
                "a: \"1\"\nb: 0x10\nc: 1.50\nd: 'null'\ne: x y\nf: true\ng: '-'",
            ),
            (
                "a: '\u{1f600} \"\\'\nb: \"\\u0007\\n\"",
                "c: |\n  x\n  y\n",
                "a: '\u{1f600} \"\\'\nb: \"\\u0007\\n\"\nc: \"x\\ny\\n\"",
            ),
        ] {
            let found = text(&merge(&parse(base, 0), &parse(over, 1000)), &[]);
            assert_eq!(value(&found), value(merged), "{base} with {over}: {found}");
        }
    }

    #[test]
    fn what_is_in_a_gap_is_not_written() {
        let merged = merge(&parse("a: {b: 1, c: 2}\nd: 3", 0), &parse("a: {e: 4}", 1000));
        let gaps = [4..8, 1004..1008];

        assert_eq!(value(&text(&merged, &gaps)), value("a: {c: 2}\nd: 3"));
    }

    #[test]
    fn a_key_that_is_given_again_is_not_gone() {
        let over = merge(&merge(&parse("a: {b: 1}", 0), &parse("a: {b: null}", 1000)), &parse("a: {b: 2}", 2000));

        assert!(over.get("a").unwrap().removed.is_empty());
        assert_eq!(value(&text(&over, &[])), value("a: {b: 2}"));
    }
}
