//! The JSON schema of the file, for editors: `docs/configuration.schema.json`, made from the tables.

use serde_json::{Map, Value, json};

use super::keys::{REPOSITORY, SECTIONS, Shape, Table};

/// The schema.
pub(crate) fn schema() -> Value {
    let names = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
    let tables = SECTIONS.iter().map(|(name, table)| {
        let about = if std::ptr::eq(*table, &REPOSITORY) { "Repositories by name" } else { "Jobs by name" };
        let each = json!({
            "description": about,
            "type": "object",
            "patternProperties": { names: object(table) },
            "additionalProperties": false,
        });
        ((*name).to_owned(), each)
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lifeboat.toml",
        "type": "object",
        "properties": tables.collect::<Map<_, _>>(),
        "additionalProperties": false,
    })
}

fn object(table: &Table) -> Value {
    let properties = table.keys.iter().map(|key| {
        let mut value = shape(key.shape);
        if let Some(object) = value.as_object_mut() {
            object.insert("description".to_owned(), key.about.into());
        }
        (key.name.to_owned(), value)
    });
    json!({
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "required": table.required,
        "additionalProperties": false,
    })
}

fn shape(shape: Shape) -> Value {
    let text = json!({ "type": "string", "minLength": 1 });
    let path = json!({ "type": "string", "pattern": "^/" });
    let list = |items: &Value| json!({ "type": "array", "items": items });
    match shape {
        Shape::Text | Shape::Schedule | Shape::Time => text,
        Shape::Path => path,
        Shape::Paths => list(&path),
        Shape::List => list(&text),
        Shape::Commands => json!({ "anyOf": [text, list(&text)] }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "integer" }),
        Shape::Limit => json!({ "anyOf": [{ "type": "integer" }, text] }),
        Shape::Pairs => json!({ "type": "object", "additionalProperties": text }),
        Shape::Table(table) => object(table),
    }
}
