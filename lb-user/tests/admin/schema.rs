//! The document in the repository.

use lb_user::admin::schema;
use serde_json::{Value, json};
use std::{env, fs, path::PathBuf};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/admin-api.json")
}

#[test]
fn the_schema_in_the_repository_is_current() {
    let current = format!("{:#}\n", schema::document());
    if env::var_os("WEIR_UPDATE_DOCUMENTS").is_some() {
        fs::create_dir_all(path().parent().expect("a folder")).expect("writable");
        fs::write(path(), &current).expect("writable");
    }
    let written = fs::read_to_string(path()).unwrap_or_default();
    assert!(
        written == current,
        "docs/admin-api.json is stale: `WEIR_UPDATE_DOCUMENTS=1 cargo test -p lb-user --test admin` writes it anew"
    );
}

/// A schema of the document, with the types that it refers to.
pub(crate) fn within(document: &Value, schema: &Value) -> Value {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    whole
}

#[test]
fn every_type_is_a_schema_and_refers_to_what_there_is() {
    let document = schema::document();
    let types = document["components"]["schemas"].as_object().expect("types");
    assert!(types.len() > 10);
    for (name, schema) in types {
        assert!(jsonschema::meta::is_valid(schema), "{name} is no JSON Schema");
        let built = jsonschema::validator_for(&within(&document, schema));
        let validator = built.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!validator.is_valid(&json!(17.5)), "{name} takes anything");
    }
}
