//! The JSON Schema of a connector document, made from the registry.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::document::ApiVersion;
use crate::raw_meta::{RawMeta, RawTopic, RawTransform};
use crate::registry::{ConnectorKind, Direction, Registry};

impl Registry {
    /// JSON Schema (draft 2020-12) of one document of the file, keys sorted: the same registry
    /// gives the same text, whatever else is built with it.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let documents: Vec<Value> = self
            .kinds()
            .map(|kind| document_schema(kind, &mut generator))
            .collect();
        let definitions = generator.take_definitions(true);
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Connector.yaml",
            "description": "One document of Connector.yaml: a Fluvio connector configuration. \
                The file is a YAML stream of such documents.",
            "anyOf": documents,
            "$defs": definitions,
        });
        sorted(schema)
    }

    /// The schema as it is committed: indented, one newline at the end.
    #[must_use]
    pub fn schema_text(&self) -> String {
        format!("{:#}\n", self.schema())
    }
}

fn document_schema(kind: &dyn ConnectorKind, generator: &mut SchemaGenerator) -> Value {
    let section = kind.section_schema(generator);
    let versions = [
        (
            json!(["0.0.0", "0.1.0"]),
            generator.subschema_for::<RawMeta<String>>(),
        ),
        (
            json!(["0.2.0"]),
            generator.subschema_for::<RawMeta<RawTopic>>(),
        ),
    ];
    debug_assert_eq!(ApiVersion::NAMES.len(), 3, "a version is missing below");
    let forms: Vec<Value> = versions
        .into_iter()
        .map(|(names, meta)| form_schema(kind, &names, &meta, &section, generator))
        .collect();
    json!({ "title": kind.type_name(), "anyOf": forms })
}

fn form_schema(
    kind: &dyn ConnectorKind,
    versions: &Value,
    meta: &Schema,
    section: &Schema,
    generator: &mut SchemaGenerator,
) -> Value {
    let mut properties = Map::new();
    properties.insert(
        "apiVersion".into(),
        json!({ "description": "Version of this layout.", "enum": versions }),
    );
    // The type is fixed beside the reference, so that an editor offers the right section.
    let fixed = json!({ "properties": { "type": { "const": kind.type_name() } } });
    properties.insert("meta".into(), json!({ "allOf": [meta, fixed] }));
    if kind.direction() == Direction::Sink {
        let step = generator.subschema_for::<RawTransform>();
        properties.insert(
            "transforms".into(),
            json!({
                "description": "What records go through on their way out of the topic.",
                "type": "array",
                "items": step,
            }),
        );
    }
    properties.insert(kind.section_name().into(), json!(section));
    let mut required = vec!["meta", kind.section_name()];
    if versions == &json!(["0.2.0"]) {
        required.insert(0, "apiVersion");
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Objects with their keys in order, whether or not `serde_json` keeps another one.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            let entries = entries.into_iter().map(|(key, value)| (key, sorted(value)));
            Value::Object(entries.collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
