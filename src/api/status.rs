//! What the operator says about a job: conditions, counters and the ledger of attempts.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    failure::FailureClass,
    runtime::RuntimeSpec,
    schema,
    training_job::{RuntimeKind, conditions, reasons},
};

/// How many attempts the ledger keeps: the newest ones.
pub const MAX_LEDGER: usize = 10;

/// How many nodes a job avoids at most: the newest ones. More would leave it nowhere to go.
pub const MAX_AVOIDED: usize = 8;

/// State of a job. Written only by the operator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrainingJobStatus {
    /// The generation of the spec that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Succeeded, Suspended, PodsReady, LogsComplete; Stalled and Reconciling for tools that read kstatus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// When the job started, or was last resumed. While it is set, the spec is immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub start_time: Option<Time>,
    /// When the job ended for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub completion_time: Option<Time>,
    /// Retries charged to spec.backoffLimit. Never goes down.
    pub retries: i32,
    /// Restarts that were not the job's fault and are not charged to spec.backoffLimit.
    pub retries_ignored: i32,
    /// When the next attempt starts, while the job waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub next_retry_time: Option<Time>,
    /// How many attempts failed, by class, over the life of the job: the ledger forgets, this does
    /// not. Ceilings of retries are compared with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::counts")]
    pub failures: BTreeMap<FailureClass, i32>,
    /// Nodes that the next attempts avoid where they can, because this job's hardware failed there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_AVOIDED))]
    pub avoided_nodes: Vec<AvoidedNode>,
    /// The nodes of the current attempt, counted.
    pub nodes: NodeCounts,
    /// The runtime as it was when the job started: later edits of it change nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSnapshot>,
    /// What is stored of the logs of all attempts that have ended, where a collector is at work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsStatus>,
    /// The ledger: the newest ten attempts, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub attempts: Vec<Attempt>,
}

/// Nodes of the current attempt by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct NodeCounts {
    /// Pods that have not ended.
    pub active: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that failed.
    pub failed: i32,
}

/// A node that the next attempts avoid where they can.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct AvoidedNode {
    /// Name of the cluster node.
    pub name: String,
    /// The class of the failure there.
    pub class: FailureClass,
    /// Until when it is avoided.
    #[schemars(schema_with = "schema::time")]
    pub until: Time,
}

/// What is stored of some logs in the central store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LogsStatus {
    /// Every line that was written is stored, and that is proven. Of a job: true only once it has
    /// ended.
    pub complete: bool,
    /// Lines that are stored.
    pub lines: i64,
    /// Bytes of those lines.
    pub bytes: i64,
    /// Places where lines are missing, or may be. The store says where they are and why.
    pub gaps: i64,
}

impl LogsStatus {
    /// Adds what else is stored; whether that is all is the caller's to say.
    pub fn add(&mut self, more: Self) {
        self.lines = self.lines.saturating_add(more.lines);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.gaps = self.gaps.saturating_add(more.gaps);
    }
}

/// A copy of the runtime that a job runs on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct RuntimeSnapshot {
    /// Kind of the runtime.
    pub kind: RuntimeKind,
    /// Its name.
    pub name: String,
    /// Its generation when it was copied.
    pub generation: i64,
    /// Its spec.
    pub spec: RuntimeSpec,
}

/// One attempt to run the whole gang.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Number of the attempt, from 1. Pods are named {job}-{number}-{rank}.
    pub number: i32,
    /// When its pods are created: in the future while a retry waits for its backoff.
    #[schemars(schema_with = "schema::time")]
    pub start_time: Time,
    /// True once all its pods have been seen; a pod missing from then on was deleted by someone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pods_created: bool,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub end_time: Option<Time>,
    /// What kind of failure ended it, for an attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Name of the rule that said so, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What ended it, for an attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_cause: Option<RootCause>,
    /// What the user can do about it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was decided then, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// What is stored of its logs, once the ends of all of them are settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsStatus>,
}

/// The first failure of a gang that no other one explains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootCause {
    /// Rank of the node, where one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<i32>,
    /// Its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The cluster node that it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The container that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its exit code; 128 + n for signal n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, in one word: Error, OOMKilled, Evicted, DeadlineExceeded …
    pub reason: String,
    /// Why, in a sentence; the end of the log where the container said nothing else.
    pub message: String,
}

impl TrainingJobStatus {
    /// The condition of type `kind`.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == kind)
    }

    /// Whether the job has ended for good.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.condition(conditions::SUCCEEDED)
            .is_some_and(|c| c.status != "Unknown")
    }

    /// Whether nothing more will be said of the job's logs: they are stored, or where they have gaps is
    /// recorded, or nobody collects them.
    #[must_use]
    pub fn logs_settled(&self) -> bool {
        self.condition(conditions::LOGS_COMPLETE)
            .is_none_or(|c| c.status == "True" || c.reason == reasons::GAP_RECORDED)
    }

    /// The attempt that has not ended, which is always the newest.
    #[must_use]
    pub fn open_attempt(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|a| a.end_time.is_none())
    }
}
