//! Texts as the schema sees them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// A text in a manifest: a number or `true` without quotes is taken as it is written, so that
/// `VERSION: 1.10` stays what it is. For the schema alone; the value is a `String`.
pub(crate) struct Text;

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text; a number or `true` without quotes is taken as it is written.",
            "type": ["string", "number", "boolean"]
        })
    }
}
