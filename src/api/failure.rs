//! Failure classes, the rules that find them, and what to do about each: shared by jobs, runtimes,
//! the cluster-wide ConfigMap and the rules that ship with trainyard.
//!
//! Not here: matching (see [`crate::diagnose`]) and deciding (see [`crate::plan`]).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// What kind of failure ended an attempt.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
pub enum FailureClass {
    /// The program or its arguments are wrong: an exception, a bad flag, shapes that do not fit.
    UserError,
    /// The data is missing, broken, or not what the program expects.
    DataError,
    /// The job's surroundings are wrong: a missing ConfigMap, Secret, claim, permission or library.
    ConfigError,
    /// The image can't be pulled.
    ImagePull,
    /// No node can take a pod.
    Unschedulable,
    /// A container used more memory than its limit, or a node ran out of it.
    HostOutOfMemory,
    /// A GPU's memory did not suffice.
    GpuOutOfMemory,
    /// A GPU, its driver, its memory or its link is at fault.
    GpuHardware,
    /// Ranks lost each other, and none of them is to blame.
    Communication,
    /// A file system or an object store failed or refused in the middle.
    Storage,
    /// The cluster node was lost or could not run the pod.
    NodeLost,
    /// A pod of higher priority took the place.
    Preempted,
    /// Kubernetes moved the pod away: a drain, a taint, pressure on the node.
    Evicted,
    /// Stopped from outside: a pod was deleted, or trainyard's operator was restarted at a bad moment.
    Interrupted,
    /// No progress for progressTimeoutSeconds.
    Hang,
    /// A deadline passed.
    DeadlineExceeded,
    /// Nothing says why.
    Unknown,
}

impl FailureClass {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 17] = [
        Self::UserError,
        Self::DataError,
        Self::ConfigError,
        Self::ImagePull,
        Self::Unschedulable,
        Self::HostOutOfMemory,
        Self::GpuOutOfMemory,
        Self::GpuHardware,
        Self::Communication,
        Self::Storage,
        Self::NodeLost,
        Self::Preempted,
        Self::Evicted,
        Self::Interrupted,
        Self::Hang,
        Self::DeadlineExceeded,
        Self::Unknown,
    ];
}

impl std::fmt::Display for FailureClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum FailureAction {
    /// The gang is started again, charged to backoffLimit.
    Retry,
    /// The gang is started again and backoffLimit is not charged: the job is not to blame.
    RetryIgnoreLimit,
    /// The job fails for good.
    Fail,
}

/// Most rules, and most entries of each of their lists. CEL's cost estimate depends on them.
const MAX_RULES: usize = 32;

/// Names a kind of failure that trainyard does not know, or judges one otherwise. Every list that is
/// given must match; within a list one match is enough.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.onExitCodes) || has(self.onLogPatterns) || has(self.onPodReasons) || has(self.onPodConditions) || has(self.onTerminationMessage)").message("a failure rule must say what it matches: give onLogPatterns, onExitCodes, onPodReasons, onPodConditions or onTerminationMessage; to change what is done about a whole class, use classes"),
    validation = Rule::new("!has(self.action) || self.action != 'Fail' || !(has(self.maxRetries) || has(self.avoidNode) || has(self.backoffBaseSeconds) || has(self.backoffMaxSeconds))").message("action Fail allows no retry, so maxRetries, avoidNode and the backoff mean nothing with it: remove them, or choose Retry"),
    validation = Rule::new("!has(self.backoffBaseSeconds) || !has(self.backoffMaxSeconds) || self.backoffBaseSeconds <= self.backoffMaxSeconds").message("backoffBaseSeconds must not exceed backoffMaxSeconds: raise the maximum too")
)]
pub struct FailureRule {
    /// Name of the rule, which the job's status shows where it matched.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a rule's name must be lower-case letters, digits and '-', such as flaky-mount"))]
    pub name: String,
    /// The class of a failure that matches.
    pub class: FailureClass,
    /// Exit codes of the container; 128 + n for signal n.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.all(c, c >= 1 && c <= 255)").message("onExitCodes must be 1 to 255: 0 is success"))]
    pub on_exit_codes: Vec<i32>,
    /// Regular expressions (RE2 syntax), each for one line of the end of the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = rules::patterns("onLogPatterns"))]
    pub on_log_patterns: Vec<String>,
    /// Reasons of the pod or its container: OOMKilled, Evicted, StartError …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    pub on_pod_reasons: Vec<String>,
    /// Conditions of the pod that are True: a type, or type=reason, such as
    /// DisruptionTarget=PreemptionByScheduler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    pub on_pod_conditions: Vec<String>,
    /// Regular expressions (RE2 syntax) for the container's termination message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = rules::patterns("onTerminationMessage"))]
    pub on_termination_message: Vec<String>,
    /// What is done; the class's action where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<FailureAction>,
    /// Most retries of this job for failures of this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::max_retries())]
    pub max_retries: Option<i32>,
    /// Seconds before the first retry; doubled with each failure of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::backoff("backoffBaseSeconds"))]
    pub backoff_base_seconds: Option<i64>,
    /// The longest wait before a retry, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::backoff("backoffMaxSeconds"))]
    pub backoff_max_seconds: Option<i64>,
    /// Whether the next attempts prefer other nodes than the one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid_node: Option<bool>,
    /// What the user should do, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub hint: Option<String>,
}

/// What is done about every failure of a class, over trainyard's default.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.action) || self.action != 'Fail' || !(has(self.maxRetries) || has(self.avoidNode) || has(self.backoffBaseSeconds) || has(self.backoffMaxSeconds))").message("action Fail allows no retry, so maxRetries, avoidNode and the backoff mean nothing with it: remove them, or choose Retry"),
    validation = Rule::new("!has(self.backoffBaseSeconds) || !has(self.backoffMaxSeconds) || self.backoffBaseSeconds <= self.backoffMaxSeconds").message("backoffBaseSeconds must not exceed backoffMaxSeconds: raise the maximum too")
)]
pub struct ClassPolicy {
    /// The class.
    pub class: FailureClass,
    /// What is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<FailureAction>,
    /// Most retries of this job for failures of this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::max_retries())]
    pub max_retries: Option<i32>,
    /// Seconds before the first retry; doubled with each failure of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::backoff("backoffBaseSeconds"))]
    pub backoff_base_seconds: Option<i64>,
    /// The longest wait before a retry, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::backoff("backoffMaxSeconds"))]
    pub backoff_max_seconds: Option<i64>,
    /// Whether the next attempts prefer other nodes than the one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid_node: Option<bool>,
}

/// Failure rules and class policies of one origin: a job's, a runtime's, the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureRules {
    /// Rules, tried in order before those that come with trainyard. The first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_RULES))]
    #[x_kube(validation = rules::unique("failure rules", "name"))]
    pub rules: Vec<FailureRule>,
    /// What is done about whole classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17))]
    #[x_kube(validation = rules::unique("entries of classes", "class"))]
    pub classes: Vec<ClassPolicy>,
}
