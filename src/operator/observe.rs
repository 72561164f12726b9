//! Kubernetes objects → plain data for [`crate::plan`].
//!
//! A pod belongs to the job that its controller reference names, and its attempt and rank are in its
//! name: labels can be edited by anyone and are only used to select what is watched.

#[cfg(test)]
mod tests;

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Node, Pod, PodCondition, PodStatus},
    jiff::ToSpan,
};
use kube::ResourceExt;

use crate::{
    api::{TrainingJob, conditions, names},
    diagnose::NodeFacts,
    logs::condition::Condition,
    plan::{Phase, PodFacts, Reason, Terminated, Waiting},
};

/// Which job a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Namespace of both.
    pub namespace: String,
    /// Name of the job.
    pub name: String,
    /// Uid of the job.
    pub uid: String,
}

/// The job that controls `pod`, and the facts of the pod; None for a pod that is not ours.
#[must_use]
pub fn pod(pod: &Pod) -> Option<(Owner, PodFacts)> {
    let reference = pod
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true) && o.kind == "TrainingJob")
        .filter(|o| o.api_version.split('/').next() == Some(names::GROUP))?;
    let name = pod.name_any();
    let numbers = name.strip_prefix(&reference.name)?.strip_prefix('-')?;
    let (attempt, rank) = numbers.split_once('-')?;
    let owner = Owner {
        namespace: pod.namespace()?,
        name: reference.name.clone(),
        uid: reference.uid.clone(),
    };
    let (attempt, rank) = (attempt.parse().ok()?, rank.parse().ok()?);
    if names::pod_name(&reference.name, attempt, rank) != name {
        return None; // "01" or "-0": not a name that we give
    }
    Some((owner, facts(pod, attempt, rank)))
}

/// The facts of a pod that is ours: what the operator would know of it.
#[must_use]
pub fn pod_facts(object: &Pod) -> Option<PodFacts> {
    pod(object).map(|(_, facts)| facts)
}

fn facts(pod: &Pod, attempt: i32, rank: i32) -> PodFacts {
    let default = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&default);
    let deletion = pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    PodFacts {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        attempt,
        rank,
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        ip: status.pod_ip.clone(),
        phase: match status.phase.as_deref() {
            Some("Running" | "Unknown") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        },
        accepted: status.start_time.as_ref().map(|t| t.0),
        ready: condition(status, "Ready").is_some_and(|c| c.status == "True"),
        deletion,
        deletion_requested: deletion.and_then(|t| t.checked_sub(grace.seconds()).ok()),
        disruption: disruption(status),
        conditions: conditions(status),
        unschedulable: condition(status, "PodScheduled")
            .filter(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"))
            .map(|c| c.message.clone().unwrap_or_default()),
        waiting: containers(status).find_map(waiting),
        terminated: terminated(status),
        stopping: (pod.spec.as_ref()).is_some_and(|s| s.active_deadline_seconds.is_some()),
        held: pod.finalizers().iter().any(|f| f == names::FINALIZER_LOGS),
        logs: condition(status, names::POD_LOGS_COMPLETE).and_then(Condition::read),
    }
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Conditions that are True, as `type` or `type=reason`, without those of a healthy pod's life, which
/// would only take up memory.
fn conditions(status: &PodStatus) -> Vec<String> {
    const USUAL: [&str; 6] = [
        names::POD_LOGS_COMPLETE,
        "PodScheduled",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodReadyToStartContainers",
    ];
    let all = status.conditions.iter().flatten();
    all.filter(|c| c.status == "True" && !USUAL.contains(&c.type_.as_str()))
        .map(|c| match c.reason.as_deref() {
            None | Some("") => c.type_.clone(),
            Some(reason) => format!("{}={reason}", c.type_),
        })
        .collect()
}

/// Why Kubernetes ended the pod, if it did. `status.reason` (Evicted, `NodeLost`, …) says more than
/// the condition where both are there.
fn disruption(status: &PodStatus) -> Option<Reason> {
    let target = condition(status, "DisruptionTarget").filter(|c| c.status == "True");
    let reason = status
        .reason
        .clone()
        .or_else(|| target.and_then(|c| c.reason.clone()))?;
    let message = status
        .message
        .clone()
        .or_else(|| target.and_then(|c| c.message.clone()))
        .unwrap_or_default();
    Some(Reason { reason, message })
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
}

fn waiting(container: &ContainerStatus) -> Option<Waiting> {
    let state = container.state.as_ref()?.waiting.as_ref()?;
    let reason = state.reason.clone()?;
    // These two are the usual way to a running container.
    if reason == "ContainerCreating" || reason == "PodInitializing" {
        return None;
    }
    Some(Waiting {
        container: container.name.clone(),
        reason,
        message: state.message.clone().unwrap_or_default(),
    })
}

/// The end that matters: the training container's if it failed, else that of the first other one that
/// did (an init container), else the training container's. A sidecar that an admission webhook has
/// added is stopped after the training and often ends with 143, which explains nothing.
fn terminated(status: &PodStatus) -> Option<Terminated> {
    let ends: Vec<Terminated> = containers(status)
        .filter_map(|c| {
            let end = c.state.as_ref()?.terminated.as_ref()?;
            Some(Terminated {
                container: c.name.clone(),
                exit_code: end.exit_code,
                reason: end.reason.clone().unwrap_or_else(|| "Error".into()),
                message: end.message.clone().unwrap_or_default(),
                finished: end.finished_at.as_ref().map(|t| t.0),
            })
        })
        .collect();
    let trainer = ends.iter().find(|t| t.container == names::CONTAINER);
    trainer
        .filter(|t| t.exit_code != 0)
        .or_else(|| ends.iter().find(|t| t.exit_code != 0))
        .or(trainer)
        .or_else(|| ends.last())
        .cloned()
}

/// What matters of a cluster node.
#[must_use]
pub fn node(node: &Node) -> NodeFacts {
    let conditions = || {
        node.status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
    };
    let spec = node.spec.as_ref();
    let ready = conditions().find(|c| c.type_ == "Ready");
    NodeFacts {
        name: node.name_any(),
        ready: ready.is_some_and(|c| c.status == "True"),
        unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
        taints: spec
            .iter()
            .flat_map(|s| s.taints.iter().flatten())
            .map(|t| {
                let value = t.value.as_deref().unwrap_or_default();
                let equals = if value.is_empty() { "" } else { "=" };
                format!("{}{equals}{value}:{}", t.key, t.effect)
            })
            .collect(),
        problems: conditions()
            .filter(|c| c.type_ != "Ready" && c.status == "True")
            .map(|c| {
                format!(
                    "{}: {}: {}",
                    c.type_,
                    c.reason.as_deref().unwrap_or_default(),
                    c.message.as_deref().unwrap_or_default()
                )
            })
            .collect(),
        ready_since: ready.and_then(|c| c.last_transition_time.as_ref().map(|t| t.0)),
    }
}

/// Drops what the operator never reads, which is most of an object's size. Of a job that has ended
/// for good, its logs too, only its end and its time to live matter: a cluster may keep tens of
/// thousands of them.
pub fn slim(job: &mut TrainingJob) {
    job.metadata.managed_fields = None;
    if let Some(annotations) = &mut job.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let Some(status) = job
        .status
        .as_mut()
        .filter(|s| s.finished() && s.logs_settled())
    else {
        return;
    };
    status.runtime = None;
    status.attempts = Vec::new();
    status
        .conditions
        .retain(|c| [conditions::SUCCEEDED, conditions::LOGS_COMPLETE].contains(&c.type_.as_str()));
    job.metadata.annotations = None;
    job.metadata.labels = None;
    let spec = &mut job.spec;
    spec.command = Vec::new();
    spec.args = Vec::new();
    spec.env = Vec::new();
    spec.env_from = Vec::new();
    spec.volumes = Vec::new();
    spec.volume_mounts = Vec::new();
    spec.tolerations = Vec::new();
    spec.resources_per_node = None;
    spec.affinity = None;
    spec.failure_policy = None;
}
