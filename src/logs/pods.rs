//! PURE: a pod of a training job → its containers, whose lines they are, and how far they are.

use k8s_openapi::{
    api::core::v1::{ContainerState as KubeState, ContainerStatus, Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::line::{Origin, StreamId};
use crate::api::names;

/// How far a container is, as its log's reader needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started: asking for its log is an error.
    Waiting,
    /// Running.
    Running,
    /// It has exited; its log has an end.
    Terminated,
    /// The same, and its pod is being deleted: its kubelet throws the log away at any moment.
    Discarded,
    /// Its pod is gone, or it will never start: there is nothing more to read.
    Gone,
}

/// A container that has a log, or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Whose lines.
    pub id: StreamId,
    /// Where it runs. Another run of the container has another `container_id`; it is empty until the
    /// container has started.
    pub origin: Origin,
    /// When it started, by the node's clock.
    pub started: Option<Timestamp>,
    /// How far it is.
    pub state: ContainerState,
}

/// The containers of a training job's pod, init and ephemeral ones too. None where the labels do
/// not say whose it is.
#[must_use]
pub fn containers(pod: &Pod) -> Option<Vec<Container>> {
    let label = |name| pod.labels().get(name).filter(|v| !v.is_empty());
    let (job, uid) = (label(names::LABEL_JOB)?, label(names::LABEL_JOB_UID)?);
    let attempt = label(names::LABEL_ATTEMPT)?.parse().ok()?;
    let rank = label(names::LABEL_RANK)?.parse().ok()?;
    let namespace = pod.namespace()?;

    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
    let statuses: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|s| {
            [
                &s.init_container_statuses,
                &s.container_statuses,
                &s.ephemeral_container_statuses,
            ]
        })
        .flatten()
        .flatten()
        .collect();
    let over = is_over(pod);

    let init = spec.init_containers.iter().flatten().map(|c| &c.name);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| &c.name);
    let names = init
        .chain(spec.containers.iter().map(|c| &c.name))
        .chain(ephemeral);
    let container = |name: &String| {
        let status = statuses.iter().find(|s| s.name == *name);
        let container_id = status
            .and_then(|s| s.container_id.clone())
            .filter(|id| !id.is_empty());
        let state = status.and_then(|s| s.state.as_ref());
        let started = state.and_then(started);
        let state = match state {
            Some(s) if s.running.is_some() => ContainerState::Running,
            // A container that never ran is also "terminated" when its pod failed before; without
            // an id there is no log.
            Some(s) if s.terminated.is_some() && container_id.is_some() => {
                if pod.metadata.deletion_timestamp.is_some() {
                    ContainerState::Discarded
                } else {
                    ContainerState::Terminated
                }
            }
            _ if over => ContainerState::Gone,
            _ => ContainerState::Waiting,
        };
        Container {
            id: StreamId {
                namespace: namespace.clone(),
                job: job.clone(),
                uid: uid.clone(),
                attempt,
                rank,
                container: name.clone(),
            },
            origin: Origin {
                cluster: String::new(),
                node: spec.node_name.clone().unwrap_or_default(),
                pod: pod.name_any(),
                pod_uid: pod.uid().unwrap_or_default(),
                container_id: container_id.unwrap_or_default(),
                image: status.map(|s| s.image.clone()).unwrap_or_default(),
            },
            started,
            state,
        }
    };
    Some(names.map(container).collect())
}

fn started(state: &KubeState) -> Option<Timestamp> {
    let running = state.running.as_ref().and_then(|s| s.started_at.as_ref());
    let exited = state
        .terminated
        .as_ref()
        .and_then(|s| s.started_at.as_ref());
    running.or(exited).map(|time| time.0)
}

/// Whether all containers of a pod have ended for good.
#[must_use]
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn states(status: &serde_json::Value) -> Vec<ContainerState> {
        let pod = json!({
            "metadata": {"name": "bert-1-0", "namespace": "ml", "labels": {
                "trainyard.dev/job-name": "bert", "trainyard.dev/job-uid": "u",
                "trainyard.dev/attempt": "1", "trainyard.dev/rank": "0",
            }},
            "spec": {"initContainers": [{"name": "fetch"}], "containers": [{"name": "trainer"}]},
            "status": status,
        });
        let containers = containers(&serde_json::from_value(pod).unwrap()).unwrap();
        assert_eq!(containers[1].id.to_string(), "ml/bert/1/0/trainer");
        containers.iter().map(|c| c.state).collect()
    }

    #[test]
    fn states_of_containers() {
        use ContainerState::{Gone, Running, Terminated, Waiting};
        let container = |name: &str, state: &str, id: &str| {
            json!({"name": name, "containerID": id, "image": "", "imageID": "", "ready": false,
                   "restartCount": 0, "state": {state: {"exitCode": 0}}})
        };
        let status = |phase: &str, init, main| json!({"phase": phase, "initContainerStatuses": [init], "containerStatuses": [main]});
        let waiting = container("trainer", "waiting", "");
        let cases = [
            (json!({}), [Waiting, Waiting]),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                [Gone, Gone],
            ),
            (
                status(
                    "Pending",
                    container("fetch", "running", "c1"),
                    waiting.clone(),
                ),
                [Running, Waiting],
            ),
            (
                status("Failed", container("fetch", "terminated", "c1"), waiting),
                [Terminated, Gone],
            ),
            (
                status(
                    "Failed",
                    container("fetch", "terminated", "c1"),
                    container("trainer", "terminated", ""),
                ),
                [Terminated, Gone],
            ),
        ];
        for (status, expected) in cases {
            assert_eq!(states(&status), expected, "{status}");
        }
    }

    #[test]
    fn a_pod_without_the_labels_is_nobodys() {
        assert_eq!(containers(&Pod::default()), None);
    }
}
