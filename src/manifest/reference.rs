//! The format's reference, read out of the schema: what each field is and what is below it.

use super::envelope::SCHEMA;
use super::habits;
use serde_json::Value as Json;

/// A field of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `spec.resources.memory.limit`; empty for the manifest as a whole.
    pub path: String,
    /// What stands there, in words.
    pub kind: String,
    /// What it is for. The first line is short.
    pub description: String,
    /// What its values are, where its type has something to say.
    pub values: String,
    pub required: bool,
    /// What holds when it is not said, as JSON.
    pub default: Option<String>,
    /// The names of the fields below, in alphabetical order.
    pub fields: Vec<String>,
}

/// There is no such field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no field `{name}` in {}{}", shown(parent), hint(.near.as_deref(), known))]
pub struct UnknownField {
    pub name: String,
    pub parent: String,
    pub near: Option<String>,
    pub known: Vec<String>,
}

fn shown(parent: &str) -> String {
    if parent.is_empty() { "a manifest".to_owned() } else { format!("`{parent}`") }
}

fn hint(near: Option<&str>, known: &[String]) -> String {
    match near {
        Some(near) => format!(" (did you mean `{near}`?)"),
        None if known.is_empty() => ": nothing is below it".to_owned(),
        None => format!(": there are `{}`", known.join("`, `")),
    }
}

/// The field at a path such as `spec.resources.memory`; the manifest as a whole for an empty one. Through
/// lists and named entries one goes without an index: `spec.mounts.path`.
///
/// # Errors
/// When one of the words is none of the fields at its place.
pub fn field(path: &str) -> Result<Field, UnknownField> {
    let mut schema: &Json = &SCHEMA;
    let mut place = String::new();
    let mut required = true;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let of = inner(schema);
        let known = names(of);
        let Some(next) = of.get("properties").and_then(|fields| fields.get(name)) else {
            let near = habits::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(UnknownField { name: name.to_owned(), parent: place, near, known });
        };
        let must = of.get("required").and_then(Json::as_array);
        required = must.is_some_and(|must| must.iter().any(|field| field == name));
        schema = next;
        if !place.is_empty() {
            place.push('.');
        }
        place.push_str(name);
    }
    let target = resolved(schema);
    let text = |of: &Json| of.get("description").and_then(Json::as_str).unwrap_or_default().to_owned();
    let (own, of_type) = (text(schema), text(target));
    let (description, values) = match own.is_empty() || std::ptr::eq(schema, target) {
        true => (of_type, String::new()),
        false => (own, of_type),
    };
    Ok(Field {
        path: place,
        kind: kind(schema),
        values: [values, words(target)].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n"),
        description,
        required,
        default: schema
            .get("default")
            .map(|default| default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
        fields: names(inner(schema)),
    })
}

/// What a `$ref` stands for.
fn resolved(schema: &Json) -> &Json {
    let name = schema.get("$ref").and_then(Json::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    name.and_then(|name| SCHEMA.get("$defs")?.get(name)).unwrap_or(schema)
}

/// The mapping that fields are in: of a list's items, of a map's entries.
fn inner(schema: &Json) -> &Json {
    let schema = resolved(schema);
    let below = schema.get("items").or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()));
    match below {
        Some(below) if schema.get("properties").is_none() => inner(below),
        _ => schema,
    }
}

fn names(schema: &Json) -> Vec<String> {
    schema
        .get("properties")
        .and_then(Json::as_object)
        .map(|fields| fields.keys().cloned().collect())
        .unwrap_or_default()
}

fn kind(schema: &Json) -> String {
    // Quantities, which are texts and numbers to a schema.
    match schema.get("$ref").and_then(Json::as_str) {
        Some("#/$defs/Bytes") => return "size, such as 64Mi".to_owned(),
        Some("#/$defs/MilliCpu") => return "CPUs, such as 0.5 or 500m".to_owned(),
        Some("#/$defs/Span") => return "time, such as 10s or 5m".to_owned(),
        _ => {}
    }
    let of = resolved(schema);
    if let Some(ways) = of.get("anyOf").and_then(Json::as_array) {
        let mut kinds: Vec<String> = ways.iter().map(kind).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    if of.get("enum").is_some() || of.get("oneOf").is_some() {
        return "word".to_owned();
    }
    match of.get("type") {
        Some(Json::String(kind)) => match kind.as_str() {
            "object" if of.get("properties").is_none() => "mapping of names".to_owned(),
            "object" => "mapping".to_owned(),
            "array" => format!("list of {}", of.get("items").map_or_else(|| "anything".to_owned(), kind_of_item)),
            "string" => "text".to_owned(),
            "integer" => range(of),
            "boolean" => "true or false".to_owned(),
            other => other.to_owned(),
        },
        Some(_) => "text".to_owned(),
        None => "anything".to_owned(),
    }
}

fn kind_of_item(schema: &Json) -> String {
    match kind(schema).as_str() {
        "mapping" => "mappings".to_owned(),
        "text" => "texts".to_owned(),
        other => other.to_owned(),
    }
}

fn range(schema: &Json) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!("whole number from {least} to {most}"),
        (Some(least), None) => format!("whole number from {least}"),
        _ => "whole number".to_owned(),
    }
}

/// Each word that may stand there, with what it means.
fn words(schema: &Json) -> String {
    let word = |one: &Json| one.get("const").and_then(Json::as_str).map(str::to_owned);
    let described = |one: &Json| {
        let means = one.get("description").and_then(Json::as_str).unwrap_or_default();
        Some(format!("{}: {}", word(one)?, means.replace('\n', " ")))
    };
    if let Some(ways) = schema.get("oneOf").and_then(Json::as_array) {
        return ways.iter().filter_map(described).collect::<Vec<_>>().join("\n");
    }
    let all = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    all.filter_map(Json::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path of the schema.
    fn all(path: &str, found: &mut Vec<Field>) {
        let here = field(path).unwrap();
        for name in &here.fields {
            all(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
        }
        found.push(here);
    }

    #[test]
    fn every_field_is_found_and_says_what_it_is_and_what_it_is_for() {
        let mut found = Vec::new();
        all("", &mut found);

        assert!(found.len() > 80, "{}", found.len());
        for field in &found {
            assert!(!field.kind.is_empty() && !field.kind.contains("anything"), "{field:?}");
            assert!(!field.description.is_empty(), "{field:?}");
        }
    }

    #[test]
    fn every_field_whose_change_has_a_class_is_in_the_reference() {
        for row in crate::spec::change::table() {
            assert!(field(row.field).is_ok(), "{}", row.field);
        }
    }

    #[test]
    fn a_path_goes_through_lists_and_says_what_is_there() {
        let path = field("spec.mounts.path").unwrap();
        assert!(path.required && path.kind == "text" && path.values.contains("absolute path"), "{path:?}");
        let mounts = field("spec.mounts").unwrap();
        assert_eq!((mounts.kind.as_str(), mounts.fields.len()), ("list of mappings", 4));
        let policy = field("spec.deletionPolicy").unwrap();
        assert_eq!(policy.default.as_deref(), Some("Delete"));
        assert!(policy.values.contains("Orphan: "), "{policy:?}");
    }

    #[test]
    fn a_slip_is_met_with_the_nearest_field() {
        let said = |path: &str| field(path).unwrap_err().to_string();

        assert_eq!(
            said("spec.resources.memroy"),
            "there is no field `memroy` in `spec.resources` (did you mean `memory`?)"
        );
        assert!(said("spec.resources.x").ends_with("`io`, `memory`, `pids`"), "{}", said("spec.resources.x"));
        assert_eq!(said("kind.x"), "there is no field `x` in `kind`: nothing is below it");
    }
}
