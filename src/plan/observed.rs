//! What the operator knows about a job's surroundings at one moment, as plain data.
//!
//! Built by [`crate::operator`] from watches; [`super::plan`] reads nothing else. [`PodFacts`] keeps
//! of a pod only what a plan can depend on, which is also what the operator holds in memory for each
//! pod of the cluster, so it stays small.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::{FailureRules, LogsStatus, RuntimeSnapshot, names},
    diagnose::{NodeFacts, Tail},
};

/// The surroundings of one job.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The job's pods, of every attempt that still has some.
    pub pods: Vec<PodFacts>,
    /// The runtime that `spec.runtimeRef` names, where it exists.
    pub runtime: Option<RuntimeSnapshot>,
    /// This process itself opened the current attempt, or has known it since before its start time:
    /// so it can vouch that no other process has created (and someone deleted) a pod of it.
    pub opened_here: bool,
    /// Ranks of the current attempt whose pods this process has created or seen, whether or not they
    /// still exist.
    pub created: BTreeSet<i32>,
    /// The API server's last answer to the creation of one of the attempt's pods, if it refused.
    pub refusal: Option<Refusal>,
    /// What has been asked about the open attempt so far, and the answers.
    pub answers: Answers,
    /// The failure rules of the cluster-wide `ConfigMap`.
    pub cluster_rules: Arc<FailureRules>,
    /// How long a pod that has ended waits for its logs to be stored. None where nobody collects them.
    pub log_drain: Option<SignedDuration>,
}

/// Answers to [`Question`](super::Question)s about one attempt. They are forgotten when the next one
/// opens, or the operator restarts; then they are asked again.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// When the first question about its failure was asked, by the operator's clock.
    pub failure_seen: Option<Timestamp>,
    /// By rank: what could be read of its log.
    pub tails: BTreeMap<i32, TailAnswer>,
    /// By name: the cluster nodes of the ranks that failed; None for one that could not be asked for.
    pub nodes: BTreeMap<String, Option<NodeFacts>>,
    /// The newest sign of life in the logs.
    pub progress: Option<Progress>,
    /// By rank: what keeps its pod from starting, beyond what the pod itself says.
    pub start: BTreeMap<i32, StartAnswer>,
}

/// The end of a rank's log.
#[derive(Clone, Debug)]
pub struct TailAnswer {
    /// None where it could not be read.
    pub tail: Option<Arc<Tail>>,
    /// The container had ended when it was read, so there is no more to come.
    pub ended: bool,
}

/// How far the ranks have shown progress in their logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Time of the newest line that counts, by its node's clock; None where there is none.
    pub last: Option<Timestamp>,
    /// When the logs were looked at, by the operator's clock.
    pub checked: Timestamp,
}

/// Why a pod does not start, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartAnswer {
    /// None where nothing was found out.
    pub found: Option<Reason>,
    /// When it was asked.
    pub asked: Timestamp,
}

/// The API server, or an admission policy, did not take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it said.
    pub message: String,
    /// The same pod will never be taken; otherwise (a quota) it may be later.
    pub permanent: bool,
}

/// A pod of the job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// `{job}-{attempt}-{rank}`.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// Number of its attempt.
    pub attempt: i32,
    /// Rank of its node in the gang.
    pub rank: i32,
    /// Cluster node, once scheduled.
    pub node: Option<String>,
    /// `status.podIP`: other ranks' messages name it.
    pub ip: Option<String>,
    /// `status.phase`.
    pub phase: Phase,
    /// `status.startTime`: since when a kubelet has had it, and has tried to start it.
    pub accepted: Option<Timestamp>,
    /// Condition Ready is True.
    pub ready: bool,
    /// `metadata.deletionTimestamp`: when the pod's grace period ends.
    pub deletion: Option<Timestamp>,
    /// When that deletion was asked for: the end of the grace period less its length.
    pub deletion_requested: Option<Timestamp>,
    /// Condition `DisruptionTarget`, or `status.reason`: why Kubernetes itself ended the pod.
    pub disruption: Option<Reason>,
    /// Other conditions that are True, as `type` or `type=reason`, for the failure rules that people
    /// write; without those that every pod has.
    pub conditions: Vec<String>,
    /// Why the scheduler has not placed it.
    pub unschedulable: Option<String>,
    /// A container that can't start.
    pub waiting: Option<Waiting>,
    /// The container's end: the failed one, if several ended.
    pub terminated: Option<Terminated>,
    /// Its kubelet has been told to stop it.
    pub stopping: bool,
    /// It has [`names::FINALIZER_LOGS`]: it stays until it is released.
    pub held: bool,
    /// What the collector says is stored of its logs; None until it has said so.
    pub logs: Option<LogsStatus>,
}

/// `status.phase` of a pod. Unknown counts as Running: the kubelet is silent, and the node
/// controller will say what becomes of the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have started.
    #[default]
    Pending,
    /// Runs, or can't be asked.
    Running,
    /// All containers ended with 0.
    Succeeded,
    /// A container failed, or Kubernetes ended the pod.
    Failed,
}

/// A CamelCase word and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A container in state waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Name of the container.
    pub container: String,
    /// The kubelet's reason, such as `ImagePullBackOff`.
    pub reason: String,
    /// The kubelet's message.
    pub message: String,
}

/// A container in state terminated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Name of the container.
    pub container: String,
    /// Exit code; 128 + n for signal n.
    pub exit_code: i32,
    /// The kubelet's reason: Error, `OOMKilled`, `StartError`, Completed …
    pub reason: String,
    /// The termination message: the end of the log where the container wrote none.
    pub message: String,
    /// When it ended, to the second.
    pub finished: Option<Timestamp>,
}

/// How long after the end of its grace period a pod that still exists counts as out of reach: its
/// kubelet does not answer, so nothing will ever report its end (seconds).
const OUT_OF_REACH_SECONDS: i64 = 30;

impl PodFacts {
    /// The containers have ended.
    #[must_use]
    pub fn terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// The training container has ended and the pod's phase does not say so yet: kubelets write the two
    /// one after the other.
    #[must_use]
    pub fn ending(&self) -> bool {
        !self.terminal()
            && self
                .terminated
                .as_ref()
                .is_some_and(|t| t.container == names::CONTAINER)
    }

    /// Someone or something is ending the pod, or has ended it, from outside: whatever its exit code
    /// says (a program that handles SIGTERM ends with 0), it has not done its work. Times are whole
    /// seconds: an end in the second of the deletion may be its answer to SIGTERM, so it counts as one;
    /// a repeated attempt costs less than a success that is none.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        let finished = self.terminated.as_ref().and_then(|t| t.finished);
        let ended_before = match (self.deletion_requested, finished) {
            (Some(asked), Some(ended)) => self.terminal() && ended < asked,
            _ => false,
        };
        self.disruption.is_some() || (self.deletion.is_some() && !ended_before)
    }

    /// The pod may still be running something. A pod whose kubelet is gone for good stays in the API
    /// as terminating until its node comes back or is removed; waiting for that would hold up the
    /// job for ever, so such a pod stops counting when it is [out of reach](OUT_OF_REACH_SECONDS).
    #[must_use]
    pub fn alive(&self, now: Timestamp) -> bool {
        !self.terminal() && !self.never_ran() && self.out_of_reach_at().is_none_or(|at| now < at)
    }

    /// It is being deleted and waits to be released.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.held && self.deletion.is_some()
    }

    /// It is being deleted and is on no node. The API server binds no such pod any more.
    #[must_use]
    pub fn never_ran(&self) -> bool {
        self.deletion.is_some() && self.node.is_none()
    }

    /// When a terminating pod starts to count as out of reach.
    #[must_use]
    pub fn out_of_reach_at(&self) -> Option<Timestamp> {
        use k8s_openapi::jiff::ToSpan;
        self.deletion
            .and_then(|t| t.checked_add(OUT_OF_REACH_SECONDS.seconds()).ok())
    }
}
