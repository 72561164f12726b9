//! JSON schemas for types of other crates that appear in our custom resources.
//!
//! k8s-openapi could derive them (its `schemars` feature), but that compiles schemas for all of
//! Kubernetes; we need five.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `metav1.Time`: RFC 3339 with seconds.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// An optional [`time`].
pub(super) fn optional_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

/// A quantity such as `500m` or `8Gi`, or a plain integer.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    })
}

/// An optional [`quantity`].
pub(super) fn optional_quantity(g: &mut SchemaGenerator) -> Schema {
    let mut schema = quantity(g);
    schema.insert("nullable".into(), true.into());
    schema
}

/// A map from resource name to [`quantity`].
pub(super) fn quantities(g: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": quantity(g), "maxProperties": 32})
}

/// An object whose inside is checked when the pods are created, not here: its full schema would be
/// larger than all of ours together.
pub(super) fn opaque_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "nullable": true})
}

/// The list of `metav1.Condition`, keyed by type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "description": "What the condition is about."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "reason": {"type": "string", "description": "Why, in one CamelCase word, for programs."},
                "message": {"type": "string", "description": "Why, in a sentence, for people."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When `status` last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation of the spec that this was said of."},
            },
        },
    })
}

/// A map of labels: bounded, so that CEL's cost estimate of comparing two of them is too.
pub(super) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 253}})
}

/// A map of annotations: like [`string_map`] with longer values.
pub(super) fn annotation_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 8192}})
}
