//! The generated CRDs: that the files are current, that `kubectl explain` says something about every
//! field, and that they stay small. None of this needs a server.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use trainyard::api::{crd_files, crds};

fn schemas() -> Vec<(String, Value)> {
    crds()
        .iter()
        .map(|crd| {
            let json = serde_json::to_value(crd).expect("JSON");
            let schema = json["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            (crd.spec.names.singular.clone().unwrap_or_default(), schema)
        })
        .collect()
}

/// Calls `see` with the path and the schema of every property below `schema`.
fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        see(&path, property);
        walk(&path, property, see);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}[]"), &schema[inner], see);
        }
    }
}

#[test]
fn explain_has_a_sentence_for_every_field() {
    let mut mute = Vec::new();
    let mut seen = 0;
    for (name, schema) in schemas() {
        walk(&name, &schema, &mut |path, property| {
            seen += 1;
            let text = property["description"].as_str().unwrap_or_default();
            if text.trim().len() < 5 {
                mute.push(format!("{path}: no description"));
            } else if text.contains("[`") || text.contains("::") {
                mute.push(format!("{path}: Rust in a text for users: {text}"));
            } else if !text.trim_end().ends_with(['.', '…']) {
                mute.push(format!("{path}: not a sentence: {text}"));
            }
        });
    }
    assert!(seen > 200, "only {seen} properties were seen");
    assert!(mute.is_empty(), "{}", mute.join("\n"));
}

#[test]
fn no_field_can_be_null_and_count_as_set() {
    for (name, schema) in schemas() {
        walk(&name, &schema, &mut |path, property| {
            assert_eq!(property.get("nullable"), None, "{path}");
        });
    }
}

#[test]
fn a_stricter_rule_of_a_later_version_never_blocks_a_status() {
    for (name, schema) in schemas() {
        walk(
            &name,
            &schema["properties"]["status"],
            &mut |path, property| {
                assert_eq!(property.get("x-kubernetes-validations"), None, "{path}");
            },
        );
    }
}

#[test]
fn each_crd_stays_far_below_what_client_side_apply_and_etcd_take() {
    for crd in crds() {
        let size = serde_json::to_vec(&crd).expect("JSON").len();
        let name = crd.spec.names.plural;
        assert!(size < 100_000, "the CRD of {name} has {size} bytes");
    }
}

#[test]
fn kubectl_get_shows_what_people_look_for() {
    let columns = |index: usize| -> Vec<String> {
        let version = &crds()[index].spec.versions[0];
        let columns = version
            .additional_printer_columns
            .clone()
            .unwrap_or_default();
        let wide = |priority| if priority == Some(1) { " (wide)" } else { "" };
        columns
            .iter()
            .map(|c| format!("{}{}", c.name, wide(c.priority)))
            .collect()
    };
    assert_eq!(columns(0), ["Image", "Launcher", "Age"]);
    assert_eq!(columns(1), ["Image", "Launcher", "Age"]);
    assert_eq!(
        columns(2),
        [
            "Status",
            "Nodes",
            "Retries",
            "Reason",
            "Queue (wide)",
            "Age"
        ]
    );
}

#[test]
fn the_crds_that_are_installed_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    for (name, expected) in crd_files() {
        let path = folder.join(&name);
        assert!(
            expected.contains("kind: CustomResourceDefinition"),
            "{name} is empty"
        );
        let found = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("crds/{name}: {e}; run make generate"));
        let first = found
            .lines()
            .zip(expected.lines())
            .position(|(a, b)| a != b);
        assert!(
            found == expected,
            "crds/{name} is not what src/api says (first at line {}); run make generate",
            first.map_or_else(|| "the end".into(), |line| (line + 1).to_string())
        );
    }
    let there: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("crds/")
        .map(|f| {
            f.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let ours: BTreeSet<String> = crd_files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        there, ours,
        "a file in crds/ is of no CRD any more: delete it"
    );
}
