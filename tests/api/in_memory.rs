//! The API server in memory under `tests/crash` against a real one: the same requests, the same
//! answers. What the crash tests prove is worth as much as these two agree.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{
        DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent,
        WatchParams,
    },
};
use serde_json::json;
use trainyard::api::{TrainingJob, TrainingJobStatus, names};

use crate::support;

#[allow(dead_code)] // the operator's part of it has no use here
#[path = "../crash/api_server.rs"]
mod api_server;
#[allow(dead_code)]
#[path = "../crash/auditor.rs"]
mod auditor;
#[allow(dead_code)]
#[path = "../crash/collector.rs"]
mod collector;
#[allow(dead_code)]
#[path = "../crash/requests.rs"]
mod requests;
#[allow(dead_code)]
#[path = "../crash/store.rs"]
mod store;

#[tokio::test]
async fn the_api_server_in_memory_answers_as_a_real_one() {
    let real = support::control_plane().await;
    let namespace = support::namespace(&real, "in-memory").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(real.clone(), &namespace);
    let account = json!({"metadata": {"name": "default"}});
    let account = serde_json::from_value(account).expect("a ServiceAccount");
    let _ = accounts.create(&PostParams::default(), &account).await;

    let server = api_server::ApiServer::new();
    let (fake, _) = server.connect(1, requests::Weather::default());

    let mut wanted = of_a_job(real.clone(), &namespace).await;
    wanted.extend(of_pods(real, &namespace).await);
    let mut got = of_a_job(fake.clone(), &namespace).await;
    got.extend(of_pods(fake, &namespace).await);
    assert_eq!(got, wanted, "in memory (left) and in reality (right)");
}

fn said<T>(what: &str, answer: &kube::Result<T>) -> String {
    match answer {
        Ok(_) => format!("{what}: ok"),
        Err(kube::Error::Api(no)) => format!("{what}: {} {}", no.code, no.reason),
        Err(other) => format!("{what}: {other}"),
    }
}

async fn of_a_job(client: Client, namespace: &str) -> Vec<String> {
    let jobs: Api<TrainingJob> = Api::namespaced(client, namespace);
    let post = PostParams::default();
    let mut says = Vec::new();
    let job = json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "j"},
        "spec": {"runtimeRef": {"name": "r"}, "command": ["train"]}, "status": {"retries": 3},
    });
    let job: TrainingJob = serde_json::from_value(job).expect("a TrainingJob");

    let before = jobs.list(&ListParams::default()).await.expect("a list");
    let created = jobs.create(&post, &job).await.expect("it is created");
    says.push(format!(
        "a new job has a status: {}",
        created.status.is_some()
    ));
    says.push(format!("its generation: {:?}", created.metadata.generation));
    says.push(said("create again", &jobs.create(&post, &job).await));
    says.push(said("get another", &jobs.get("other").await));

    let mut update = created.clone();
    update.spec.suspend = true;
    update.status = Some(TrainingJobStatus {
        retries: 1,
        ..TrainingJobStatus::default()
    });
    let answer = jobs.replace_status("j", &post, &update).await;
    says.push(said("write the status", &answer));
    let stored = answer.expect("it is written");
    let retries = stored.status.as_ref().map(|s| s.retries);
    says.push(format!(
        "it has {retries:?} retries, suspend {}",
        stored.spec.suspend
    ));
    says.push(format!("its generation: {:?}", stored.metadata.generation));
    let newer = stored.resource_version() != created.resource_version();
    says.push(format!("it has a new resourceVersion: {newer}"));

    let again = jobs.replace_status("j", &post, &stored).await;
    let same = again
        .as_ref()
        .is_ok_and(|a| a.resource_version() == stored.resource_version());
    says.push(said("write it again", &again));
    says.push(format!("which changes nothing: {same}"));
    let stale = jobs.replace_status("j", &post, &created).await;
    says.push(said("write from an old version", &stale));
    let mut blind = stored.clone();
    blind.metadata.resource_version = None;
    blind.status = None;
    let answer = jobs.replace_status("j", &post, &blind).await;
    says.push(said("write without a version", &answer));
    let mut reborn = stored.clone();
    reborn.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
    let answer = jobs.replace_status("j", &post, &reborn).await;
    says.push(said("write to one of another uid", &answer));
    let mut other = stored.clone();
    other.metadata.name = Some("other".into());
    let answer = jobs.replace_status("other", &post, &other).await;
    says.push(said("write the status of another", &answer));

    let background = DeleteParams::background();
    let wrong = background
        .clone()
        .preconditions(uid("00000000-0000-0000-0000-000000000000"));
    says.push(said(
        "delete one of another uid",
        &jobs.delete("j", &wrong).await,
    ));
    let right = background.preconditions(uid(&stored.uid().unwrap_or_default()));
    let answer = jobs.delete("j", &right).await;
    says.push(said("delete", &answer));
    says.push(format!(
        "which answers with the object: {}",
        answer.is_ok_and(|a| a.is_left())
    ));
    says.push(said("get what is deleted", &jobs.get("j").await));
    says.push(said("delete it again", &jobs.delete("j", &right).await));

    let from = before.metadata.resource_version.unwrap_or_default();
    let events = jobs.watch(&WatchParams::default().timeout(10), &from).await;
    let seen = events
        .expect("a watch")
        .take(3)
        .map_ok(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            _ => "something else",
        });
    let seen = tokio::time::timeout(Duration::from_secs(20), seen.try_collect::<Vec<_>>()).await;
    says.push(format!("the watch shows {seen:?}"));
    says
}

async fn of_pods(client: Client, namespace: &str) -> Vec<String> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let (post, delete) = (PostParams::default(), DeleteParams::default());
    let mut says = Vec::new();
    let pod = |name: &str, node: Option<&str>, labels: serde_json::Value| -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "localhost/none"}], "automountServiceAccountToken": false},
        });
        if let Some(node) = node {
            pod["spec"]["nodeName"] = node.into();
        }
        serde_json::from_value(pod).expect("a Pod")
    };
    let label = "trainyard.dev/job-uid";
    let waiting = pod("waiting", None, json!({label: "u"}));
    let created = pods.create(&post, &waiting).await;
    says.push(said("create a pod", &created));
    let phase = created.ok().and_then(|p| p.status).and_then(|s| s.phase);
    says.push(format!("its phase: {phase:?}"));
    says.push(said("create it again", &pods.create(&post, &waiting).await));
    let placed = pods
        .create(&post, &pod("placed", Some("nowhere"), json!({})))
        .await;
    says.push(said("create a pod on a node", &placed));
    let labelled = pods.list(&ListParams::default().labels(label)).await;
    let names: Vec<String> = labelled
        .into_iter()
        .flatten()
        .map(|p| p.name_any())
        .collect();
    says.push(format!("with the label: {names:?}"));

    let wrong = delete
        .clone()
        .preconditions(uid("00000000-0000-0000-0000-000000000000"));
    says.push(said(
        "delete one of another uid",
        &pods.delete("waiting", &wrong).await,
    ));
    for name in ["waiting", "placed", "placed"] {
        let answer = pods.delete(name, &delete).await;
        let object = answer.as_ref().is_ok_and(|a| a.is_left());
        says.push(said(&format!("delete {name}"), &answer));
        says.push(format!("which answers with the object: {object}"));
        let left = pods.get(name).await;
        says.push(said("get it", &left));
        says.extend(left.ok().map(|pod| {
            let meta = &pod.metadata;
            let (going, grace) = (
                meta.deletion_timestamp.is_some(),
                meta.deletion_grace_period_seconds,
            );
            format!("it is going: {going}, in {grace:?} s")
        }));
    }
    says.extend(of_a_held_pod(&pods, pod("held", None, json!({}))).await);
    says
}

/// One with our finalizer, which is deleted, and let go.
async fn of_a_held_pod(pods: &Api<Pod>, mut held: Pod) -> Vec<String> {
    let mut says = Vec::new();
    held.metadata.finalizers = Some(vec![names::FINALIZER_LOGS.into()]);
    let created = pods.create(&PostParams::default(), &held).await;
    says.push(said("create a held pod", &created));
    let uid = created.ok().and_then(|p| p.uid()).unwrap_or_default();
    let patch = async |what: &str, patch: serde_json::Value| {
        let patch = Patch::Strategic(patch);
        said(
            what,
            &pods.patch("held", &PatchParams::default(), &patch).await,
        )
    };
    let stop = |uid: &str| json!({"metadata": {"uid": uid}, "spec": {"activeDeadlineSeconds": 1}});
    says.push(patch("stop another", stop("00000000-0000-0000-0000-000000000000")).await);
    says.push(patch("stop it", stop(&uid)).await);
    let deleted = pods.delete("held", &DeleteParams::default()).await;
    says.push(said("delete it", &deleted));
    says.push(format!(
        "which answers with the object: {}",
        deleted.is_ok_and(|a| a.is_left())
    ));
    let left = pods.get("held").await.ok();
    let meta = left.as_ref().map(|p| &p.metadata);
    says.push(format!(
        "it is going: {:?}, in {:?} s",
        meta.map(|m| m.deletion_timestamp.is_some()),
        meta.and_then(|m| m.deletion_grace_period_seconds)
    ));
    let deadline = left.and_then(|p| p.spec?.active_deadline_seconds);
    says.push(format!("its deadline: {deadline:?}"));
    let release = json!({"metadata": {
        "uid": uid, "$deleteFromPrimitiveList/finalizers": [names::FINALIZER_LOGS],
    }});
    says.push(patch("let it go", release.clone()).await);
    says.push(said("get it", &pods.get("held").await));
    says.push(patch("let it go again", release).await);
    says
}

fn uid(uid: &str) -> Preconditions {
    Preconditions {
        uid: Some(uid.into()),
        resource_version: None,
    }
}
