//! A document against the schema: every field that nobody knows, every value of the wrong shape.
//!
//! A typed parser would stop at the first one and could suggest nothing. What has the right shape
//! and is still wrong (a name, a quantity) is left to the types, which know why.

use super::document::{Finding, MAX_DIAGNOSTICS};
use super::envelope::SCHEMA;
use super::tree::{Entry, Node, Value};
use super::{habits, typed};
use crate::spec::{Bytes, EnvName};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

/// Compares `root` with the schema. Entries that no typed parser should see go into `unusable`,
/// also those that say nothing (`resources:` with all below it commented out).
pub(super) fn check(root: &Node, findings: &mut Vec<Finding>, unusable: &mut Vec<Range<usize>>) {
    let mut walk = Walk { path: Vec::new(), findings, unusable };
    walk.node(root, None, &SCHEMA);
}

struct Walk<'a> {
    path: Vec<String>,
    findings: &'a mut Vec<Finding>,
    unusable: &'a mut Vec<Range<usize>>,
}

/// What a schema asks of a value, as far as its shape goes.
enum Shape<'s> {
    Mapping(&'s Json),
    List(&'s Json),
    Word(Vec<&'s str>),
    Switch,
    Whole(&'s Json),
    /// A scalar, which its own type reads.
    Scalar,
    Anything,
}

impl Walk<'_> {
    /// `entry` is the one that holds `node`, when a mapping does.
    fn node(&mut self, node: &Node, entry: Option<&Entry>, schema: &Json) {
        if self.findings.len() >= MAX_DIAGNOSTICS {
            return;
        }
        match (shape(schema, node), &node.value) {
            (Shape::Anything, _) => {}
            (Shape::Mapping(schema), Value::Mapping(entries)) => self.mapping(node, entry, entries, schema),
            (Shape::List(schema), Value::Sequence(items)) => {
                let Some(of) = schema.get("items") else { return };
                for (index, item) in items.iter().enumerate() {
                    self.path.push(format!("[{index}]"));
                    self.node(item, None, of);
                    self.path.pop();
                }
            }
            (Shape::Scalar, Value::Scalar { .. }) if !node.is_null() => {}
            (Shape::Word(words), Value::Scalar { text, .. }) if words.contains(&text.as_str()) => {}
            (Shape::Switch, Value::Scalar { text, plain: true }) if matches!(text.as_str(), "true" | "false") => {}
            (Shape::Whole(schema), Value::Scalar { text, plain: true }) if in_range(text, schema) => {}
            (shape, _) => self.wrong(node, entry, &shape),
        }
    }

    fn mapping(&mut self, node: &Node, entry: Option<&Entry>, entries: &[Entry], schema: &Json) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let rest = schema.get("additionalProperties").or_else(|| {
            schema.get("patternProperties").and_then(Json::as_object).and_then(|patterns| patterns.values().next())
        });
        for entry in entries {
            let Some(key) = entry.key.text() else { continue };
            if let Some(finding) = self.wrong_key(entry, key) {
                self.findings.push(finding);
                self.unusable.push(entry.range.clone());
                continue;
            }
            self.path.push(key.to_owned());
            let known = properties.and_then(|properties| properties.get(key));
            match (known, rest) {
                (Some(of), _) => self.value(entry, of, is_required(schema, key)),
                (None, Some(Json::Bool(true)) | None) => {}
                (None, Some(of @ Json::Object(_))) => self.value(entry, of, true),
                (None, Some(_)) => {
                    let names = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                    self.unknown(entry, key, names);
                }
            }
            self.path.pop();
        }
        self.removed(node, properties, rest);
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|entry| entry.key.text() == Some(name)) {
                let taken = node.removed.iter().find(|gone| gone.key.text() == Some(name));
                let span = match taken.or(entry) {
                    Some(entry) => entry.key.span.clone(),
                    None => node.span.start..node.span.start + 1,
                };
                let help = match (self.path.join(".").as_str(), name) {
                    ("spec", "image") => Some("write `image: host:/` for the host's own programs"),
                    ("spec", "command") => Some("write what it runs: `command: [/bin/sh, -c, …]`"),
                    _ => None,
                };
                let of = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.field()) };
                self.findings.push(Finding::new(span, format!("missing field `{name}`{of}"), help));
            }
        }
    }

    /// What was to be taken away has to be something that could have been there.
    fn removed(&mut self, node: &Node, properties: Option<&serde_json::Map<String, Json>>, rest: Option<&Json>) {
        if !matches!(rest, Some(Json::Bool(false))) {
            return;
        }
        for gone in &node.removed {
            let Some(key) = gone.key.text() else { continue };
            if properties.is_none_or(|properties| !properties.contains_key(key)) {
                self.path.push(key.to_owned());
                self.unknown(gone, key, properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect());
                self.path.pop();
            }
        }
    }

    /// A key that its type refuses, which the typed parser would tell at the value.
    fn wrong_key(&self, entry: &Entry, key: &str) -> Option<Finding> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let error = match path.as_slice() {
            ["spec", "env"] => EnvName::try_from(key.to_owned()).err()?.to_string(),
            ["spec", "resources", "hugepages"] => key.parse::<Bytes>().err()?.to_string(),
            _ => return None,
        };
        Some(typed::finding(entry.key.span.clone(), &error))
    }

    fn value(&mut self, entry: &Entry, schema: &Json, required: bool) {
        if !entry.value.is_null() {
            return self.node(&entry.value, Some(entry), schema);
        }
        let shape = shape(schema, &entry.value);
        self.unusable.push(entry.range.clone());
        if required || !matches!(shape, Shape::Mapping(_) | Shape::List(_)) {
            let help = match (shape, required) {
                (Shape::Scalar, true) => "write \"\" for an empty text",
                (_, true) => "give it one",
                (_, false) => "give it one, or leave the field out",
            };
            let message = format!("`{}` has no value", self.field());
            self.findings.push(Finding::new(entry.key.span.clone(), message, Some(help)));
        }
    }

    fn unknown(&mut self, entry: &Entry, key: &str, known: Vec<&str>) {
        self.unusable.push(entry.range.clone());
        if self.findings.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let here = || known.iter().find(|name| habits::fold(name) == habits::fold(key)).copied();
        let elsewhere = || {
            let paths = PLACES.get(&habits::fold(key))?;
            let prefix = self.path[..self.path.len() - 1].join(".");
            // The place nearest to where it was looked for.
            let common = |path: &&String| path.split('.').zip(prefix.split('.')).take_while(|(a, b)| a == b).count();
            paths.iter().max_by_key(common)
        };
        let help = if let Some(name) = here() {
            format!("did you mean `{name}`?")
        } else if let Some(write) = habits::instead(key) {
            format!("write {write}")
        } else if let Some(name) = habits::nearest(key, known.iter().copied()) {
            format!("did you mean `{name}`?")
        } else if let Some(path) = elsewhere() {
            format!("did you mean `{path}`?")
        } else {
            format!("known here: `{}`", known.join("`, `"))
        };
        self.findings.push(Finding::new(entry.key.span.clone(), format!("unknown field `{key}`"), Some(help)));
    }

    fn wrong(&mut self, node: &Node, entry: Option<&Entry>, shape: &Shape<'_>) {
        let found = match &node.value {
            _ if node.is_null() => "nothing".to_owned(),
            Value::Scalar { text, plain: true } => format!("`{text}`"),
            Value::Scalar { text, plain: false } => format!("the text {text:?}"),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        };
        let (expected, help) = match shape {
            Shape::Mapping(schema) => ("a mapping of fields".to_owned(), self.example(schema)),
            Shape::List(_) => ("a list".to_owned(), Some(format!("write `{}: [a, b]`", self.last()))),
            Shape::Switch => ("`true` or `false`".to_owned(), None),
            Shape::Word(words) => {
                let near = node.text().and_then(|text| habits::nearest(text, words.iter().copied()));
                let expected = match words.as_slice() {
                    [one] => format!("`{one}`"),
                    [first @ .., last] => format!("`{}` or `{last}`", first.join("`, `")),
                    [] => "something else".to_owned(),
                };
                (expected, near.map(|near| format!("did you mean `{near}`?")))
            }
            Shape::Whole(schema) => (range(schema), None),
            Shape::Scalar | Shape::Anything => {
                let help = (node.is_null() && entry.is_none())
                    .then(|| "write \"\" for an empty text, \"null\" for the word".to_owned());
                ("a single value".to_owned(), help)
            }
        };
        let span = match (&node.value, entry) {
            (Value::Scalar { .. }, _) if !node.span.is_empty() => node.span.clone(),
            (_, Some(entry)) => entry.key.span.clone(),
            (_, None) => node.span.clone(),
        };
        let message = format!("`{}` has to be {expected}, not {found}", self.field());
        self.findings.push(Finding::new(span, message, help));
        if let Some(entry) = entry {
            self.unusable.push(entry.range.clone());
        }
    }

    /// For `memory: 512Mi`, which is what one would like to write.
    fn example(&self, schema: &Json) -> Option<String> {
        let limit = schema.get("properties")?.get("limit")?;
        let value = match limit.get("description").and_then(Json::as_str) {
            Some(text) if text.contains("CPU") => "1.5",
            _ if self.last() == "memory" => "512Mi",
            _ => "512",
        };
        Some(format!("write `{}: {{limit: {value}}}`", self.last()))
    }

    fn last(&self) -> &str {
        self.path.iter().rev().find(|part| !part.starts_with('[')).map_or("", String::as_str)
    }

    /// The way here as one writes it: `spec.mounts[0].path`.
    fn field(&self) -> String {
        self.path.join(".").replace(".[", "[")
    }
}

fn resolve(mut schema: &Json) -> &Json {
    while let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|path| path.strip_prefix("#/$defs/")) {
        match SCHEMA.get("$defs").and_then(|defs| defs.get(name)) {
            Some(definition) => schema = definition,
            None => break,
        }
    }
    schema
}

fn types(schema: &Json) -> impl Iterator<Item = &str> {
    let types = schema.get("type");
    types.and_then(Json::as_array).into_iter().flatten().chain(types).filter_map(Json::as_str)
}

fn alternatives(schema: &Json) -> impl Iterator<Item = &Json> {
    ["anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten().map(resolve)
}

fn is_required(schema: &Json, key: &str) -> bool {
    schema.get("required").and_then(Json::as_array).is_some_and(|names| names.iter().any(|name| name == key))
}

/// The shape that `schema` asks for; of several the one that `node` is nearest to.
fn shape<'s>(schema: &'s Json, node: &Node) -> Shape<'s> {
    let schema = resolve(schema);
    let words: Vec<&str> = words(schema);
    if !words.is_empty() {
        return Shape::Word(words);
    }
    if let Some(first) = alternatives(schema).next() {
        let wanted = match &node.value {
            Value::Scalar { .. } => "scalar",
            Value::Sequence(_) => "array",
            Value::Mapping(_) => "object",
        };
        let group = |schema: &Json| match types(schema).next() {
            Some("object") => "object",
            Some("array") => "array",
            _ => "scalar",
        };
        // `user` is a number or a text, and so on: its own type tells which.
        if wanted == "scalar" && alternatives(schema).filter(|schema| group(schema) == wanted).count() > 1 {
            return Shape::Scalar;
        }
        let chosen = alternatives(schema).find(|schema| group(schema) == wanted).unwrap_or(first);
        return shape(chosen, node);
    }
    match types(schema).next() {
        Some("object") => Shape::Mapping(schema),
        Some("array") => Shape::List(schema),
        Some("boolean") => Shape::Switch,
        Some("integer") => Shape::Whole(schema),
        Some(_) => Shape::Scalar,
        None => Shape::Anything,
    }
}

/// The words of an enumeration, with or without a description of each.
fn words(schema: &Json) -> Vec<&str> {
    let own = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    let each = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten().flat_map(|one| {
        one.get("const").into_iter().chain(one.get("enum").and_then(Json::as_array).into_iter().flatten())
    });
    own.chain(each).filter_map(Json::as_str).collect()
}

fn bounds(schema: &Json) -> (i128, i128) {
    let bound = |key: &str| schema.get(key).and_then(Json::as_i64).map(i128::from);
    let (least, most) = match schema.get("format").and_then(Json::as_str) {
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    (bound("minimum").unwrap_or(least).max(least), bound("maximum").unwrap_or(most).min(most))
}

fn in_range(text: &str, schema: &Json) -> bool {
    let (least, most) = bounds(schema);
    text.parse::<i128>().is_ok_and(|number| (least..=most).contains(&number))
}

fn range(schema: &Json) -> String {
    match bounds(schema) {
        (least, most) if most == i128::from(i64::MAX) => format!("a whole number, at least {least}"),
        (least, most) => format!("a whole number from {least} to {most}"),
    }
}

/// Where each field of the format stands, by its name without case and separators.
static PLACES: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
    let mut places = BTreeMap::new();
    collect(&SCHEMA, &mut Vec::new(), &mut places);
    places
});

/// The path of every field: `spec.resources.memory.limit`.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    PLACES.values().flatten().map(String::as_str)
}

fn collect(schema: &Json, path: &mut Vec<String>, places: &mut BTreeMap<String, Vec<String>>) {
    let schema = resolve(schema);
    for (name, of) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        path.push(name.clone());
        places.entry(habits::fold(name)).or_default().push(path.join("."));
        collect(of, path, places);
        if let Some(items) = resolve(of).get("items") {
            collect(items, path, places);
        }
        path.pop();
    }
}
