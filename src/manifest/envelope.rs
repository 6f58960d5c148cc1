//! What stands around `spec`, and the JSON Schema of it all.

use crate::spec::{API_VERSION, Container, Name, Text};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One object of a manifest file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Plimsoll manifest")]
pub(super) struct Manifest {
    /// The version of the format.
    #[serde(rename = "apiVersion")]
    #[expect(dead_code, reason = "checked before, and stated for the schema")]
    api_version: ApiVersion,
    /// What kind of object this is.
    #[expect(dead_code, reason = "checked before, and stated for the schema")]
    kind: KindWord,
    /// What the object is called.
    pub(super) metadata: Metadata,
    /// What is asked for.
    pub(super) spec: Container,
    /// What the agent reports in `plim get -o yaml`; ignored in a file.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    #[expect(dead_code, reason = "known, so that what `plim get -o yaml` prints can be saved as a file")]
    status: de::IgnoredAny,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    /// The object's name, unique among its kind in its namespace.
    pub(super) name: Name,
    /// The namespace; `default` when not given.
    #[serde(default = "default_namespace")]
    pub(super) namespace: Name,
    /// Words to select objects by: `plim get -l app=web`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub(super) labels: BTreeMap<String, String>,
    /// Notes for people and programs.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub(super) annotations: BTreeMap<String, String>,
}

pub(super) const DEFAULT_NAMESPACE: &str = "default";

fn default_namespace() -> Name {
    DEFAULT_NAMESPACE.parse().expect("a name")
}

#[derive(Debug)]
struct ApiVersion;

#[derive(Debug)]
struct KindWord;

/// The kinds that a file may hold.
pub(super) const KINDS: [&str; 1] = ["Container"];

/// Both are compared with what is known before anything is deserialised.
macro_rules! known_word {
    ($type:ident, $name:literal, $words:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                de::IgnoredAny::deserialize(deserializer).map(|_| Self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "enum": $words})
            }
        }
    };
}

known_word!(ApiVersion, "ApiVersion", [API_VERSION]);
known_word!(KindWord, "Kind", KINDS);

pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Manifest>();
    schema.insert("$id".to_owned(), "https://plimsoll.invalid/schemas/v1.json".into());
    let mut schema = schema.to_value();
    without_null(&mut schema);
    schema
});

/// A field that may be left out is an `Option` for us, and still nothing that `null` is written for.
fn without_null(schema: &mut serde_json::Value) {
    use serde_json::Value;
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    object.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
                forms.retain(|form| form.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(one)] = forms.as_mut_slice() {
                    let one = std::mem::take(one);
                    object.remove("anyOf");
                    object.extend(one);
                }
            }
            object.values_mut().for_each(without_null);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The JSON Schema (draft 2020-12) of one document of a manifest file, with a newline at its end.
///
/// It is for editors: it says which fields there are and what they look like. What fields mean to
/// each other is checked by [`super::read`] alone.
pub fn schema() -> String {
    // A `serde_json::Value` has no key that is not a string, and no number that JSON has not.
    let text = serde_json::to_string_pretty(&*SCHEMA).expect("a JSON value serialises");
    format!("{text}\n")
}
