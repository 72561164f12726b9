//! Why an attempt failed, and what is retried: on real nodes, with real failures.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    events::v1::Event,
    scheduling::v1::PriorityClass,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use trainyard::api::{FailureClass, TrainingJobStatus};

use crate::site::{BUSYBOX, Site, delete_now, eventually, message, reason, run};

/// Retries at once, so that no test waits for a backoff.
fn at_once() -> Value {
    json!({"backoffBaseSeconds": 0, "backoffMaxSeconds": 0})
}

fn class(status: &TrainingJobStatus, attempt: usize) -> Option<FailureClass> {
    status.attempts[attempt].class
}

#[tokio::test]
async fn a_user_error_costs_one_attempt_and_is_told_with_its_line_and_what_to_do() {
    let site = Site::new("usererr").await;
    site.runtime("python", "localhost/trainyard/python:dev", "plain")
        .await;
    let _operator = site.operator();
    let (_collector, store) = site.collector();
    let program = "print('epoch 1', flush=True)\nlabels = {'cat': 0}\nprint(labels['dog'])";
    let spec = json!({
        "runtimeRef": {"kind": "TrainingRuntime", "name": "python"},
        "command": ["python", "-c", program], "failurePolicy": at_once(),
    });
    site.submit("typo", spec).await;
    let status = site.ended("typo").await;
    assert_eq!(reason(&status), "NotRetryable", "{}", message(&status));
    assert_eq!(status.attempts.len(), 1, "a retry can't fix a user error");
    assert_eq!(class(&status, 0), Some(FailureClass::UserError));
    assert_eq!(status.failures[&FailureClass::UserError], 1);
    let attempt = &status.attempts[0];
    assert!(message(&status).contains("KeyError: 'dog'"));
    assert!(attempt.rule.is_some() && attempt.hint.is_some());

    let story = explain(&site, "typo", &["--store", &store.display().to_string()]);
    for text in ["UserError", "> KeyError: 'dog'", "| epoch 1", "not retried"] {
        assert!(story.contains(text), "no {text:?} in\n{story}");
    }
    let json = explain(&site, "typo", &["-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["attempts"][0]["class"], "UserError");
}

fn explain(site: &Site, job: &str, args: &[&str]) -> String {
    run(
        std::process::Command::new(env!("CARGO_BIN_EXE_kubectl-trainyard"))
            .args(["explain", job, "--namespace", &site.namespace])
            .args(args),
    )
}

#[tokio::test]
async fn a_real_out_of_memory_kill_is_explained_with_the_limit_to_raise_and_not_repeated() {
    let site = Site::new("oomhint").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "echo filling; tail /dev/zero"], "failurePolicy": at_once(),
        "resourcesPerNode": {"limits": {"memory": "32Mi"}},
    });
    site.submit("oom", spec).await;
    let status = site.ended("oom").await;
    assert_eq!(class(&status, 0), Some(FailureClass::HostOutOfMemory));
    let hint = status.attempts[0].hint.clone().unwrap_or_default();
    assert!(hint.contains("32Mi"), "{hint}");
    assert_eq!(status.attempts.len(), 1);
}

#[tokio::test]
async fn a_preemption_is_retried_and_not_charged_to_the_job() {
    let site = Site::alone("preempt").await;
    let _operator = site.operator();
    let priorities = Api::<PriorityClass>::all(site.client.clone());
    let high = format!("{}-high", site.namespace);
    let object =
        json!({"metadata": {"name": high, "labels": {"trainyard.dev/e2e": "true"}}, "value": 1000});
    let object = serde_json::from_value(object).unwrap();
    priorities
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    // More than half of each node's GPUs: nothing else of that size fits beside a rank.
    let spec = json!({
        "command": ["sh", "-c", "[ $TRAINYARD_ATTEMPT = 2 ] || sleep 600"],
        "numNodes": 2, "gpusPerNode": 5, "backoffLimit": 0,
    });
    site.submit("low", spec).await;
    site.running("low").await;
    let urgent: Pod = serde_json::from_value(json!({
        "metadata": {"name": "urgent"},
        "spec": {
            "priorityClassName": high, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "c", "image": BUSYBOX, "command": ["sleep", "600"],
                "resources": {"limits": {"nvidia.com/gpu": 5}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))
    .unwrap();
    site.pods()
        .create(&PostParams::default(), &urgent)
        .await
        .unwrap();
    let preempted = |s: &TrainingJobStatus| s.retries_ignored == 1;
    let status = site
        .until("low", "to be preempted and opened again", preempted)
        .await;
    assert_eq!(class(&status, 0), Some(FailureClass::Preempted));
    delete_now(&site.pods(), "urgent").await;
    let status = site.ended("low").await;
    priorities
        .delete(&high, &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(reason(&status), "Completed", "{}", message(&status));
    assert_eq!(status.retries, 0, "not the job's fault");
    site.history.assert_clean();
}

#[tokio::test]
async fn a_drained_node_costs_the_job_no_retry() {
    let site = Site::alone("drain").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "[ $TRAINYARD_ATTEMPT = 2 ] || sleep 600"], "backoffLimit": 0,
    });
    site.submit("moved", spec).await;
    site.running("moved").await;
    let node = site.pods().get("moved-1-0").await.unwrap().spec.unwrap();
    let node = node.node_name.unwrap();
    let cordoned = Cordoned(node.clone());
    let uid = site
        .jobs()
        .get("moved")
        .await
        .unwrap()
        .metadata
        .uid
        .unwrap();
    let selector = format!("--pod-selector=trainyard.dev/job-uid={uid}");
    kubectl(&[
        "drain",
        &node,
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        &selector,
    ]);
    let drained = site.until("moved", "to be moved", |s| s.retries_ignored == 1);
    let status = drained.await;
    drop(cordoned);
    assert_eq!(class(&status, 0), Some(FailureClass::Evicted));
    let status = site.ended("moved").await;
    assert_eq!(reason(&status), "Completed", "{}", message(&status));
    assert_eq!(status.retries, 0);
}

/// A node that takes no pods until this is dropped, also where the test fails.
struct Cordoned(String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        kubectl(&["uncordon", &self.0]);
    }
}

fn kubectl(args: &[&str]) -> String {
    run(std::process::Command::new("kubectl").args(args))
}

/// A job that prefers node-1 a little, and there does what `on_node_1` says.
fn prefers_node_1(on_node_1: &str) -> Value {
    json!({
        "command": ["sh", "-c", format!("case $NODE in *1) {on_node_1};; *) echo fine;; esac")],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 60,
            "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]},
        }]}},
        "failurePolicy": at_once(),
    })
}

#[tokio::test]
async fn a_node_whose_gpu_fell_off_the_bus_is_avoided_by_the_next_attempt() {
    let site = Site::new("xid").await;
    let _operator = site.operator();
    let spec = prefers_node_1(
        "echo 'RuntimeError: CUDA error: uncorrectable ECC error encountered' >&2; exit 1",
    );
    site.submit("ecc", spec).await;
    let status = site.ended("ecc").await;
    assert_eq!(reason(&status), "Completed", "{status:#?}");
    assert_eq!(class(&status, 0), Some(FailureClass::GpuHardware));
    assert_eq!(status.attempts.len(), 2, "the second goes elsewhere");
    assert_eq!(status.avoided_nodes[0].name, "node-1");
    assert_eq!(status.retries, 0, "hardware is not charged");
    let decision = status.attempts[0].decision.clone().unwrap_or_default();
    assert!(decision.contains("on another node"), "{decision}");
}

#[tokio::test]
async fn a_node_that_fails_twice_without_a_word_is_avoided() {
    let site = Site::new("twice").await;
    let _operator = site.operator();
    site.submit("silent", prefers_node_1("exit 7")).await;
    let status = site.ended("silent").await;
    assert_eq!(reason(&status), "Completed", "{status:#?}");
    assert_eq!(status.attempts.len(), 3);
    assert_eq!(status.avoided_nodes[0].name, "node-1");
    assert_eq!(status.failures[&FailureClass::Unknown], 2);
}

#[tokio::test]
async fn a_hang_is_ended_and_retried_instead_of_holding_its_gpus_all_night() {
    let site = Site::new("hang").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "for i in 1 2 3 4; do echo step $i; sleep 1; done; [ $TRAINYARD_ATTEMPT = 2 ] || while :; do echo waiting; sleep 1; done"],
        "numNodes": 2, "progressTimeoutSeconds": 6, "progressPattern": "^ *step \\d+", "failurePolicy": at_once(),
    });
    site.submit("stuck", spec).await;
    let status = site.ended("stuck").await;
    assert_eq!(reason(&status), "Completed", "{status:#?}");
    assert_eq!(class(&status, 0), Some(FailureClass::Hang));
    assert_eq!(status.attempts.len(), 2);
    let ran = |n: usize| {
        let attempt = &status.attempts[n];
        let end = attempt.end_time.as_ref().unwrap().0;
        end.duration_since(attempt.start_time.0).as_secs()
    };
    assert!(ran(0) >= 9, "steps are progress: it had 4 s of them");
    site.history.assert_clean();
}

#[tokio::test]
async fn a_config_map_that_is_missing_as_a_volume_is_named_too() {
    let site = Site::new("volume").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["true"],
        "volumes": [{"name": "settings", "configMap": {"name": "hyperparameters"}}],
        "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
        "startDeadlineSeconds": 45,
    });
    site.submit("waits", spec).await;
    let status = site.ended("waits").await;
    assert_eq!(reason(&status), "StartDeadlineExceeded");
    assert_eq!(class(&status, 0), Some(FailureClass::ConfigError));
    let text = message(&status);
    assert!(text.contains("hyperparameters"), "{text}");
}

#[tokio::test]
async fn a_job_that_waits_for_gpus_says_how_many_are_free() {
    let site = Site::alone("gpus").await;
    let _operator = site.operator();
    // The operator of a single namespace may not see the pods of others; here it may.
    let role = format!("{}-operator-cluster", site.namespace);
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    let patch = json!([{"op": "add", "path": "/rules/-", "value": rule}]);
    run(std::process::Command::new("kubectl").args([
        "patch",
        "clusterrole",
        &role,
        "--type=json",
        "-p",
        &patch.to_string(),
    ]));
    let holds = json!({"command": ["sleep", "600"], "numNodes": 2, "gpusPerNode": 5});
    site.submit("holds", holds).await;
    site.running("holds").await;
    site.submit(
        "waits",
        json!({"command": ["true"], "gpusPerNode": 8, "startDeadlineSeconds": 300}),
    )
    .await;
    let told = |s: &TrainingJobStatus| {
        message(s).contains("needs 8 nvidia.com/gpu on one node; the largest has 3 free")
    };
    site.until("waits", "to say what is missing", told).await;
    site.submit("never", json!({"command": ["true"], "gpusPerNode": 64}))
        .await;
    let told = |s: &TrainingJobStatus| message(s).contains("has 8 in all: ask for fewer a node");
    site.until("never", "to say that no node has so many", told)
        .await;
}

#[tokio::test]
async fn a_platform_teams_rule_decides_and_a_bad_one_beside_it_is_reported() {
    let site = Site::new("rules").await;
    let rules = "rules:
- {name: weka-io, class: Storage, onExitCodes: [42], action: RetryIgnoreLimit, backoffBaseSeconds: 0, hint: tell the storage team}
- {name: broken, class: Storage, onLogPatterns: ['(?<name']}
";
    let maps: Api<ConfigMap> = Api::namespaced(site.client.clone(), &site.namespace);
    let name = format!("{}-failure-rules", site.namespace);
    let map = json!({"metadata": {"name": name}, "data": {"rules.yaml": rules}});
    let map = serde_json::from_value(map).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let _operator = site.operator();
    let command = json!(["sh", "-c", "[ $TRAINYARD_ATTEMPT = 2 ] || exit 42"]);
    site.submit("io", json!({"command": command, "backoffLimit": 0}))
        .await;
    let status = site.ended("io").await;
    assert_eq!(reason(&status), "Completed", "{}", message(&status));
    let first = &status.attempts[0];
    assert_eq!(first.class, Some(FailureClass::Storage));
    assert_eq!(first.rule.as_deref(), Some("weka-io"));
    assert_eq!(first.hint.as_deref(), Some("tell the storage team"));
    let events: Api<Event> = Api::namespaced(site.client.clone(), &site.namespace);
    eventually("an Event about the bad rule", || async {
        let events = events.list(&ListParams::default()).await.unwrap();
        let found = events.iter().any(|e| {
            e.reason.as_deref() == Some("BadFailureRule")
                && e.note.as_ref().is_some_and(|n| n.contains("broken"))
        });
        found.then_some(()).ok_or_else(|| "none".to_owned())
    })
    .await;
    // A change counts from the next failure on, without a restart.
    let patch = json!({"data": {"rules.yaml": "rules: [{name: final, class: UserError, onExitCodes: [42]}]"}});
    maps.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let spec = json!({"command": ["sh", "-c", "sleep 2; exit 42"]});
    site.submit("later", spec).await;
    assert_eq!(
        class(&site.ended("later").await, 0),
        Some(FailureClass::UserError)
    );
    // Without the ConfigMap the built-in rules decide again.
    maps.delete(&name, &DeleteParams::default()).await.unwrap();
    let spec = json!({"command": ["sh", "-c", "sleep 2; exit 42"], "backoffLimit": 0});
    site.submit("without", spec).await;
    assert_eq!(
        class(&site.ended("without").await, 0),
        Some(FailureClass::Unknown)
    );
}

#[tokio::test]
async fn the_rank_that_threw_is_blamed_and_not_the_seven_that_died_of_it() {
    // Sixteen processes that import torch: beside other tests they would take minutes.
    let site = Site::alone("blame").await;
    site.runtime("pytorch", "localhost/trainyard/pytorch:dev", "torchrun")
        .await;
    let _operator = site.operator();
    let program = "
import torch, torch.distributed as dist
dist.init_process_group('gloo')
rank = dist.get_rank()
for step in range(50):
    print('step', step, flush=True)
    if rank == 5 and step == 3:
        raise ValueError('expected 10 classes, got 12')
    dist.all_reduce(torch.ones(1000))
";
    let spec = json!({
        "runtimeRef": {"kind": "TrainingRuntime", "name": "pytorch"},
        "command": ["python", "-c", program], "numNodes": 8,
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
    });
    site.submit("gang", spec).await;
    let status = site.ended("gang").await;
    let cause = status.attempts[0].root_cause.clone().unwrap_or_default();
    assert_eq!(cause.rank, Some(5), "{status:#?}");
    assert_eq!(class(&status, 0), Some(FailureClass::UserError));
    assert!(
        cause.message.contains("expected 10 classes, got 12"),
        "{cause:?}"
    );
    assert_eq!(status.attempts.len(), 1, "{}", message(&status));
}
