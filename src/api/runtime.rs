//! `ClusterTrainingRuntime` and `TrainingRuntime`: a platform team's standardized image and the
//! defaults that go with it. The two differ only in scope.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    failure::FailureRules,
    rules, schema,
    training_job::MAX_ENV,
    workload::{
        EnvVar, LocalObjectReference, ResourceRequirements, Toleration, Volume, VolumeMount,
    },
};

/// How the ranks of a gang are started and find each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// The command runs as it is, once in each node; TRAINYARD_* variables say who is who.
    #[default]
    Plain,
    /// The command runs under PyTorch's torchrun, numProcPerNode processes a node.
    Torchrun,
}

/// What a runtime provides. It is copied into a job's status when the job starts, so editing a
/// runtime changes no running job.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "trainyard.dev",
    version = "v1alpha1",
    kind = "ClusterTrainingRuntime",
    plural = "clustertrainingruntimes",
    shortname = "ctr",
    category = "trainyard",
    doc = "A standardized training image and its defaults, for all namespaces. TrainingJobs name it in spec.runtimeRef.",
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image"}"#,
    printcolumn = r#"{"name":"Launcher","type":"string","jsonPath":".spec.launcher"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSpec {
    /// The container image. A job can replace it with its own spec.image.
    #[x_kube(validation = rules::image("for example registry.example.com/ml/pytorch:2.6"))]
    #[schemars(length(max = 1024))]
    pub image: String,
    /// When the kubelet pulls the image: Always, IfNotPresent or Never. Kubernetes' default applies
    /// where it is unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Always', 'IfNotPresent', 'Never']").message("imagePullPolicy must be Always, IfNotPresent or Never"))]
    pub image_pull_policy: Option<String>,
    /// Secrets with registry credentials, in the job's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// How ranks are started and find each other: plain or torchrun.
    #[serde(default)]
    pub launcher: Launcher,
    /// Environment of every rank; a job's entry of the same name wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::unique("env entries", "name"), validation = rules::total("env", "self.map(e, has(e.value) ? size(e.value) : 0)", MAX_ENV))]
    pub env: Vec<EnvVar>,
    /// Default resources of each node; a job's entry of the same resource wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources_per_node: Option<ResourceRequirements>,
    /// Size of /dev/shm, which data loaders need (the container default of 64Mi is too small for
    /// most). It counts against the memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_quantity")]
    pub shm_size: Option<Quantity>,
    /// The extended resource that spec.gpusPerNode of a job asks for.
    #[serde(default = "default_gpu_resource")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-A-Za-z0-9_.]+$')").message("gpuResourceName must be a full resource name, such as nvidia.com/gpu"))]
    pub gpu_resource_name: String,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    #[x_kube(validation = rules::keys("nodeSelector"), validation = rules::values("nodeSelector"))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate; a job's are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Volumes of every job, for example a shared dataset claim; a job's are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::unique("volumes", "name"))]
    pub volumes: Vec<Volume>,
    /// Where those volumes appear; a job's are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::unique("volumeMounts", "mountPath"))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Seconds between SIGTERM and SIGKILL when a rank is stopped, for example to write a
    /// checkpoint (default 30).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 3600").message("terminationGracePeriodSeconds must be 0 to 3600 (an hour)"))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Rules that tell failures apart which this image or its programs have, and what is done about
    /// them. A job's own come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailureRules>,
}

fn default_gpu_resource() -> String {
    "nvidia.com/gpu".into()
}

/// What a runtime provides. It is copied into a job's status when the job starts, so editing a
/// runtime changes no running job. The same fields as a ClusterTrainingRuntime's.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "trainyard.dev",
    version = "v1alpha1",
    kind = "TrainingRuntime",
    namespaced,
    shortname = "trt",
    category = "trainyard",
    doc = "A standardized training image and its defaults, for one namespace. TrainingJobs name it in spec.runtimeRef with kind TrainingRuntime.",
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image"}"#,
    printcolumn = r#"{"name":"Launcher","type":"string","jsonPath":".spec.launcher"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct NamespacedRuntimeSpec {
    /// The runtime itself.
    #[serde(flatten)]
    pub runtime: RuntimeSpec,
}
