//! What must be accepted, how it is stored, and what can't be set by whoever creates a job.

use serde_json::{Value, json};
use trainyard::api::{Launcher, RuntimeKind, TrainingJob, TrainingRuntime};

use crate::{
    manifest::{create, job},
    support,
};

/// A job with every field set.
pub const EVERYTHING: &str = r#"
apiVersion: trainyard.dev/v1alpha1
kind: TrainingJob
metadata:
  name: everything
  labels: {team: nlp}
spec:
  runtimeRef: {name: ours, kind: TrainingRuntime}
  image: registry.example.com/ml/bert@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  command: [sh, -c, "python train.py | tee log"]
  args: [--epochs, "3", ""]
  env:
  - {name: LR, value: "0.1"}
  - {name: EMPTY, value: ""}
  - {name: UNSET}
  - {name: with.dots-and_more, value: ünïcode}
  - {name: TOKEN, valueFrom: {secretKeyRef: {name: hub, key: hf.token_1, optional: true}}}
  - {name: CONFIG, valueFrom: {configMapKeyRef: {name: bert.config, key: a}}}
  - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: RANK, valueFrom: {fieldRef: {fieldPath: "metadata.labels['trainyard.dev/rank']"}}}
  envFrom:
  - {secretRef: {name: keys}}
  - {prefix: CM_, configMapRef: {name: settings}}
  workingDir: /workspace
  resourcesPerNode:
    limits: {cpu: 8, memory: 64Gi, ephemeral-storage: 1e9, rdma/hca: 1, hugepages-2Mi: 100Mi}
    requests: {cpu: 500m, memory: "1.5Gi"}
  numNodes: 1024
  gpusPerNode: 64
  numProcPerNode: 256
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: imagenet, readOnly: true}}
  - {name: config, configMap: {name: bert, defaultMode: 420, optional: true}}
  - {name: keys, secret: {secretName: keys, defaultMode: 256}}
  - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1Gi}}
  - {name: disk, emptyDir: {}}
  - {name: mountpoint, csi: {driver: s3.csi.example.com, readOnly: true, volumeAttributes: {bucket: b}}}
  volumeMounts:
  - {name: data, mountPath: /data, readOnly: true}
  - {name: data, mountPath: /more, subPath: a/..b}
  nodeSelector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3, spot: ""}
  tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
  - {key: team, value: nlp}
  - {operator: Exists}
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 60}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a, b]}]}]
  serviceAccountName: trainer
  podLabels: {team: nlp, example.com/cost-center: "1234", empty: ""}
  podAnnotations: {example.com/why: "any text, ünïcode\nand lines"}
  queueName: team.queue
  priorityClassName: high
  suspend: true
  managedBy: trainyard.dev/operator
  backoffLimit: 0
  activeDeadlineSeconds: 86400
  startDeadlineSeconds: 86400
  ttlSecondsAfterFinished: 0
  progressTimeoutSeconds: 1800
  progressPattern: 'step \d+'
  failurePolicy:
    backoffBaseSeconds: 0
    backoffMaxSeconds: 86400
    rules:
    - name: flaky-mount
      class: Storage
      onExitCodes: [5, 137]
      onLogPatterns: ['(?i)weka: i/o error', '^rank \d+ lost its mount$']
      onPodReasons: [Error]
      onPodConditions: [DisruptionTarget=PreemptionByScheduler]
      onTerminationMessage: ['mount']
      action: RetryIgnoreLimit
      maxRetries: 100
      backoffBaseSeconds: 0
      backoffMaxSeconds: 86400
      avoidNode: true
      hint: tell the storage team
    classes:
    - {class: HostOutOfMemory, action: Retry, maxRetries: 1}
    - {class: Hang, action: Fail}
  terminationGracePeriodSeconds: 0
"#;

#[tokio::test]
async fn the_four_lines_that_most_people_write_are_enough() {
    let client = support::control_plane().await;
    let namespace = support::namespace(&client, "minimal").await;
    let stored = create(&client, &namespace, &job(""))
        .await
        .expect("accepted");
    assert_eq!(
        stored["spec"],
        json!({
            "runtimeRef": {"name": "pytorch", "kind": "ClusterTrainingRuntime"},
            "command": ["python", "train.py"],
            "numNodes": 1,
            "gpusPerNode": 0,
            "backoffLimit": 3,
            "suspend": false,
        }),
        "the defaults are stored, and nothing else"
    );
    let job: TrainingJob = serde_json::from_value(stored).expect("our types read it");
    assert_eq!(
        job.spec.runtime_ref.kind,
        RuntimeKind::ClusterTrainingRuntime
    );
}

#[tokio::test]
async fn every_field_that_is_documented_can_be_set_and_is_read_back() {
    let client = support::control_plane().await;
    let namespace = support::namespace(&client, "everything").await;
    let stored = create(&client, &namespace, EVERYTHING)
        .await
        .expect("accepted");
    let typed: TrainingJob = serde_json::from_value(stored.clone()).expect("our types read it");
    let mut again = serde_json::to_value(&typed.spec).expect("our types write it");
    // A quantity may be written as a number; as a string it means the same.
    let limits = &mut again["resourcesPerNode"]["limits"];
    assert_eq!(limits["cpu"], "8");
    limits["cpu"] = json!(8);
    limits["rdma/hca"] = json!(1);
    limits["ephemeral-storage"] =
        stored["spec"]["resourcesPerNode"]["limits"]["ephemeral-storage"].clone();
    assert_eq!(
        again, stored["spec"],
        "nothing is lost on the way through our types"
    );

    let properties = &trainyard::api::crds()[2].spec.versions[0].schema;
    let schema = serde_json::to_value(properties).expect("JSON");
    let fields = schema["openAPIV3Schema"]["properties"]["spec"]["properties"]
        .as_object()
        .expect("an object");
    let unset: Vec<_> = fields
        .keys()
        .filter(|f| stored["spec"].get(f).is_none())
        .collect();
    assert_eq!(
        unset,
        Vec::<&String>::new(),
        "EVERYTHING sets all fields of the spec"
    );
}

#[tokio::test]
async fn right_manifests_are_not_refused_by_mistake() {
    let client = support::control_plane().await;
    let whole = |metadata: &str| job("").replace("{name: bert}", metadata);
    let table = [
        (
            "a runtime that comes later",
            job("numNodes: 2").replace("pytorch", "not-there-yet"),
        ),
        ("a generated name", whole("{generateName: bert-}")),
        (
            "the longest name",
            whole(&format!("{{name: {}}}", "a".repeat(53))),
        ),
        ("a name of one letter", whole("{name: b}")),
        (
            "a script among the arguments",
            job(&format!("args: [\"{}\"]", "x".repeat(131_072))),
        ),
        (
            "a field that is empty",
            job("image:\n  env:\n  suspend:\n  failurePolicy:"),
        ),
        ("an empty failure policy", job("failurePolicy: {}")),
        (
            "another controller's job",
            job("managedBy: kueue.x-k8s.io/multikueue"),
        ),
        (
            "an env entry whose other half is empty",
            job("env: [{name: A, value: b, valueFrom: null}]"),
        ),
        (
            "a toleration with empty words",
            job("tolerations: [{key: \"\", operator: Exists, value: \"\"}]"),
        ),
        (
            "an affinity with any inside",
            job("affinity: {podAntiAffinity: {}}"),
        ),
    ];
    for (what, manifest) in table {
        let namespace = support::namespace(&client, "right").await;
        let stored = create(&client, &namespace, &manifest)
            .await
            .unwrap_or_else(|e| panic!("{what} is refused: {}", e.message));
        let spec = stored["spec"].as_object().expect("an object");
        assert!(
            !spec.values().any(Value::is_null),
            "{what}: a null is stored: {spec:?}"
        );
        serde_json::from_value::<TrainingJob>(stored)
            .unwrap_or_else(|e| panic!("{what} is accepted, and our types do not read it: {e}"));
    }
}

#[tokio::test]
async fn nobody_starts_a_job_as_already_succeeded() {
    let client = support::control_plane().await;
    let namespace = support::namespace(&client, "status").await;
    let manifest = job("") + "\nstatus: {retries: 7, startTime: \"2026-01-01T00:00:00Z\"}\n";
    let stored = create(&client, &namespace, &manifest)
        .await
        .expect("accepted");
    assert_eq!(
        stored.get("status"),
        None,
        "the status is the operator's to write"
    );
}

#[tokio::test]
async fn a_platform_team_can_set_every_field_of_a_runtime() {
    let client = support::control_plane().await;
    let namespace = support::namespace(&client, "runtime").await;
    let manifest = r#"
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRuntime
metadata: {name: ours}
spec:
  image: registry.example.com/ml/pytorch:2.6
  imagePullPolicy: IfNotPresent
  imagePullSecrets: [{name: registry}]
  launcher: torchrun
  env: [{name: NCCL_DEBUG, value: WARN}]
  resourcesPerNode: {limits: {memory: 64Gi}, requests: {memory: 32Gi}}
  shmSize: 16Gi
  gpuResourceName: amd.com/gpu
  nodeSelector: {gpu: "true"}
  tolerations: [{key: gpu, operator: Exists}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  volumeMounts: [{name: data, mountPath: /data}]
  terminationGracePeriodSeconds: 120
"#;
    let stored = create(&client, &namespace, manifest)
        .await
        .expect("accepted");
    let runtime: TrainingRuntime =
        serde_json::from_value(stored.clone()).expect("our types read it");
    assert_eq!(runtime.spec.runtime.launcher, Launcher::Torchrun);
    assert_eq!(
        serde_json::to_value(&runtime.spec).expect("JSON"),
        stored["spec"],
        "nothing is lost on the way through our types"
    );
}
