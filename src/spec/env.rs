//! Environment variables, as a mapping or as a list.

use super::text::Text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The name of an environment variable: not empty, without `=` and NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[^=]+$"))]
pub struct EnvName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an environment variable: it is empty, or has '=' or NUL in it")]
pub struct InvalidEnvName(String);

impl EnvName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EnvName {
    type Error = InvalidEnvName;

    fn try_from(text: String) -> Result<Self, InvalidEnvName> {
        if text.is_empty() || text.contains(['=', '\0']) { Err(InvalidEnvName(text)) } else { Ok(Self(text)) }
    }
}

impl From<EnvName> for String {
    fn from(name: EnvName) -> Self {
        name.0
    }
}

/// One variable of the list form.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnvVar {
    /// Its name.
    name: EnvName,
    /// Its value.
    #[schemars(with = "Text")]
    value: String,
}

/// `{MODE: prod}`, or Kubernetes' `[{name: MODE, value: prod}]`.
pub(super) fn either<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<EnvName, String>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = BTreeMap<EnvName, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping of names to values")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut env = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                env.insert(name, value);
            }
            Ok(env)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut env = BTreeMap::new();
            while let Some(EnvVar { name, value }) = seq.next_element()? {
                if env.contains_key(&name) {
                    return Err(de::Error::custom(format!("{} stands here twice", name.as_str())));
                }
                env.insert(name, value);
            }
            Ok(env)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// Both forms, for the schema.
pub(super) struct EnvForms;

impl JsonSchema for EnvForms {
    fn schema_name() -> Cow<'static, str> {
        "Env".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<EnvName>();
        let text = generator.subschema_for::<Text>();
        let variables = generator.subschema_for::<Vec<EnvVar>>();
        json_schema!({"anyOf": [
            {"type": "object", "propertyNames": name, "additionalProperties": text},
            variables
        ]})
    }
}
