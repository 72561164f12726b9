//! spec.suspend.

use serde_json::json;

use super::builders::{Scene, at, create, delete, job, pod};
use crate::plan::Plan;

#[test]
fn a_job_created_suspended_starts_nothing_until_it_is_resumed() {
    let mut scene = Scene::new(job(1, json!({"suspend": true})));
    scene.seen.opened_here = true;
    assert_eq!(scene.look(0), Plan::default());
    assert_eq!(
        (scene.reason(), scene.is("Suspended")),
        ("Suspended", "True")
    );
    assert_eq!(scene.status().attempts, []);
    scene.job.spec.suspend = false;
    assert_eq!(scene.look(100).effects, [create(1, 0)]);
    assert_eq!(scene.is("Suspended"), "False");
    assert_eq!(scene.status().start_time.as_ref().unwrap().0, at(100));
}

#[test]
fn suspending_frees_the_nodes_and_is_not_charged() {
    let mut scene = Scene::running(2, json!({"activeDeadlineSeconds": 60}));
    scene.job.spec.suspend = true;
    assert_eq!(scene.look(10).effects, [delete(1, 0), delete(1, 1)]);
    assert_eq!(
        scene.status().start_time,
        None,
        "the spec may be edited, deadlines do not run"
    );
    let message = "suspended by spec.suspend: nothing runs until it is set to false";
    assert_eq!((scene.reason(), scene.message()), ("Suspended", message));
    let stopped = "stopped: the job was suspended; not charged";
    assert_eq!(scene.ledger(), [(1, true, Some(stopped))]);

    scene.pods([
        pod(1, 0).running().deleted(10),
        pod(1, 1).ended(143, "", 11),
    ]);
    assert_eq!(scene.look(1000).effects, []);
    scene.job.spec.suspend = false;
    scene.pods([pod(1, 1).ended(143, "", 11)]);
    let effects = scene.look(1001).effects;
    assert!(effects.contains(&create(2, 0)), "{effects:?}");
    let status = scene.status();
    assert_eq!((status.retries, status.retries_ignored), (0, 0));
    assert_eq!(
        status.start_time.as_ref().unwrap().0,
        at(1001),
        "the deadline begins anew"
    );
}

#[test]
fn a_job_suspended_in_its_backoff_keeps_its_count_and_uses_the_number_later() {
    let mut scene = Scene::running(1, json!({}));
    scene.pods([pod(1, 0).ended(1, "boom", 5)]);
    scene.look(5);
    scene.job.spec.suspend = true;
    scene.look(6);
    assert_eq!(scene.status().retries, 1);
    assert_eq!(scene.status().next_retry_time, None);
    assert_eq!(scene.ledger().len(), 1, "attempt 2 never was");
    scene.job.spec.suspend = false;
    assert_eq!(scene.look(50).effects, [create(2, 0)]);
    assert_eq!(scene.status().retries, 1);
}

#[test]
fn pods_that_are_still_stopping_are_waited_for_on_resume() {
    let mut scene = Scene::running(1, json!({}));
    scene.job.spec.suspend = true;
    scene.look(5);
    scene.job.spec.suspend = false;
    scene.pods([pod(1, 0).running().deleted(5)]);
    assert_eq!(scene.look(6).effects, []);
    scene.pods([]);
    assert_eq!(scene.look(9).effects, [create(2, 0)]);
}

#[test]
fn an_edit_while_suspended_is_what_the_job_resumes_with() {
    let mut scene = Scene::running(1, json!({}));
    scene.job.spec.suspend = true;
    scene.look(5);
    scene.pods([]);
    scene.job.metadata.generation = Some(2);
    scene.job.spec.num_nodes = 2;
    scene.look(6);
    assert_eq!(scene.status().observed_generation, Some(2));
    scene.job.spec.suspend = false;
    assert_eq!(scene.look(7).effects.len(), 3);
}
