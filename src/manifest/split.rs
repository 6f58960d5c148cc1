//! Where each document of a stream begins and ends.
//!
//! A line that begins with `---` or `...` and a blank is a document marker wherever it stands, also
//! inside of a scalar (YAML 1.2, c-forbidden), so the text can be cut before it is parsed, and an
//! error of one document does not shift the limits of the next.

use std::ops::Range;

/// The ranges of `text` from `start` on that may hold a document.
pub(super) fn documents(text: &str, start: usize) -> Vec<Range<usize>> {
    let mut documents = Vec::new();
    let mut begin = start;
    let mut offset = start;
    // Directives (`%YAML 1.2`) and comments before the marker belong to the document after it.
    let mut content = false;
    for line in text[start..].split_inclusive('\n') {
        let next = offset + line.len();
        if is_marker(line, "---") {
            if content {
                documents.push(begin..offset);
                begin = offset;
            }
            content = true;
        } else if is_marker(line, "...") {
            if content {
                documents.push(begin..next);
            }
            begin = next;
            content = false;
        } else if !line.trim().is_empty() && !line.trim_start().starts_with('#') && !line.starts_with('%') {
            content = true;
        }
        offset = next;
    }
    if content {
        documents.push(begin..text.len());
    }
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::documents;

    fn cut(text: &str) -> Vec<&str> {
        documents(text, 0).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn documents_are_cut_at_markers() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("# only\n\n# comments", &[]),
            ("a: 1", &["a: 1"]),
            ("a: 1\n---\nb: 2\n", &["a: 1\n", "---\nb: 2\n"]),
            ("---\na: 1\n---\n", &["---\na: 1\n", "---\n"]),
            ("# head\n---\na: 1\n", &["# head\n---\na: 1\n"]),
            ("%YAML 1.2\n---\na: 1\n...\n# tail\n", &["%YAML 1.2\n---\na: 1\n...\n"]),
            ("a: |\n  text\n---\nb: 2", &["a: |\n  text\n", "---\nb: 2"]),
            ("--- {a: 1}\r\n---\r\nb: 2", &["--- {a: 1}\r\n", "---\r\nb: 2"]),
            ("---a: 1\n", &["---a: 1\n"]),
            ("a: 1\n...\nb: 2\n", &["a: 1\n...\n", "b: 2\n"]),
        ];
        for (text, expected) in cases {
            assert_eq!(cut(text), *expected, "{text:?}");
        }
    }
}
