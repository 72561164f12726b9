//! Pods as a kubelet and a control plane write them → facts.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::pod;
use crate::plan::{Phase, PodFacts};

const RUN: &str = "2026-11-24T04:00:10Z";
const END: &str = "2026-11-24T04:05:00Z";

fn time(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

/// Pod `ddp-1-0` with this status.
fn raw(status: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "ddp-1-0", "namespace": "ml", "uid": "pod-uid",
            "labels": {"trainyard.dev/job-name": "ddp", "trainyard.dev/attempt": "1", "trainyard.dev/rank": "0"},
            "ownerReferences": [{
                "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob", "name": "ddp",
                "uid": "job-uid", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"nodeName": "gpu-7", "containers": [{"name": "trainer"}]},
        "status": status,
    })
}

fn facts_of(raw: Value) -> PodFacts {
    let object: Pod = serde_json::from_value(raw).unwrap();
    pod(&object).unwrap().1
}

fn facts(status: &Value) -> PodFacts {
    facts_of(raw(status))
}

fn conditions(ready: &str) -> Value {
    json!([
        {"type": "PodReadyToStartContainers", "status": "True"},
        {"type": "Initialized", "status": "True"},
        {"type": "Ready", "status": ready},
        {"type": "ContainersReady", "status": ready},
        {"type": "PodScheduled", "status": "True"},
    ])
}

fn container(state: &Value) -> Value {
    json!([{
        "name": "trainer", "image": "pytorch:2.6", "imageID": "sha256:1", "ready": false,
        "restartCount": 0, "started": false, "state": state, "lastState": {},
    }])
}

fn terminated(code: i32, reason: &str, message: &str) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": reason, "message": message, "startedAt": RUN,
        "finishedAt": END, "containerID": "containerd://1",
    }})
}

#[test]
fn a_running_pod() {
    let found = facts(&json!({
        "phase": "Running", "startTime": RUN, "conditions": conditions("True"),
        "containerStatuses": container(&json!({"running": {"startedAt": RUN}})),
    }));
    let expected = PodFacts {
        name: "ddp-1-0".into(),
        uid: "pod-uid".into(),
        attempt: 1,
        rank: 0,
        node: Some("gpu-7".into()),
        phase: Phase::Running,
        accepted: time(RUN),
        ready: true,
        ..PodFacts::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn a_pod_that_is_being_created_has_no_problem() {
    for reason in ["ContainerCreating", "PodInitializing"] {
        let state = json!({"waiting": {"reason": reason}});
        let found = facts(&json!({"phase": "Pending", "containerStatuses": container(&state)}));
        assert_eq!((found.phase, found.waiting), (Phase::Pending, None));
    }
    let mut bare = raw(&json!({}));
    bare.as_object_mut().unwrap().remove("status");
    assert_eq!(
        facts_of(bare).phase,
        Phase::Pending,
        "not even a status yet"
    );
}

#[test]
fn a_silent_kubelet_does_not_end_a_pod() {
    assert_eq!(facts(&json!({"phase": "Unknown"})).phase, Phase::Running);
}

#[test]
fn ends_are_read_with_code_reason_message_and_time() {
    for (phase, code, reason) in [
        (Phase::Succeeded, 0, "Completed"),
        (Phase::Failed, 1, "Error"),
        (Phase::Failed, 137, "OOMKilled"),
        (Phase::Failed, 128, "StartError"),
    ] {
        let found = facts(&json!({
            "phase": format!("{phase:?}"), "conditions": conditions("False"),
            "containerStatuses": container(&terminated(code, reason, "last line\n")),
        }));
        let end = found.terminated.unwrap();
        assert_eq!((found.phase, end.exit_code), (phase, code));
        assert_eq!(
            (end.reason.as_str(), end.message.as_str()),
            (reason, "last line\n")
        );
        assert_eq!((end.finished, found.ready), (time(END), false));
        assert_eq!(found.disruption, None);
    }
}

#[test]
fn what_keeps_a_container_from_starting_is_seen() {
    for (reason, message) in [
        ("ImagePullBackOff", "Back-off pulling image \"pytroch:2.6\""),
        (
            "CreateContainerConfigError",
            "secret \"hf-token\" not found",
        ),
    ] {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        let found = facts(&json!({
            "phase": "Pending", "startTime": RUN, "containerStatuses": container(&state),
        }));
        let waiting = found.waiting.unwrap();
        assert_eq!(
            (waiting.container.as_str(), waiting.reason.as_str()),
            ("trainer", reason)
        );
        assert_eq!(
            (waiting.message.as_str(), found.accepted),
            (message, time(RUN))
        );
    }
}

#[test]
fn the_schedulers_words_are_kept_and_a_placed_pod_has_none() {
    let full = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    let scheduled = |status: &str, reason: &str| {
        facts(&json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": status, "reason": reason, "message": full},
        ]}))
        .unschedulable
    };
    assert_eq!(scheduled("False", "Unschedulable").as_deref(), Some(full));
    assert_eq!(
        scheduled("False", "SchedulingGated"),
        None,
        "a queue's gate is no lack of room"
    );
    assert_eq!(scheduled("True", ""), None);
}

#[test]
fn an_eviction_by_the_kubelet_says_more_than_its_condition() {
    let found = facts(&json!({
        "phase": "Failed", "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "m"}],
        "containerStatuses": container(&terminated(137, "Error", "")),
    }));
    let why = found.disruption.unwrap();
    assert_eq!(why.reason, "Evicted");
    assert_eq!(why.message, "The node was low on resource: memory.");
}

#[test]
fn a_disruption_counts_whatever_the_exit_code_says() {
    for reason in [
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "DeletionByPodGC",
        "TerminationByKubelet",
    ] {
        let target = |status: &str| {
            facts(&json!({
                "phase": "Succeeded", "containerStatuses": container(&terminated(0, "Completed", "")),
                "conditions": [{"type": "DisruptionTarget", "status": status, "reason": reason, "message": "why"}],
            }))
        };
        let found = target("True");
        assert!(found.interrupted());
        assert_eq!(found.disruption.unwrap().reason, reason);
        // A preemption that was called off.
        assert_eq!(target("False").disruption, None);
    }
}

#[test]
fn the_time_of_a_deletion_is_the_end_of_its_grace_less_the_grace() {
    let mut deleted = raw(&json!({
        "phase": "Running", "containerStatuses": container(&json!({"running": {}})),
    }));
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-24T04:10:30Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    let found = facts_of(deleted);
    assert_eq!(found.deletion, time("2026-11-24T04:10:30Z"));
    assert_eq!(found.deletion_requested, time("2026-11-24T04:10:00Z"));
    assert!(found.interrupted());
}

#[test]
fn a_failed_init_container_is_the_end_that_is_reported() {
    let found = facts(&json!({
        "phase": "Failed",
        "initContainerStatuses": [
            {"name": "ok", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": terminated(0, "Completed", "")},
            {"name": "fetch", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": terminated(2, "Error", "404")},
        ],
        "containerStatuses": container(&json!({"waiting": {"reason": "PodInitializing"}})),
    }));
    let end = found.terminated.unwrap();
    assert_eq!((end.container.as_str(), end.exit_code), ("fetch", 2));
}

#[test]
fn a_sidecar_that_is_stopped_after_the_training_does_not_take_the_blame() {
    for code in [0, 1] {
        let mut containers = container(&terminated(code, "Error", "boom"));
        containers.as_array_mut().unwrap().push(json!(
            {"name": "z-proxy", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": terminated(0, "Completed", "")}
        ));
        let found = facts(&json!({
            "phase": "Failed", "containerStatuses": containers,
            "initContainerStatuses": [
                {"name": "mesh", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": terminated(if code == 0 { 0 } else { 143 }, "Error", "")},
            ],
        }));
        let end = found.terminated.unwrap();
        assert_eq!((end.container.as_str(), end.exit_code), ("trainer", code));
    }
}

#[test]
fn names_with_dashes_and_digits_are_taken_apart_at_the_right_place() {
    for (job, name, expected) in [
        ("ddp", "ddp-12-345", Some((12, 345))),
        ("a-1", "a-1-2-3", Some((2, 3))),
        ("a-1-2", "a-1-2-3-4", Some((3, 4))),
        ("a", "a-1-2-3", None), // of job a-1
        ("a", "ab-1-2", None),
        ("a", "a-1", None),
        ("a", "a-1-x", None),
        ("a", "a--1-2", None),
        ("a", "a-01-2", None), // we never give such names
        ("a", "a-1--0", None),
        ("a", "a-1-99999999999", None),
    ] {
        let mut object = raw(&json!({"phase": "Running"}));
        object["metadata"]["name"] = json!(name);
        object["metadata"]["ownerReferences"][0]["name"] = json!(job);
        let object: Pod = serde_json::from_value(object).unwrap();
        let found = pod(&object).map(|(_, facts)| (facts.attempt, facts.rank));
        assert_eq!(found, expected, "{name} of {job}");
    }
}

#[test]
fn labels_that_someone_edits_move_no_pod_to_another_attempt() {
    let mut edited = raw(&json!({"phase": "Running"}));
    edited["metadata"]["labels"] =
        json!({"trainyard.dev/attempt": "9", "trainyard.dev/job-uid": "x"});
    assert_eq!(facts_of(edited), facts(&json!({"phase": "Running"})));
}

#[test]
fn pods_of_others_are_not_touched() {
    let change = |key: &str, value: Value| {
        let mut object = raw(&json!({"phase": "Running"}));
        object["metadata"]["ownerReferences"][0][key] = value;
        pod(&serde_json::from_value(object).unwrap()).is_none()
    };
    assert!(change("kind", json!("Job")));
    assert!(change("controller", json!(false)));
    assert!(change("apiVersion", json!("kubeflow.org/v1")));
    assert!(
        change("apiVersion", json!("trainyard.development.org/v1")),
        "a longer group"
    );
    assert!(
        !change("apiVersion", json!("trainyard.dev/v1beta1")),
        "another version is ours"
    );
    let mut orphan = raw(&json!({"phase": "Running"}));
    orphan["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("ownerReferences");
    assert!(pod(&serde_json::from_value(orphan).unwrap()).is_none());
}

#[test]
fn a_pod_is_told_apart_from_one_of_an_earlier_job_of_the_same_name() {
    let object: Pod = serde_json::from_value(raw(&json!({}))).unwrap();
    let (owner, _) = pod(&object).unwrap();
    assert_eq!(
        (
            owner.namespace.as_str(),
            owner.name.as_str(),
            owner.uid.as_str()
        ),
        ("ml", "ddp", "job-uid")
    );
}

#[test]
fn a_pod_that_we_make_is_recognized_as_ours() {
    let job = serde_json::from_value(json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "ddp", "namespace": "ml", "uid": "job-uid"},
        "spec": {"runtimeRef": {"name": "r"}, "command": ["true"]},
        "status": {"runtime": {
            "kind": "ClusterTrainingRuntime", "name": "r", "generation": 1, "spec": {"image": "i"},
        }},
    }))
    .unwrap();
    let made = crate::pods::pod(&job, 2, 1).unwrap();
    let (owner, facts) = pod(&made).unwrap();
    assert_eq!(
        (owner.uid.as_str(), facts.attempt, facts.rank),
        ("job-uid", 2, 1)
    );
}
