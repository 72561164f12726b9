//! Suspend, deadlines, time to live, deletion, runtimes: what ends and starts a job besides itself.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use trainyard::api::{TrainingJobStatus, TrainingRuntime, conditions};

use crate::site::{Site, eventually, message, names, reason};

async fn set(site: &Site, job: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    let params = PatchParams::default();
    site.jobs().patch(job, &params, &patch).await.unwrap();
}

fn suspended(status: &TrainingJobStatus) -> bool {
    status
        .condition(conditions::SUSPENDED)
        .is_some_and(|c| c.status == "True")
}

#[tokio::test]
async fn suspending_frees_the_nodes_and_resuming_starts_a_fresh_attempt() {
    let site = Site::new("suspend").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "[ $TRAINYARD_ATTEMPT = 2 ] || sleep 600"],
        "numNodes": 2, "suspend": true,
    });
    site.submit("paused", spec).await;
    site.until("paused", "to be suspended before it starts", suspended)
        .await;
    assert_eq!(site.history.pods(), 0, "a suspended job starts nothing");

    set(&site, "paused", json!({"suspend": false})).await;
    site.running("paused").await;
    set(&site, "paused", json!({"suspend": true})).await;
    let status = site.until("paused", "to be suspended", suspended).await;
    assert_eq!(reason(&status), "Suspended");
    assert!(
        status.start_time.is_none(),
        "a suspended job's deadlines do not run"
    );
    eventually("the nodes to be free", || async {
        let left = names(&site.pod_list().await);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;

    set(&site, "paused", json!({"suspend": false})).await;
    let status = site.ended("paused").await;
    assert_eq!(reason(&status), "Completed");
    assert_eq!(status.retries, 0, "suspending is not charged");
    assert_eq!(status.attempts.len(), 2);
    site.history.assert_clean();
}

#[tokio::test]
async fn a_job_over_its_active_deadline_is_ended_and_its_pods_are_stopped() {
    let site = Site::new("deadline").await;
    let _operator = site.operator();
    let spec = json!({"command": ["sleep", "600"], "activeDeadlineSeconds": 5});
    site.submit("late", spec).await;
    let status = site.ended("late").await;
    assert_eq!(reason(&status), "DeadlineExceeded");
    assert!(
        message(&status).contains("activeDeadlineSeconds (5 s)"),
        "{}",
        message(&status)
    );
    eventually("the pod to be stopped", || async {
        let left = names(&site.pod_list().await);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_gang_that_does_not_fit_says_what_is_missing_and_fails_at_its_start_deadline() {
    let site = Site::new("nofit").await;
    let _operator = site.operator();
    let spec =
        json!({"command": ["true"], "numNodes": 2, "gpusPerNode": 64, "startDeadlineSeconds": 12});
    site.submit("huge", spec).await;
    let told = |s: &TrainingJobStatus| {
        s.condition(conditions::PODS_READY)
            .is_some_and(|c| c.reason == "Unschedulable" && c.message.contains("nvidia.com/gpu"))
    };
    site.until("huge", "to say why it does not start", told)
        .await;
    let status = site.ended("huge").await;
    assert_eq!(reason(&status), "StartDeadlineExceeded");
    assert!(
        message(&status).contains("Insufficient nvidia.com/gpu"),
        "{}",
        message(&status)
    );
    assert_eq!(status.retries, 0);
}

#[tokio::test]
async fn a_finished_job_is_deleted_after_its_time_to_live_and_its_pods_with_it() {
    let site = Site::new("ttl").await;
    let _operator = site.operator();
    let spec = json!({"command": ["true"], "ttlSecondsAfterFinished": 2});
    site.submit("brief", spec).await;
    eventually("the job and its pods to be deleted", || async {
        let job = site.jobs().get_opt("brief").await.unwrap();
        let pods = names(&site.pod_list().await);
        if job.is_none() && pods.is_empty() && site.history.pods() == 1 {
            Ok(())
        } else {
            Err(format!("job there: {}, pods: {pods:?}", job.is_some()))
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_deleted_while_it_starts_leaves_nothing_behind() {
    let site = Site::new("deleted").await;
    let _operator = site.operator();
    for round in 0..5 {
        let spec = json!({"command": ["sleep", "600"], "numNodes": 3});
        let name = format!("gone-{round}");
        site.submit(&name, spec).await;
        site.until(&name, "to open its first attempt", |s| {
            !s.attempts.is_empty()
        })
        .await;
        site.jobs()
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
    }
    eventually("all pods and services to be gone", || async {
        let pods = names(&site.pod_list().await);
        let api: kube::Api<k8s_openapi::api::core::v1::Service> =
            kube::Api::namespaced(site.client.clone(), &site.namespace);
        let services = names(&api.list(&Default::default()).await.unwrap().items);
        if pods.is_empty() && services.is_empty() {
            Ok(())
        } else {
            Err(format!("pods {pods:?}, services {services:?}"))
        }
    })
    .await;
    site.history.assert_clean();
}

#[tokio::test]
async fn a_job_waits_for_a_runtime_that_comes_later_and_keeps_it_as_it_was() {
    let site = Site::new("runtime").await;
    let _operator = site.operator();
    let spec = json!({
        "runtimeRef": {"kind": "TrainingRuntime", "name": "later"},
        "command": ["sh", "-c", "[ $COLOUR = blue ] && [ $TRAINYARD_ATTEMPT = 2 ]"],
        "failurePolicy": {"backoffBaseSeconds": 1, "backoffMaxSeconds": 1},
    });
    site.submit("early", spec).await;
    let status = site
        .until("early", "to miss its runtime", |s| {
            reason(s) == "RuntimeNotFound"
        })
        .await;
    assert!(
        message(&status).contains("there is no TrainingRuntime named later"),
        "{}",
        message(&status)
    );

    let api = kube::Api::<TrainingRuntime>::namespaced(site.client.clone(), &site.namespace);
    let runtime = |colour: &str| {
        serde_json::from_value::<TrainingRuntime>(json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRuntime",
            "metadata": {"name": "later"},
            "spec": {"image": crate::site::BUSYBOX, "env": [{"name": "COLOUR", "value": colour}]},
        }))
        .unwrap()
    };
    api.create(&PostParams::default(), &runtime("blue"))
        .await
        .unwrap();
    site.until("early", "to start", |s| s.start_time.is_some())
        .await;
    let edit = Patch::Merge(json!({"spec": {"env": [{"name": "COLOUR", "value": "red"}]}}));
    api.patch("later", &PatchParams::default(), &edit)
        .await
        .unwrap();
    let status = site.ended("early").await;
    assert_eq!(
        reason(&status),
        "Completed",
        "the second attempt saw the runtime as it was at the start"
    );
    assert_eq!(status.retries, 1);
}

#[tokio::test]
async fn priority_reaches_the_pods_and_an_unknown_class_is_told_not_swallowed() {
    let site = Site::new("priority").await;
    let _operator = site.operator();
    let unknown = json!({"command": ["true"], "priorityClassName": "no-such-class"});
    site.submit("unknown", unknown).await;
    let told =
        |s: &TrainingJobStatus| message(s).contains("no PriorityClass with name no-such-class");
    site.until("unknown", "to say what is wrong", told).await;
    // The field may change after the start, and the next try uses it.
    set(&site, "unknown", json!({"priorityClassName": null})).await;
    assert_eq!(reason(&site.ended("unknown").await), "Completed");
}
