//! JSON schemas for types of other crates that appear in our custom resources, and what is done to
//! the whole of a generated CRD ([`tidy`]).
//!
//! k8s-openapi could derive them (its `schemars` feature), but that compiles schemas for all of
//! Kubernetes; we need five.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::rules;

/// `metav1.Time`: RFC 3339 with seconds.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// An optional [`time`].
pub(super) fn optional_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A quantity such as `500m` or `8Gi`, or a plain integer. Kubernetes' pattern for it would make a
/// regular expression the message that a user gets; a CEL rule says what to write.
pub(super) fn optional_quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [rules::int_or_string_quantity()],
    })
}

/// A quantity of a list's item: a string only, because a bounded one is cheap to check.
pub(super) fn bounded_quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [rules::quantity()],
    })
}

/// A map from resource name to quantity.
pub(super) fn quantities(g: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": optional_quantity(g), "maxProperties": 12})
}

/// An object whose inside is checked when the pods are created, not here: its full schema would be
/// larger than all of ours together.
pub(super) fn opaque_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
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

/// A map from failure class to a count.
pub(super) fn counts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "integer", "format": "int32", "description": "How many attempts failed so."}})
}

/// A map of labels: bounded, so that CEL's cost estimate of comparing two of them is too.
pub(super) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 63}})
}

/// A map of annotations: like [`string_map`] with longer values.
pub(super) fn annotation_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 65536}})
}

/// What a CSI driver is told.
pub(super) fn attribute_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 1024}})
}

/// Puts a CRD that `kube` generated into the shape that serves users best.
///
/// - An optional field is absent or has a value. `kube` also lets it be null, which is stored and
///   then counts as set for CEL's `has`; without that, the API server drops a null as it does
///   everywhere else in Kubernetes.
/// - Nothing in a status is validated beyond its types: the runtime's snapshot in it was checked when
///   the runtime was applied, and a rule that a later version adds must stop no running job.
pub(super) fn tidy(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut();
        if let Some(root) = root.and_then(|s| s.open_api_v3_schema.as_mut()) {
            root.title = None;
            walk(root, &mut |schema| schema.nullable = None);
            if let Some(status) = root.properties.as_mut().and_then(|p| p.get_mut("status")) {
                walk(status, &mut |schema| schema.x_kubernetes_validations = None);
            }
        }
    }
}

fn walk(schema: &mut JSONSchemaProps, change: &mut impl FnMut(&mut JSONSchemaProps)) {
    change(schema);
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        walk(property, change);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        walk(values, change);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        walk(items, change);
    }
}
