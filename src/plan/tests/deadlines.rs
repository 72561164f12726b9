//! activeDeadlineSeconds, ttlSecondsAfterFinished, and that an end is an end.

use serde_json::json;

use super::builders::{Scene, delete, pod};
use crate::plan::{Effect, Plan, PodFacts};

#[test]
fn a_job_that_runs_too_long_is_stopped_to_the_second() {
    let mut scene = Scene::running(2, json!({"activeDeadlineSeconds": 60}));
    assert_eq!(scene.look(10).requeue.unwrap().as_secs(), 50);
    assert_eq!(scene.look(60).effects, [delete(1, 0), delete(1, 1)]);
    let message = "attempt 1 failed: the job did not finish within activeDeadlineSeconds (60 s), retries included; not retried: the job's time is up";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("DeadlineExceeded", message)
    );
    assert_eq!(scene.is("Succeeded"), "False");
}

#[test]
fn a_failure_seen_after_the_deadline_is_not_hidden_by_it() {
    let mut scene = Scene::running(1, json!({"activeDeadlineSeconds": 60}));
    scene.pods([pod(1, 0).ended(1, "ValueError: bad lr", 40)]);
    scene.look(61);
    let message = "attempt 1 failed: rank 0 (pod ddp-1-0 on node gpu-0) exited with code 1: ValueError: bad lr; not retried: the job's time is up";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("DeadlineExceeded", message)
    );
}

#[test]
fn an_attempt_that_never_began_leaves_no_trace_when_the_time_is_up() {
    let spec = json!({"activeDeadlineSeconds": 60, "failurePolicy": {"backoffBaseSeconds": 500}});
    let mut scene = Scene::running(1, spec);
    scene.pods([pod(1, 0).ended(1, "boom", 5)]);
    assert_eq!(scene.look(5).requeue.unwrap().as_secs(), 55);
    scene.look(60);
    let message = "the job did not finish within activeDeadlineSeconds (60 s), retries included; it was waiting for a retry, after attempt 1 had failed with Error; not retried: the job's time is up";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("DeadlineExceeded", message)
    );
    assert_eq!(scene.ledger().len(), 1);
    assert_eq!(scene.status().next_retry_time, None);
}

#[test]
fn a_finished_job_is_deleted_when_its_time_to_live_is_over_and_not_before() {
    let mut scene = Scene::running(1, json!({"ttlSecondsAfterFinished": 100}));
    scene.pods([pod(1, 0).ended(0, "", 9)]);
    assert_eq!(scene.look(10).requeue.unwrap().as_secs(), 100);
    let later = scene.look(109);
    assert_eq!(
        (later.effects, later.requeue.unwrap().as_secs()),
        (vec![], 1)
    );
    assert_eq!(scene.look(110).effects, [Effect::DeleteJob]);
    // A failed job too, and ttl may be set or changed after the end.
    let mut failed = Scene::running(1, json!({"backoffLimit": 0}));
    failed.pods([pod(1, 0).ended(1, "boom", 9)]);
    assert_eq!(failed.look(1000), Plan::default());
    failed.job.spec.ttl_seconds_after_finished = Some(0);
    assert_eq!(failed.look(1000).effects, [Effect::DeleteJob]);
}

#[test]
fn a_time_to_live_that_no_clock_can_hold_keeps_the_job() {
    let mut scene = Scene::running(1, json!({"ttlSecondsAfterFinished": 99_999_999_999_i64}));
    scene.pods([pod(1, 0).ended(0, "", 9)]);
    assert_eq!(scene.look(10).effects, []);
}

#[test]
fn a_finished_job_stops_its_leftovers_and_starts_nothing_ever_again() {
    let mut scene = Scene::running(2, json!({"backoffLimit": 0}));
    scene.pods([pod(1, 0).ended(1, "boom", 5), pod(1, 1).running()]);
    assert_eq!(scene.look(6).effects, [delete(1, 1)]);
    let end = scene.status().clone();
    scene.job.spec.backoff_limit = 9;
    for pods in [
        vec![],
        vec![pod(1, 0).ended(0, "", 7), pod(1, 1).ended(0, "", 7)],
        vec![pod(1, 1).running().deleted(6)],
    ] {
        scene.pods(pods);
        for suspend in [true, false] {
            scene.job.spec.suspend = suspend;
            assert_eq!(scene.look(99_999).effects, []);
        }
    }
    assert_eq!(scene.status(), &end);
}

#[test]
fn an_end_is_announced_once() {
    let mut scene = Scene::running(1, json!({}));
    scene.all(1, |p: PodFacts| p.ended(0, "", 5));
    for now in 6..20 {
        scene.look(now);
    }
    let ends = scene.events.iter().filter(|e| e.reason == "Completed");
    assert_eq!(ends.count(), 1);
}
