//! Opening an attempt; jobs that are not ours to run.

use serde_json::json;

use super::builders::{Scene, at, create, job, pod, runtime};
use crate::{
    api::conditions,
    plan::{Effect, Plan, plan},
};

#[test]
fn a_missing_runtime_is_said_once_and_heals_by_itself() {
    let mut scene = Scene::new(job(1, json!({})));
    scene.seen.runtime = None;
    assert_eq!(scene.look(0), Plan::default());
    let message = "there is no ClusterTrainingRuntime named pytorch: create it, or correct spec.runtimeRef (kubectl get clustertrainingruntimes lists them); the job starts when it exists";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("RuntimeNotFound", message)
    );
    assert_eq!(scene.is(conditions::STALLED), "True");
    assert_eq!(scene.is(conditions::RECONCILING), "-");
    assert!(
        scene.status().start_time.is_none(),
        "the spec may still be edited"
    );
    // Looked at again much later: no write, no second event.
    scene.look(3600);
    assert_eq!(scene.events.len(), 1);
    assert!(scene.events[0].warning);

    scene.seen.runtime = Some(runtime());
    scene.seen.opened_here = true;
    assert_eq!(scene.look(3601).effects, [create(1, 0)]);
    assert_eq!(scene.reason(), "Starting");
    assert_eq!(scene.is(conditions::STALLED), "-");
    assert_eq!(scene.is(conditions::RECONCILING), "True");
}

#[test]
fn a_namespaced_runtime_that_is_missing_is_named_by_its_own_kind() {
    let spec = json!({"runtimeRef": {"name": "mine", "kind": "TrainingRuntime"}});
    let mut scene = Scene::new(job(1, spec));
    scene.seen.runtime = None;
    scene.look(0);
    let message = "there is no TrainingRuntime named mine: create it, or correct spec.runtimeRef (kubectl get trainingruntimes lists them); the job starts when it exists";
    assert_eq!(scene.message(), message);
}

#[test]
fn an_edited_runtime_does_not_change_a_started_job() {
    let mut scene = Scene::started(2, json!({}));
    assert_eq!(scene.status().runtime, Some(runtime()));
    assert_eq!(scene.status().start_time.as_ref().unwrap().0, at(0));
    assert_eq!(
        scene.message(),
        "attempt 1 starts: 2 nodes on runtime pytorch"
    );
    let mut edited = runtime();
    edited.spec.image = "elsewhere".into();
    scene.seen.runtime = Some(edited);
    scene.look(5);
    assert_eq!(scene.status().runtime, Some(runtime()));
    scene.seen.runtime = None;
    scene.look(6);
    assert_eq!(scene.reason(), "Starting", "nor does its deletion");
}

#[test]
fn an_attempt_is_counted_before_its_first_pod_is_created() {
    let fresh = job(2, json!({}));
    let scene = Scene::new(fresh.clone());
    let mut seen = scene.seen;
    seen.opened_here = true;
    let first = plan(&fresh, &seen, at(0));
    assert_eq!(
        first.effects,
        [],
        "nothing is created by the plan that counts"
    );
    let status = first.record.unwrap().status;
    assert_eq!(status.attempts.last().unwrap().number, 1);
}

#[test]
fn a_job_of_another_controller_or_one_being_deleted_is_left_alone() {
    let other = job(1, json!({"managedBy": "kueue.x-k8s.io/multikueue"}));
    let mut deleted = Scene::running(1, json!({})).job;
    deleted.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    for job in [other, deleted] {
        let mut scene = Scene::new(job);
        scene.seen.opened_here = true;
        scene.pods([pod(1, 0).ended(1, "boom", 3)]);
        assert_eq!(plan(&scene.job, &scene.seen, at(9)), Plan::default());
    }
    let ours = job(1, json!({"managedBy": "trainyard.dev/operator"}));
    assert!(
        plan(&ours, &Scene::new(ours.clone()).seen, at(0))
            .record
            .is_some()
    );
}

#[test]
fn a_gang_gets_a_service_and_a_single_node_none() {
    let mut gang = Scene::started(2, json!({}));
    let effects = [Effect::CreateService, create(1, 0), create(1, 1)];
    assert_eq!(gang.look(0).effects, effects);
    let mut single = Scene::started(1, json!({}));
    assert_eq!(single.look(0).effects, [create(1, 0)]);
}
