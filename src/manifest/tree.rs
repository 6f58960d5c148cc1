//! A document as a tree that knows where everything stands.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Collections inside of collections.
const MAX_DEPTH: usize = 64;
/// Values and keys of a document.
const MAX_NODES: usize = 100_000;
/// Nodes that all aliases of a document may stand for together.
const MAX_ALIASED_NODES: usize = 10_000;
/// So much of a text weighs as much as a node.
const TEXT_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Node {
    /// In bytes of the file. Of an alias' target it is where the target stands.
    pub(super) span: Range<usize>,
    pub(super) value: Value,
    /// Keys that were taken away from it, by what was laid over it.
    pub(super) removed: Vec<Entry>,
    /// How many nodes it is with everything below, aliases followed.
    pub(super) size: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// Without quotes, so that `true` is not a text.
        plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Rc<Node>,
    pub(super) value: Rc<Node>,
    /// The key and the value as written here, an alias as the alias.
    pub(super) range: Range<usize>,
}

/// One step of the way from the root to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Node {
    fn new(span: Range<usize>, value: Value, size: usize) -> Self {
        Self { span, value, removed: Vec::new(), size }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// Nothing, or one of the spellings of nothing (YAML 1.2, core schema).
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            Value::Sequence(_) | Value::Mapping(_) => false,
        }
    }

    /// One of its spellings, and not merely nothing.
    pub(super) fn is_written_null(&self) -> bool {
        self.is_null() && self.text() != Some("")
    }

    /// The entry of `key`, if there is exactly one.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        let Value::Mapping(entries) = &self.value else { return None };
        let mut found = entries.iter().filter(|entry| entry.key.text() == Some(key));
        match (found.next(), found.next()) {
            (Some(entry), None) => Some(entry),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// What stands at the end of `path`, or at as much of it as exists, and the innermost mapping entry on the way.
    pub(super) fn find<'a>(&'a self, path: &[Step]) -> Place<'a> {
        let mut place = Place { node: self, entry: None };
        for step in path {
            match (step, &place.node.value) {
                (Step::Key(key), Value::Mapping(_)) => match place.node.entry(key) {
                    Some(entry) => place = Place { node: &entry.value, entry: Some(entry) },
                    None => break,
                },
                (Step::Index(index), Value::Sequence(items)) => match items.get(*index) {
                    Some(item) => place.node = item,
                    None => break,
                },
                _ => break,
            }
        }
        place
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    pub(super) entry: Option<&'a Entry>,
}

impl Place<'_> {
    /// What to mark: the value when it is a word, else its key, else all of it.
    pub(super) fn span(&self) -> Range<usize> {
        match (&self.node.value, self.entry) {
            (Value::Scalar { .. }, Some(entry)) if self.node.span.is_empty() => entry.key.span.clone(),
            (Value::Scalar { .. }, _) => self.node.span.clone(),
            (_, Some(entry)) if std::ptr::eq(&*entry.value, self.node) => entry.key.span.clone(),
            (_, _) => self.node.span.clone(),
        }
    }
}

/// Something that is wrong with the document as YAML.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// What could be read before `broken`, at least.
    pub(super) root: Option<Rc<Node>>,
    /// Keys given twice, by the entry that came second.
    pub(super) duplicates: Vec<(Problem, Range<usize>)>,
    /// It is YAML, but nothing that a typed parser should see.
    pub(super) refused: Vec<Problem>,
    /// It is not YAML.
    pub(super) broken: Option<Problem>,
}

/// Parses one document, whose first byte is byte `base` of the file.
pub(super) fn parse(text: &str, base: usize) -> Tree {
    let mut builder = Builder::new(text, base);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => {
                if let Err(problem) = builder.take(event, span) {
                    builder.tree.broken = Some(problem);
                    break;
                }
            }
            Err(error) => {
                let at = builder.byte(error.marker().index());
                builder.tree.broken = Some(syntax_error(text, base, at, error.info()));
                break;
            }
        }
    }
    builder.finish()
}

fn syntax_error(text: &str, base: usize, at: usize, info: &str) -> Problem {
    let offset = (at - base).min(text.len());
    let line = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    let rest = &text[line..];
    let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let tab = rest[..blank].find('\t');
    match tab {
        Some(tab) => Problem {
            span: base + line + tab..base + line + tab + 1,
            message: format!("not YAML: {info}"),
            help: Some("YAML takes no tabs for indentation: write spaces"),
        },
        None => Problem { span: at..at + 1, message: format!("not YAML: {info}"), help: None },
    }
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    start: usize,
    end: usize,
    size: usize,
    value: OpenValue,
}

enum OpenValue {
    Sequence(Vec<Rc<Node>>),
    /// The key that waits for its value, with the range in which it is written.
    Mapping(Vec<Entry>, Option<(Rc<Node>, Range<usize>)>),
}

struct Builder<'a> {
    text: &'a str,
    base: usize,
    /// Offset of each character, where they differ from its number.
    offsets: Option<Vec<usize>>,
    open: Vec<Open>,
    /// Complete nodes that have an anchor.
    anchored: BTreeMap<usize, Rc<Node>>,
    nodes: usize,
    aliased: usize,
    tree: Tree,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, base: usize) -> Self {
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self {
            text,
            base,
            offsets,
            open: Vec::new(),
            anchored: BTreeMap::new(),
            nodes: 0,
            aliased: 0,
            tree: Tree::default(),
        }
    }

    /// The byte of the file that the parser calls character `index` of the document.
    fn byte(&self, index: usize) -> usize {
        let offset = match &self.offsets {
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.text.len()),
            None => index.min(self.text.len()),
        };
        self.base + offset
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let range = self.range(span);
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values in one document");
            return Err(Problem { span: range, message, help: None });
        }
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::Alias(anchor) => {
                let node = self.resolve(anchor, &range);
                self.place(node, range);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let range = self.without_rest(range, style, text.is_empty());
                self.check_tag(tag.as_deref(), &range);
                // What says that it is a text is one, as with quotes.
                let is_text = tag.as_deref().is_some_and(|tag| tag.suffix == "str");
                let plain = style == ScalarStyle::Plain && !is_text;
                let text_bytes = text.len();
                let value = Value::Scalar { text: text.into_owned(), plain };
                // An alias to a long text is as much as one to many short ones.
                let size = 1 + text_bytes / TEXT_BYTES;
                self.complete(anchor, Node::new(range.clone(), value, size), range);
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &range);
                self.enter(anchor, &range, OpenValue::Sequence(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &range);
                self.enter(anchor, &range, OpenValue::Mapping(Vec::new(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                // A block's end is reported where the next thing begins; a bracket has a width.
                let end = if range.is_empty() { None } else { Some(range.end) };
                self.leave(end);
            }
        }
        Ok(())
    }

    /// The parser counts in what comes after: blanks and a comment behind a closing quote, and the
    /// marker behind nothing.
    fn without_rest(&self, range: Range<usize>, style: ScalarStyle, empty: bool) -> Range<usize> {
        let quote = match style {
            ScalarStyle::SingleQuoted => b'\'',
            ScalarStyle::DoubleQuoted => b'"',
            ScalarStyle::Plain if empty => return range.start..range.start,
            ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => return range,
        };
        let text = &self.text.as_bytes()[range.start - self.base..range.end - self.base];
        let mut at = 1;
        while let Some(byte) = text.get(at) {
            let pair = match byte {
                b'\\' => quote == b'"',
                _ if *byte == quote => quote == b'\'' && text.get(at + 1) == Some(&quote),
                _ => false,
            };
            if !pair && *byte == quote {
                return range.start..range.start + at + 1;
            }
            at += if pair { 2 } else { 1 };
        }
        range
    }

    fn enter(&mut self, anchor: usize, range: &Range<usize>, value: OpenValue) -> Result<(), Problem> {
        if self.open.len() == MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} levels inside of each other");
            return Err(Problem { span: range.clone(), message, help: None });
        }
        self.open.push(Open { anchor, start: range.start, end: range.end, size: 1, value });
        Ok(())
    }

    fn leave(&mut self, end: Option<usize>) {
        let Some(open) = self.open.pop() else { return };
        let range = open.start..end.unwrap_or(open.end).max(open.start);
        let value = match open.value {
            OpenValue::Sequence(items) => Value::Sequence(items),
            OpenValue::Mapping(entries, _) => Value::Mapping(entries),
        };
        self.complete(open.anchor, Node::new(range.clone(), value, open.size), range);
    }

    fn complete(&mut self, anchor: usize, node: Node, range: Range<usize>) {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchored.insert(anchor, Rc::clone(&node));
        }
        self.place(node, range);
    }

    /// Puts a node where the text has it.
    fn place(&mut self, node: Rc<Node>, range: Range<usize>) {
        let Some(open) = self.open.last_mut() else {
            self.tree.root.get_or_insert(node);
            return;
        };
        open.end = open.end.max(range.end);
        open.size = open.size.saturating_add(node.size);
        match &mut open.value {
            OpenValue::Sequence(items) => items.push(node),
            OpenValue::Mapping(_, waiting @ None) => {
                let refused = match node.text() {
                    Some("<<") => Some((
                        "merge keys are not supported",
                        "write the fields out, or use an alias for a whole value",
                    )),
                    Some(_) => None,
                    None => Some(("a key has to be a word", "write `key: value`")),
                };
                if let Some((message, help)) = refused {
                    let problem = Problem { span: range.clone(), message: message.to_owned(), help: Some(help) };
                    self.tree.refused.push(problem);
                }
                *waiting = Some((node, range));
            }
            OpenValue::Mapping(entries, waiting) => {
                if let Some((key, at)) = waiting.take() {
                    // Nothing, written as nothing: the colon is all there is of it.
                    let rest = &self.text[(at.end - self.base).min(self.text.len())..];
                    let colon = rest.trim_start_matches([' ', '\t']);
                    let end = match colon.strip_prefix(':') {
                        Some(behind) if range.is_empty() => at.end + rest.len() - behind.len(),
                        Some(_) | None => range.end,
                    };
                    let range = at.start..end.max(at.end);
                    entries.push(Entry { key, value: node, range });
                }
            }
        }
    }

    fn resolve(&mut self, anchor: usize, range: &Range<usize>) -> Rc<Node> {
        let refused = match self.anchored.get(&anchor) {
            None => "an alias to something that it is itself a part of",
            Some(node) => {
                self.aliased = self.aliased.saturating_add(node.size);
                if self.aliased <= MAX_ALIASED_NODES {
                    return Rc::clone(node);
                }
                "the aliases of this document expand to too much"
            }
        };
        if self.tree.refused.is_empty() {
            let problem = Problem { span: range.clone(), message: refused.to_owned(), help: Some("write it out") };
            self.tree.refused.push(problem);
        }
        Rc::new(Node::new(range.clone(), Value::Scalar { text: String::new(), plain: true }, 1))
    }

    fn check_tag(&mut self, tag: Option<&Tag>, range: &Range<usize>) {
        let Some(tag) = tag else { return };
        let known = ["str", "int", "float", "bool", "null", "map", "seq"];
        if !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str())) {
            let message = "a tag has no meaning here".to_owned();
            self.tree.refused.push(Problem { span: range.clone(), message, help: Some("leave it out") });
        }
    }

    /// Also of a text that breaks off: what was complete then, so that its identity can be read.
    fn finish(mut self) -> Tree {
        while !self.open.is_empty() {
            self.leave(None);
        }
        let mut tree = self.tree;
        if let Some(root) = tree.root.clone() {
            duplicates(&root, &mut tree.duplicates);
        }
        tree
    }
}

/// A typed parser takes the last one for a map, and says nothing.
fn duplicates(node: &Node, found: &mut Vec<(Problem, Range<usize>)>) {
    match &node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter().for_each(|item| duplicates(item, found)),
        Value::Mapping(entries) => {
            let mut seen = std::collections::BTreeSet::new();
            for entry in entries {
                if let Some(key) = entry.key.text()
                    && !seen.insert(key)
                {
                    let problem = Problem {
                        span: entry.key.span.clone(),
                        message: format!("`{key}` stands here twice"),
                        help: Some("leave one of them out"),
                    };
                    found.push((problem, entry.range.clone()));
                }
                duplicates(&entry.value, found);
            }
        }
    }
}
