//! The ways in which real attempts fail, and what the user is told.

use k8s_openapi::api::policy::v1::Eviction;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use trainyard::api::{FailureClass, TrainingJobStatus, conditions};

use crate::site::{Site, eventually, message, reason};

fn pods_ready_message(status: &TrainingJobStatus) -> &str {
    status
        .condition(conditions::PODS_READY)
        .map_or("", |c| &c.message)
}

#[tokio::test]
async fn an_image_that_cant_be_pulled_is_named_at_once_and_ends_the_job_at_its_start_deadline() {
    let site = Site::new("image").await;
    let _operator = site.operator();
    let spec = json!({"command": ["true"], "image": "localhost/no/such:image", "startDeadlineSeconds": 15});
    site.submit("noimage", spec).await;
    let told = |s: &TrainingJobStatus| pods_ready_message(s).contains("localhost/no/such:image");
    site.until("noimage", "to name the image", told).await;
    let status = site.ended("noimage").await;
    assert_eq!(reason(&status), "StartDeadlineExceeded");
    assert!(
        message(&status).contains("localhost/no/such:image"),
        "{}",
        message(&status)
    );
    assert_eq!(status.retries, 0, "the same image again is no use");
}

#[tokio::test]
async fn an_image_name_that_is_none_fails_at_once() {
    let site = Site::new("badname").await;
    let _operator = site.operator();
    let spec = json!({"command": ["true"], "image": "localhost/Not-Lower-Case:dev"});
    site.submit("badname", spec).await;
    let status = site.ended("badname").await;
    assert_eq!(reason(&status), "NotRetryable");
    assert!(
        message(&status).contains("Not-Lower-Case"),
        "{}",
        message(&status)
    );
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named_and_not_retried() {
    let site = Site::new("command").await;
    let _operator = site.operator();
    site.submit("typo", json!({"command": ["pythn", "train.py"]}))
        .await;
    let status = site.ended("typo").await;
    assert_eq!(reason(&status), "NotRetryable");
    assert!(message(&status).contains("pythn"), "{}", message(&status));
    let hint = status.attempts[0].hint.clone().unwrap_or_default();
    assert!(hint.contains("spec.command"), "{hint}");
    assert_eq!(status.retries, 0);
}

#[tokio::test]
async fn a_real_out_of_memory_kill_is_called_that_and_names_the_limit_to_raise() {
    let site = Site::new("oom").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "echo filling; tail /dev/zero"], "backoffLimit": 0,
        "resourcesPerNode": {"limits": {"memory": "32Mi"}},
    });
    site.submit("oom", spec).await;
    let status = site.ended("oom").await;
    let cause = status.attempts[0]
        .root_cause
        .as_ref()
        .expect("a root cause");
    assert_eq!(
        (cause.reason.as_str(), cause.exit_code),
        ("OOMKilled", Some(137))
    );
    assert!(
        message(&status).contains("resourcesPerNode.limits.memory"),
        "{}",
        message(&status)
    );
}

#[tokio::test]
async fn an_evicted_pod_fails_its_attempt_by_name_and_the_gang_is_retried() {
    let site = Site::new("evict").await;
    let _operator = site.operator();
    // The ranks exit with 0 on SIGTERM, as a trainer that saves a checkpoint does: that is no success.
    let spec = json!({
        "command": ["sh", "-c", "trap 'exit 0' TERM; [ $TRAINYARD_ATTEMPT = 2 ] || while :; do sleep 0.2; done"],
        "numNodes": 2, "failurePolicy": {"backoffBaseSeconds": 0, "backoffMaxSeconds": 0},
    });
    site.submit("moved", spec).await;
    site.running("moved").await;
    let eviction: Eviction =
        serde_json::from_value(json!({"metadata": {"name": "moved-1-1"}})).unwrap();
    let params = PostParams::default();
    let answer = site.pods();
    let _: serde_json::Value = answer
        .create_subresource("eviction", "moved-1-1", &params, &eviction)
        .await
        .unwrap();
    let status = site.ended("moved").await;
    assert_eq!(reason(&status), "Completed");
    let cause = status.attempts[0]
        .root_cause
        .as_ref()
        .expect("a root cause");
    assert_eq!(
        (cause.rank, cause.reason.as_str()),
        (Some(1), "EvictionByEvictionAPI")
    );
    assert_eq!(status.attempts.len(), 2);
    site.history.assert_clean();
}

#[tokio::test]
async fn a_pod_deleted_by_hand_is_called_that_and_the_gang_is_retried() {
    let site = Site::new("byhand").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "[ $TRAINYARD_ATTEMPT = 2 ] || sleep 600"],
        "numNodes": 2, "failurePolicy": {"backoffBaseSeconds": 0, "backoffMaxSeconds": 0},
    });
    site.submit("hand", spec).await;
    site.running("hand").await;
    site.pods()
        .delete("hand-1-0", &DeleteParams::default())
        .await
        .unwrap();
    let status = site.ended("hand").await;
    assert_eq!(reason(&status), "Completed");
    let cause = status.attempts[0]
        .root_cause
        .as_ref()
        .expect("a root cause");
    assert_eq!((cause.rank, cause.reason.as_str()), (Some(0), "PodDeleted"));
    assert!(
        cause.message.contains("hand-1-0 was deleted"),
        "{}",
        cause.message
    );
    site.history.assert_clean();
}

#[tokio::test]
async fn a_missing_config_map_is_named_while_the_job_waits_and_heals_when_it_appears() {
    let site = Site::new("config").await;
    let _operator = site.operator();
    let spec =
        json!({"command": ["true"], "envFrom": [{"configMapRef": {"name": "hyperparameters"}}]});
    site.submit("waits", spec).await;
    let told = |s: &TrainingJobStatus| pods_ready_message(s).contains("hyperparameters");
    site.until("waits", "to name the ConfigMap", told).await;
    let api: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(site.client.clone(), &site.namespace);
    let map = serde_json::from_value(json!({"metadata": {"name": "hyperparameters"}})).unwrap();
    api.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(reason(&site.ended("waits").await), "Completed");
}

#[tokio::test]
async fn a_service_of_the_same_name_is_told_and_the_job_starts_once_it_is_gone() {
    let site = Site::new("service").await;
    let api: Api<k8s_openapi::api::core::v1::Service> =
        Api::namespaced(site.client.clone(), &site.namespace);
    let service = serde_json::from_value(json!({
        "metadata": {"name": "gang"}, "spec": {"ports": [{"port": 80}]},
    }))
    .unwrap();
    api.create(&PostParams::default(), &service).await.unwrap();
    let _operator = site.operator();
    site.submit("gang", json!({"command": ["true"], "numNodes": 2}))
        .await;
    let told = |s: &TrainingJobStatus| message(s).contains("a Service named gang exists");
    site.until("gang", "to say what is in its way", told).await;
    assert_eq!(
        site.history.pods(),
        0,
        "ranks that could not find each other are not started"
    );
    api.delete("gang", &DeleteParams::default()).await.unwrap();
    assert_eq!(reason(&site.ended("gang").await), "Completed");
}

#[tokio::test]
async fn a_gang_on_a_node_whose_kubelet_died_is_retried_elsewhere_and_nothing_hangs() {
    let site = Site::alone("kubelet").await;
    if std::env::var("TRAINYARD_LOCAL").as_deref() != Ok("true") {
        eprintln!("not run: nodes are only broken on the local cluster");
        return;
    }
    let _operator = site.operator();
    // One rank a node; the second attempt needs one node only to be scheduled anywhere.
    let spec = json!({
        "command": ["sh", "-c", "[ $TRAINYARD_ATTEMPT = 2 ] || sleep 600"],
        "numNodes": 2, "gpusPerNode": 5,
        "failurePolicy": {"backoffBaseSeconds": 0, "backoffMaxSeconds": 0},
        "startDeadlineSeconds": 300,
    });
    site.submit("lost", spec).await;
    site.running("lost").await;
    let stopped = Stopped::node();
    let status = site
        .until("lost", "to notice that a node is gone", |s| {
            s.retries_ignored == 1
        })
        .await;
    let cause = status.attempts[0].root_cause.clone().expect("a root cause");
    drop(stopped);
    assert_eq!(status.attempts[0].class, Some(FailureClass::NodeLost));
    assert_eq!(cause.node.as_deref(), Some("node-2"), "{cause:?}");
    assert_eq!(cause.reason, "DeletionByTaintManager", "{cause:?}");
    let status = site.ended("lost").await;
    assert_eq!(reason(&status), "Completed");
    assert_eq!(status.retries, 0, "not the job's fault");
    eventually("the node to be ready again", || async {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(site.client.clone());
        let node = nodes.get("node-2").await.unwrap();
        let ready = node
            .status
            .and_then(|s| s.conditions)
            .unwrap_or_default()
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        if ready {
            Ok(())
        } else {
            Err("NotReady".into())
        }
    })
    .await;
}

/// Node-2 without its kubelet, until it is dropped, also where the test fails: the other tests need it.
struct Stopped;

impl Stopped {
    fn node() -> Self {
        node("stop");
        Self
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        node("start");
    }
}

/// Stops (kill -9) or starts the kubelet of node-2.
fn node(verb: &str) {
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/cluster/cluster");
    crate::site::run(
        std::process::Command::new(cluster)
            .env_remove("KUBECONFIG")
            .args(["node", verb, "node-2"]),
    );
}
