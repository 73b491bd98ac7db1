//! The schema of the admin API, as `OpenAPI` 3.1, made from the routes and their types.

use super::{
    fault::ErrorBody,
    routes::{ROUTES, Route, type_of},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The whole document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut types = settings.into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.as_str().to_lowercase()] = operation(route, &mut types);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weir's admin API",
            "summary": "HTTP and JSON over the unix socket /run/weir/weir.sock. What is refused is answered as `Error`.",
            "version": "1",
        },
        "paths": paths,
        "components": { "schemas": types.take_definitions(true) },
    })
}

fn operation(route: &Route, types: &mut SchemaGenerator) -> Value {
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let answer = (route.answer)(types).to_value();
    let error = type_of::<ErrorBody>(types).to_value();
    let in_path = names(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = route.query.iter().map(|parameter| {
        json!({
            "name": parameter.name, "in": "query", "description": parameter.about, "schema": { "type": parameter.kind },
        })
    });
    let mut operation = json!({
        "summary": route.about,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {
            "200": { "description": "The answer.", "content": content(answer) },
            "default": { "description": "Why there is none.", "content": content(error) },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "required": true, "content": content(body(types).to_value()) });
    }
    operation
}

/// The names in a path.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
