//! `TrainingJob`: what a researcher writes.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    failure::FailureRules,
    rules, schema,
    status::TrainingJobStatus,
    workload::{EnvFrom, EnvVar, ResourceRequirements, Toleration, Volume, VolumeMount},
};

/// Types of the conditions in a job's status.
pub mod conditions {
    /// The summary: Unknown while the job is active, then True or False, once and for ever.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Whether the job is stopped by `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// Whether every node of the current attempt is ready (or has already finished).
    pub const PODS_READY: &str = "PodsReady";
    /// False where a failure rule of the job or its runtime can't be used. Absent otherwise.
    pub const FAILURE_POLICY_VALID: &str = "FailurePolicyValid";
    /// Of a job that has ended: whether every line that it wrote is stored, and that is proven.
    pub const LOGS_COMPLETE: &str = "LogsComplete";
    /// kstatus: the job can't go on without a person.
    pub const STALLED: &str = "Stalled";
    /// kstatus: the job is on its way to its end.
    pub const RECONCILING: &str = "Reconciling";
}

/// Reasons of the conditions: the stable words that programs may compare.
pub mod reasons {
    /// The pods of an attempt are being created or are starting.
    pub const STARTING: &str = "Starting";
    /// Every node runs.
    pub const RUNNING: &str = "Running";
    /// An attempt failed and the next one waits for its backoff or for the old pods to end.
    pub const RETRYING: &str = "Retrying";
    /// Stopped by `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// Not stopped, or no longer.
    pub const RESUMED: &str = "Resumed";
    /// Every node ended with exit code 0.
    pub const COMPLETED: &str = "Completed";
    /// The attempt failed and `backoffLimit` retries are spent.
    pub const BACKOFF_LIMIT_EXCEEDED: &str = "BackoffLimitExceeded";
    /// The attempt failed of something that a retry can't fix.
    pub const NOT_RETRYABLE: &str = "NotRetryable";
    /// The attempt failed and the retries that its class of failure gets are spent.
    pub const MAX_RETRIES_EXCEEDED: &str = "MaxRetriesExceeded";
    /// Interruptions that were not charged to `backoffLimit` reached their own ceiling.
    pub const TOO_MANY_INTERRUPTIONS: &str = "TooManyInterruptions";
    /// `activeDeadlineSeconds` passed.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The nodes were not ready within `startDeadlineSeconds`.
    pub const START_DEADLINE_EXCEEDED: &str = "StartDeadlineExceeded";
    /// `spec.runtimeRef` names a runtime that does not exist (yet).
    pub const RUNTIME_NOT_FOUND: &str = "RuntimeNotFound";
    /// The job's fields and its runtime's do not make a valid pod.
    pub const INVALID_POD: &str = "InvalidPod";
    /// A failure rule can't be used and is left out.
    pub const BAD_FAILURE_RULE: &str = "BadFailureRule";
    /// The ends of the job's logs are being read.
    pub const DRAINING: &str = "Draining";
    /// Every line is stored, from the first to the last.
    pub const END_PROVEN: &str = "EndProven";
    /// Lines are missing, or may be; the store says where and why.
    pub const GAP_RECORDED: &str = "GapRecorded";
    /// The collector has not said in time that the logs are stored to their end.
    pub const NOT_REPORTED: &str = "NotReported";
    /// Nothing runs any more.
    pub const FINISHED: &str = "Finished";
}

/// Most characters of a command, and of its arguments: what Linux takes as one argument.
const MAX_ARGUMENTS: usize = 128 * 1024;
/// Most characters of all values in env.
pub(super) const MAX_ENV: usize = 256 * 1024;
/// Most characters of all annotations: what Kubernetes takes on a pod.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What to train, on how much, and what to do when it fails.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "trainyard.dev",
    version = "v1alpha1",
    kind = "TrainingJob",
    namespaced,
    shortname = "tj",
    category = "trainyard",
    status = "TrainingJobStatus",
    doc = "A machine-learning training job: one gang of numNodes pods from a standardized runtime, retried as a whole when it fails.",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Succeeded\")].status","description":"Whether the job succeeded: Unknown while it is active."}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".spec.numNodes"}"#,
    printcolumn = r#"{"name":"Retries","type":"integer","jsonPath":".status.retries"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Succeeded\")].reason"}"#,
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queueName","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("self.metadata.name.size() <= 53").message("metadata.name must be at most 53 characters, because its pods are named {name}-{attempt}-{rank}: shorten it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be lower-case letters, digits and '-', starting with a letter, because it is also a DNS name: rename it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.startDeadlineSeconds) || !has(self.activeDeadlineSeconds) || self.startDeadlineSeconds <= self.activeDeadlineSeconds").message("startDeadlineSeconds must not exceed activeDeadlineSeconds: the whole job would end before its start is late")
)]
pub struct TrainingJobSpec {
    /// The standardized image and defaults to run on.
    pub runtime_ref: RuntimeRef,
    /// Replaces the runtime's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::image("leave it out to use the runtime's"))]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// The program and its arguments, as a list: ["python", "train.py"]. With a torchrun runtime it
    /// is started by torchrun, once for each process.
    #[schemars(length(max = 512), inner(length(max = 131_072)))]
    #[x_kube(validation = Rule::new("self.size() > 0 && self[0] != ''").message("command must name the program to run, for example [\"python\", \"train.py\"]"), validation = rules::total("command", "self.map(w, size(w))", MAX_ARGUMENTS))]
    pub command: Vec<String>,
    /// Further arguments, put after the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 131_072)))]
    #[x_kube(validation = rules::total("args", "self.map(w, size(w))", MAX_ARGUMENTS))]
    pub args: Vec<String>,
    /// Environment of every rank.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::unique("env entries", "name"), validation = rules::total("env", "self.map(e, has(e.value) ? size(e.value) : 0)", MAX_ENV))]
    pub env: Vec<EnvVar>,
    /// Environment from the keys of Secrets and ConfigMaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFrom>,
    /// Folder in which the command runs; the image's own where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("workingDir must be an absolute path, such as /workspace; leave it out for the image's own"))]
    pub working_dir: Option<String>,
    /// CPU, memory and the like of each node, over the runtime's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources_per_node: Option<ResourceRequirements>,
    /// Number of nodes (pods) that train together as one gang.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1024").message("numNodes must be 1 to 1024"))]
    pub num_nodes: i32,
    /// GPUs of each node; 0 for none.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 64").message("gpusPerNode must be 0 to 64; 0 means none"))]
    pub gpus_per_node: i32,
    /// Processes that torchrun starts in each node; by default one for each GPU, or one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 256").message("numProcPerNode must be 1 to 256"))]
    pub num_proc_per_node: Option<i32>,
    /// Volumes that the pods can mount, besides the runtime's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::unique("volumes", "name"))]
    pub volumes: Vec<Volume>,
    /// Where those volumes appear in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::unique("volumeMounts", "mountPath"))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Labels that a node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    #[x_kube(validation = rules::keys("nodeSelector"), validation = rules::values("nodeSelector"))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Node and pod affinity, as in a Pod's spec.affinity. It is checked when pods are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub affinity: Option<serde_json::Value>,
    /// ServiceAccount of the pods. Its token is not mounted unless one is named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::object_name("serviceAccountName", "a ServiceAccount"))]
    pub service_account_name: Option<String>,
    /// Labels put on every pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    #[x_kube(validation = rules::keys("podLabels"), validation = rules::values("podLabels"), validation = rules::not_ours("podLabels"))]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations put on every pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotation_map")]
    #[x_kube(validation = rules::keys("podAnnotations"), validation = rules::not_ours("podAnnotations"), validation = rules::total("podAnnotations", "self.map(k, size(k) + size(self[k]))", MAX_ANNOTATIONS))]
    pub pod_annotations: BTreeMap<String, String>,
    /// Name of a Kueue LocalQueue. The pods of an attempt are handed to it as one pod group, which
    /// Kueue admits as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::object_name("queueName", "a Kueue LocalQueue"))]
    pub queue_name: Option<String>,
    /// PriorityClass of the pods; a change applies from the next attempt on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::object_name("priorityClassName", "a PriorityClass"))]
    pub priority_class_name: Option<String>,
    /// True stops the job and frees its nodes; false starts it, or starts it anew. A stop is not
    /// charged to backoffLimit.
    #[serde(default)]
    pub suspend: bool,
    /// The controller that runs the job, trainyard.dev/operator where unset. Another value makes
    /// trainyard leave the job alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-A-Za-z0-9_./]+$')").message("managedBy must be a domain and a path, such as example.com/controller; leave it out for trainyard"))]
    pub managed_by: Option<String>,
    /// How many times a failed gang is started again before the job fails for good.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 100").message("backoffLimit must be 0 to 100; 0 means no retry"))]
    pub backoff_limit: i32,
    /// Seconds from the job's start within which it must finish, all retries included. Then it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::seconds("activeDeadlineSeconds", 1, "leave it out for no deadline"))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds within which all nodes of an attempt must be ready. Then the job fails and says what
    /// was missing. Unset waits for ever, for example for free GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::seconds("startDeadlineSeconds", 1, "leave it out to wait for ever"))]
    pub start_deadline_seconds: Option<i64>,
    /// Seconds after its end when the job is deleted, its pods with it. Unset keeps it. The log
    /// lines stay in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::seconds("ttlSecondsAfterFinished", 0, "leave it out to keep the job"))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Seconds without a new log line from any rank after which an attempt counts as hanging: it is
    /// ended and retried as the class Hang says. Unset never ends a silent attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::seconds("progressTimeoutSeconds", 1, "leave it out to wait for ever"))]
    pub progress_timeout_seconds: Option<i64>,
    /// Regular expression (RE2 syntax): with it only log lines that match are progress, for example
    /// "step \\d+", so that a program that only repeats a warning counts as hanging too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::pattern("progressPattern"))]
    pub progress_pattern: Option<String>,
    /// How failures are retried, and rules to tell them apart. The wait before retry n is
    /// backoffBaseSeconds × 2^(n−1), at most backoffMaxSeconds, give or take 10 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    /// Seconds between SIGTERM and SIGKILL when a rank is stopped; over the runtime's (default 30).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 3600").message("terminationGracePeriodSeconds must be 0 to 3600 (an hour)"))]
    pub termination_grace_period_seconds: Option<i64>,
}

fn one() -> i32 {
    1
}

fn three() -> i32 {
    3
}

/// Which runtime a job runs on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct RuntimeRef {
    /// Name of the runtime; `kubectl get ctr,trt` lists them.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("runtimeRef.name must name a runtime: kubectl get clustertrainingruntimes,trainingruntimes lists them"))]
    #[schemars(length(max = 253))]
    pub name: String,
    /// ClusterTrainingRuntime (default), or TrainingRuntime for one in the job's namespace.
    #[serde(default)]
    pub kind: RuntimeKind,
}

/// The two kinds of runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RuntimeKind {
    /// For all namespaces.
    #[default]
    ClusterTrainingRuntime,
    /// In the job's namespace.
    TrainingRuntime,
}

impl std::fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// How failures are retried. The wait before retry n is backoffBaseSeconds × 2^(n−1), at most
/// backoffMaxSeconds, give or take 10 %.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.backoffBaseSeconds <= self.backoffMaxSeconds").message("backoffBaseSeconds must not exceed backoffMaxSeconds (600 where it is left out): raise the maximum too")
)]
pub struct FailurePolicy {
    /// Seconds before the first retry; 0 retries at once.
    #[serde(default = "default_backoff_base")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 86400").message("backoffBaseSeconds must be 0 to 86400 (a day); 0 retries at once"))]
    pub backoff_base_seconds: i64,
    /// The longest wait before a retry, in seconds.
    #[serde(default = "default_backoff_max")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 86400").message("backoffMaxSeconds must be 0 to 86400 (a day)"))]
    pub backoff_max_seconds: i64,
    /// Rules and class policies of this job. They come before the runtime's and the cluster's.
    #[serde(flatten)]
    pub own: FailureRules,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            backoff_base_seconds: default_backoff_base(),
            backoff_max_seconds: default_backoff_max(),
            own: FailureRules::default(),
        }
    }
}

fn default_backoff_base() -> i64 {
    10
}

fn default_backoff_max() -> i64 {
    600
}

/// Fields of the spec that can't change once a job has started. Not among them: suspend,
/// priorityClassName and ttlSecondsAfterFinished, which are meant to change, and affinity, whose
/// inside CEL can't see; a change of it applies from the next attempt on.
const IMMUTABLE_ONCE_STARTED: [&str; 27] = [
    "runtimeRef",
    "image",
    "command",
    "args",
    "env",
    "envFrom",
    "workingDir",
    "resourcesPerNode",
    "numNodes",
    "gpusPerNode",
    "numProcPerNode",
    "volumes",
    "volumeMounts",
    "nodeSelector",
    "tolerations",
    "serviceAccountName",
    "podLabels",
    "podAnnotations",
    "queueName",
    "managedBy",
    "backoffLimit",
    "activeDeadlineSeconds",
    "startDeadlineSeconds",
    "progressTimeoutSeconds",
    "progressPattern",
    "failurePolicy",
    "terminationGracePeriodSeconds",
];

/// Adds to the CRD the rules that the spec is immutable once started: one for each field, so that
/// the message names it. They stand at the root because only there a rule sees both spec and status.
pub(super) fn add_immutability(
    crd: &mut k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
    let rules = IMMUTABLE_ONCE_STARTED.map(|field| ValidationRule {
        // Not `self.spec.?x == oldSelf.spec.?x`: the API server can't estimate the cost of comparing
        // optionals and refuses the rule.
        rule: format!(
            "!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has(self.spec.{field}) == has(oldSelf.spec.{field}) && (!has(self.spec.{field}) || self.spec.{field} == oldSelf.spec.{field}))"
        ),
        message: Some(format!(
            "spec.{field} can't change once the job has started: suspend it first, or delete it and apply it anew"
        )),
        field_path: Some(format!(".spec.{field}")),
        ..Default::default()
    });
    for version in &mut crd.spec.versions {
        if let Some(root) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        {
            root.x_kubernetes_validations
                .get_or_insert_default()
                .extend(rules.clone());
        }
    }
}
