//! Wrong runtimes: one of them would break the jobs of a whole team. Both kinds have the same rules.

use crate::manifest::{Wrong, check, wrong};

const TABLE: &[Wrong] = &[
    wrong("no job could run", "{}", &["spec.image: Required value"]),
    wrong(
        "no job could run",
        "{image: \"\"}",
        &[
            "spec.image: Invalid value: \"\": image must name a container image, without spaces; for example registry.example.com/ml/pytorch:2.6",
        ],
    ),
    wrong(
        "ranks would not find each other",
        "{image: a, launcher: mpirun}",
        &[
            "spec.launcher: Unsupported value: \"mpirun\": supported values: \"plain\", \"torchrun\"",
        ],
    ),
    wrong(
        "no pod takes it",
        "{image: a, imagePullPolicy: always}",
        &[
            "spec.imagePullPolicy: Invalid value: \"always\": imagePullPolicy must be Always, IfNotPresent or Never",
        ],
    ),
    wrong(
        "no such Secret can be",
        "{image: a, imagePullSecrets: [{name: \"\"}]}",
        &[
            "spec.imagePullSecrets[0].name: Invalid value: \"\": name must name a Secret or ConfigMap: lower-case letters, digits, '-' and '.'",
        ],
    ),
    wrong(
        "a list of names is not a list of objects",
        "{image: a, imagePullSecrets: [registry]}",
        &[
            "spec.imagePullSecrets[0]: Invalid value: \"string\": spec.imagePullSecrets[0] in body must be of type object: \"string\"",
        ],
    ),
    wrong(
        "no number",
        "{image: a, shmSize: half}",
        &[
            "spec.shmSize: Invalid value: \"half\": a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi",
        ],
    ),
    wrong(
        "no node has it",
        "{image: a, gpuResourceName: gpu}",
        &[
            "spec.gpuResourceName: Invalid value: \"gpu\": gpuResourceName must be a full resource name, such as nvidia.com/gpu",
        ],
    ),
    wrong(
        "no node has it",
        "{image: a, nodeSelector: {a b: c}}",
        &[
            "spec.nodeSelector: Invalid value: a key in nodeSelector must be letters, digits, '-', '_' and '.', with an optional domain and '/' before it, such as example.com/team",
        ],
    ),
    wrong(
        "checkpoints would be cut off",
        "{image: a, terminationGracePeriodSeconds: -1}",
        &[
            "spec.terminationGracePeriodSeconds: Invalid value: -1: terminationGracePeriodSeconds must be 0 to 3600 (an hour)",
        ],
    ),
    wrong(
        "which of the two?",
        "{image: a, env: [{name: A}, {name: A}]}",
        &[
            "spec.env: Invalid value: two env entries have the same name: give each its own, or remove one",
        ],
    ),
    wrong(
        "which of the two?",
        "{image: a, volumes: [{name: d, emptyDir: {}}, {name: d, emptyDir: {}}]}",
        &[
            "spec.volumes: Invalid value: two volumes have the same name: give each its own, or remove one",
        ],
    ),
    wrong(
        "one would hide the other",
        "{image: a, volumeMounts: [{name: a, mountPath: /d}, {name: b, mountPath: /d}]}",
        &[
            "spec.volumeMounts: Invalid value: two volumeMounts have the same mountPath: give each its own, or remove one",
        ],
    ),
];

fn manifest(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: trainyard.dev/v1alpha1\nkind: {kind}\nmetadata: {{generateName: wrong-}}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn a_platform_teams_mistake_is_refused_before_it_breaks_every_job() {
    check(
        "wrong-ctr",
        |spec| manifest("ClusterTrainingRuntime", spec),
        TABLE,
    )
    .await;
}

#[tokio::test]
async fn a_teams_own_runtime_is_checked_like_a_cluster_wide_one() {
    check("wrong-trt", |spec| manifest("TrainingRuntime", spec), TABLE).await;
}
