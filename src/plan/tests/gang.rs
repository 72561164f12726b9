//! Creating the pods of an attempt: by whom, when, and what if the API server refuses.

use serde_json::json;

use super::builders::{Scene, at, create, delete, job, pod};
use crate::plan::{Effect, PodFacts, Refusal, plan};

#[test]
fn a_successor_never_creates_a_pod_that_may_have_existed_before() {
    let mut scene = Scene::started(2, json!({}));
    scene.seen.opened_here = false; // restarted
    scene.pods([pod(1, 0).running()]);
    let effects = scene.look(5).effects;
    let message = "attempt 1 failed: trainyard's operator was restarted before all pods of the attempt were created; started again at once, not charged to backoffLimit";
    assert_eq!(scene.message(), message);
    assert_eq!(
        (scene.status().retries, scene.status().retries_ignored),
        (0, 1)
    );
    assert_eq!(scene.status().open_attempt().unwrap().number, 2);
    assert_eq!(
        effects,
        [delete(1, 0)],
        "the half of the gang that runs is stopped first"
    );
}

#[test]
fn a_successor_follows_a_gang_that_is_complete() {
    let mut scene = Scene::started(2, json!({}));
    scene.seen.opened_here = false;
    scene.all(1, PodFacts::running);
    scene.look(5);
    assert_eq!(
        (scene.reason(), scene.status().retries_ignored),
        ("Running", 0)
    );
}

#[test]
fn restarts_of_the_operator_do_not_repeat_a_job_for_ever() {
    let mut scene = Scene::started(1, json!({}));
    scene.seen.opened_here = false;
    let mut status = scene.status().clone();
    status.retries_ignored = 50;
    scene.job.status = Some(status);
    scene.look(5);
    assert_eq!(scene.reason(), "TooManyInterruptions");
    assert_eq!(scene.is("Succeeded"), "False");
}

#[test]
fn a_pod_deleted_before_the_gang_is_complete_is_not_created_again() {
    let mut scene = Scene::started(2, json!({}));
    scene.seen.created = [0].into();
    assert_eq!(
        scene.look(1).effects,
        [],
        "attempt 1 has failed, attempt 2 waits"
    );
    let cause = scene.status().attempts[0].root_cause.clone().unwrap();
    assert_eq!((cause.reason.as_str(), cause.rank), ("PodDeleted", Some(0)));
    let message = "attempt 1 failed: rank 0 (pod ddp-1-0) was deleted before it had ended; the API server's audit log says by whom; started again in 9 s, not charged to backoffLimit";
    assert_eq!(scene.message(), message);
}

#[test]
fn pods_already_there_are_not_created_twice() {
    let mut scene = Scene::started(3, json!({}));
    scene.pods([pod(1, 1)]);
    scene.seen.created = [1].into();
    assert_eq!(scene.look(1).effects, [create(1, 0), create(1, 2)]);
}

#[test]
fn a_rank_that_fails_before_the_others_exist_ends_the_attempt() {
    let mut scene = Scene::started(2, json!({}));
    scene.pods([pod(1, 0).ended(1, "boom", 2)]);
    assert_eq!(scene.look(3).effects, []);
    assert_eq!(scene.status().retries, 1);
}

/// Attempt 2 is due at 0 and attempt 1's pods are `earlier`.
fn second(earlier: Vec<PodFacts>) -> Scene {
    let mut scene = Scene::running(2, json!({"failurePolicy": {"backoffBaseSeconds": 0}}));
    scene.pods([pod(1, 0).ended(1, "boom", 0), pod(1, 1).running()]);
    scene.look(0);
    scene.pods(earlier);
    scene
}

#[test]
fn two_attempts_never_run_at_once() {
    let dead = pod(1, 0).ended(1, "boom", 0);
    let mut scene = second(vec![dead.clone(), pod(1, 1).running()]);
    assert_eq!(scene.look(1).effects, [delete(1, 1)]);
    scene.pods([dead.clone(), pod(1, 1).running().deleted(1)]);
    let wait = scene.look(2);
    assert_eq!(wait.effects, [], "asked once");
    assert_eq!(
        wait.requeue.unwrap().as_secs(),
        59,
        "grace and patience of 30 s each"
    );
    scene.pods([dead, pod(1, 1).ended(0, "", 5).deleted(1)]);
    let effects = [Effect::CreateService, create(2, 0), create(2, 1)];
    assert_eq!(scene.look(6).effects, effects);
}

#[test]
fn a_pod_on_a_dead_node_does_not_hold_up_the_job_for_ever() {
    let mut scene = second(vec![pod(1, 1).running().deleted(1)]);
    assert_eq!(scene.look(60).effects, []);
    assert_eq!(
        scene.look(61).effects.len(),
        3,
        "out of reach: the next attempt starts"
    );
}

#[test]
fn the_next_attempt_waits_out_its_backoff_to_the_second() {
    let mut scene = Scene::running(1, json!({}));
    scene.pods([pod(1, 0).ended(1, "boom", 5)]);
    let wait = scene.look(5);
    let start = scene.next_start();
    assert_eq!(
        wait.requeue.unwrap().as_secs(),
        u64::try_from(start - 5).unwrap()
    );
    assert_eq!(scene.look(start - 1).effects, []);
    assert_eq!(scene.look(start).effects, [create(2, 0)]);
}

fn refused(spec: serde_json::Value, permanent: bool) -> Scene {
    let mut scene = Scene::started(2, spec);
    scene.seen.refusal = Some(Refusal {
        message: "exceeded quota: gpus, requested: 8, used: 60, limited: 64".into(),
        permanent,
    });
    scene
}

#[test]
fn a_quota_that_is_full_is_shown_and_tried_again() {
    let mut scene = refused(json!({}), false);
    let effects = scene.look(1).effects;
    let message = "attempt 1 starts: the API server does not take the job's pods: exceeded quota: gpus, requested: 8, used: 60, limited: 64";
    assert_eq!((scene.reason(), scene.message()), ("Starting", message));
    assert_eq!(
        scene.status().condition("PodsReady").unwrap().reason,
        "PodsRefused"
    );
    assert_eq!(effects.len(), 3);
    scene.seen.refusal = None;
    scene.all(1, PodFacts::running);
    scene.look(9);
    assert_eq!(scene.reason(), "Running");
}

#[test]
fn a_full_quota_does_not_outlast_the_start_deadline() {
    let mut scene = refused(json!({"startDeadlineSeconds": 60}), false);
    assert_eq!(scene.look(10).requeue.unwrap().as_secs(), 50);
    scene.look(60);
    let message = "attempt 1 failed: the API server does not take the job's pods: exceeded quota: gpus, requested: 8, used: 60, limited: 64; not retried: the nodes did not start in time";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("StartDeadlineExceeded", message)
    );
}

#[test]
fn a_pod_that_will_never_be_taken_fails_the_job_at_once() {
    let mut scene = refused(json!({}), true);
    assert_eq!(scene.look(1).effects, []);
    assert_eq!(
        (scene.reason(), scene.is("Stalled")),
        ("InvalidPod", "True")
    );
}

#[test]
fn pods_of_a_clock_that_runs_ahead_are_not_replaced_by_others_of_their_number() {
    // Another replica, its clock ahead, has opened attempt 2 and created its pods before "now".
    let mut scene = Scene::running(1, json!({}));
    scene.pods([pod(1, 0).ended(1, "boom", 5)]);
    scene.look(5);
    let early = scene.next_start() - 3;
    scene.seen.opened_here = false;
    scene.pods([pod(2, 0).ended(1, "boom again", early)]);
    scene.look(early);
    let numbers: Vec<i32> = scene.ledger().iter().map(|l| l.0).collect();
    assert_eq!(numbers, [1, 2, 3], "attempt 2 has run");
    assert_eq!(scene.status().retries, 2);

    let mut suspended = Scene::running(1, json!({}));
    suspended.pods([pod(1, 0).ended(1, "boom", 5)]);
    suspended.look(5);
    suspended.pods([pod(2, 0).running()]);
    suspended.job.spec.suspend = true;
    suspended.look(6);
    assert_eq!(suspended.ledger().len(), 2, "its number is used up");
}

#[test]
fn nothing_is_planned_from_pods_alone() {
    let fresh = job(1, json!({}));
    let mut scene = Scene::new(fresh);
    scene.pods([pod(1, 0).running()]);
    let plan = plan(&scene.job, &scene.seen, at(0));
    assert!(plan.record.is_some() && plan.effects.is_empty());
}

#[test]
fn a_pod_of_an_earlier_attempt_that_shows_up_late_is_stopped() {
    let mut scene = second(vec![]);
    scene.pods([
        pod(2, 0).running(),
        pod(2, 1).running(),
        pod(1, 1).running(),
    ]);
    assert_eq!(scene.look(9).effects, [delete(1, 1)]);
    assert_eq!(scene.reason(), "Running", "and the gang goes on");
}
