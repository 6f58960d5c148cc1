//! `GET /1.0/openapi.json`: the routes as an OpenAPI document, made from the table that the router is made from.

use super::agent::Agent;
use super::table::{About, JSON, Method, table};
use axum::Json;
use serde_json::{Map, Value, json};

pub(super) async fn show<A: Agent>() -> Json<Value> {
    Json(document(table::<A>().iter().map(|route| route.about)))
}

fn document(routes: impl Iterator<Item = About>) -> Value {
    let mut paths = Map::new();
    for about in routes {
        let path = paths.entry(about.path).or_insert_with(|| json!({}));
        path[about.method.name()] = operation(&about);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Plimsoll",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The agent's interface on its unix socket. Who calls is known by the kernel's word.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": {
                "type": "object",
                "required": ["code", "reason", "message", "details"],
                "properties": {
                    "code": {"type": "integer", "description": "The HTTP status"},
                    "reason": {"type": "string", "description": "One word in CamelCase that programs may go by"},
                    "message": {"type": "string", "description": "A sentence for a person"},
                    "details": {"type": "array", "items": {"type": "string"}},
                },
            }},
            "responses": {"Error": {
                "description": "It was not done, and why",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            }},
        },
    })
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

fn operation(about: &About) -> Value {
    let parameter = |name: &str, place: &str, words: &str| json!({"name": name, "in": place, "required": place == "path", "description": words, "schema": {"type": "string"}});
    let in_path = about.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path.map(|name| parameter(name, "path", "")).collect();
    parameters.extend(about.query.iter().map(|(name, words)| parameter(name, "query", words)));
    let words: Vec<&str> = about.path.split(['/', '{', '}']).filter(|part| !part.is_empty()).collect();
    let mut operation = json!({
        "operationId": format!("{}-{}", about.method.name(), words.join("-")),
        "summary": about.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": about.summary, "content": {about.answer: {}}},
            "default": {"$ref": "#/components/responses/Error"},
        },
    });
    if about.method == Method::Post {
        operation["requestBody"] = json!({"content": {JSON: {"schema": {"type": "object"}}}});
    }
    if about.changes {
        operation["responses"]["403"] = json!({"$ref": "#/components/responses/Error"});
    }
    operation
}
