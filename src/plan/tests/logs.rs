//! Pods are kept until their lines are stored, and the status says what is stored.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::builders::{Scene, at, delete, pod};
use crate::{
    api::LogsStatus,
    plan::{Effect, PodFacts, may_go_alone},
};

const PATIENCE: i64 = 60;

impl PodFacts {
    fn stopping(mut self) -> Self {
        self.stopping = true;
        self
    }

    fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// The collector says so of it.
    fn stored(mut self, complete: bool, lines: i64, gaps: i64) -> Self {
        self.logs = Some(LogsStatus {
            complete,
            lines,
            bytes: lines * 10,
            gaps,
        });
        self
    }
}

/// Two nodes run, and a collector is there.
fn collected(spec: serde_json::Value) -> Scene {
    let mut scene = Scene::running(2, spec);
    scene.seen.log_drain = Some(SignedDuration::from_secs(PATIENCE));
    scene
}

/// The next attempt is far away.
fn later() -> serde_json::Value {
    json!({"failurePolicy": {"backoffBaseSeconds": 600, "backoffMaxSeconds": 600}})
}

fn stop(attempt: i32, rank: i32) -> Effect {
    Effect::StopPod {
        name: format!("ddp-{attempt}-{rank}"),
        uid: format!("pod-{attempt}-{rank}"),
    }
}

fn release(attempt: i32, rank: i32) -> Effect {
    Effect::ReleasePod {
        name: format!("ddp-{attempt}-{rank}"),
        uid: format!("pod-{attempt}-{rank}"),
    }
}

fn sum(complete: bool, lines: i64, gaps: i64) -> LogsStatus {
    LogsStatus {
        complete,
        lines,
        bytes: lines * 10,
        gaps,
    }
}

#[test]
fn a_job_says_that_its_logs_are_complete_only_when_every_rank_is_proven() {
    let mut scene = collected(json!({}));
    let done = |rank| pod(1, rank).ended(0, "", 50).held();
    scene.pods([done(0), done(1)]);
    scene.look(51);
    assert_eq!(scene.is("Succeeded"), "True");
    assert_eq!(scene.is("LogsComplete"), "Unknown");
    scene.pods([done(0).stored(true, 5, 0), done(1)]);
    scene.look(52);
    assert_eq!(scene.is("LogsComplete"), "Unknown");
    scene.pods([done(0).stored(true, 5, 0), done(1).stored(true, 7, 0)]);
    assert_eq!(scene.look(53).requeue, None);
    assert_eq!(scene.is("LogsComplete"), "True");
    assert_eq!(scene.status().logs, Some(sum(true, 12, 0)));
    assert_eq!(scene.status().attempts[0].logs, Some(sum(true, 12, 0)));
}

#[test]
fn lines_that_are_missing_are_said_to_be_and_the_user_gets_an_event() {
    let mut scene = collected(json!({}));
    let done = |rank| pod(1, rank).ended(0, "", 50).held();
    scene.pods([done(0).stored(true, 5, 0), done(1).stored(false, 7, 2)]);
    scene.look(51);
    assert_eq!(scene.is("LogsComplete"), "False");
    assert_eq!(scene.status().logs, Some(sum(false, 12, 2)));
    let event = scene.events.last().unwrap();
    assert_eq!((event.warning, event.reason), (true, "GapRecorded"));
    assert!(event.note.contains("in 2 places"), "{}", event.note);
}

#[test]
fn a_collector_that_is_silent_does_not_hold_a_job_for_ever_and_is_believed_when_it_speaks() {
    let mut scene = collected(json!({"ttlSecondsAfterFinished": 3600}));
    let done = |rank| pod(1, rank).ended(0, "", 50).held();
    scene.pods([done(0), done(1)]);
    let wait = scene.look(51).requeue.unwrap();
    assert_eq!(wait.as_secs(), 60);
    scene.look(51 + PATIENCE);
    let condition = scene.status().condition("LogsComplete").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "NotReported")
    );
    assert!(!scene.status().logs_settled(), "it may still be corrected");
    scene.pods([done(0).stored(true, 5, 0), done(1).stored(true, 7, 0)]);
    scene.look(500);
    assert_eq!(scene.is("LogsComplete"), "True");
    assert_eq!(scene.look(51 + 3600).effects, [Effect::DeleteJob]);
}

#[test]
fn a_job_whose_time_to_live_is_over_waits_for_its_logs() {
    let mut scene = collected(json!({"ttlSecondsAfterFinished": 0}));
    let done = |rank| pod(1, rank).ended(0, "", 50).held();
    scene.pods([done(0), done(1).stored(true, 1, 0)]);
    assert_eq!(scene.look(51).effects, []);
    scene.pods([done(0).stored(true, 1, 0), done(1).stored(true, 1, 0)]);
    assert_eq!(scene.look(52).effects, [Effect::DeleteJob]);
}

#[test]
fn a_rank_that_is_stopped_keeps_its_log_until_its_lines_are_counted() {
    let mut scene = collected(later());
    let failed = pod(1, 0).ended(1, "boom", 50).held();
    let running = pod(1, 1).running();
    scene.pods([failed.clone(), running.clone()]);
    assert_eq!(scene.look(51).effects, [stop(1, 1)]);
    scene.pods([failed.clone(), running.stopping()]);
    assert_eq!(scene.look(52).effects, []);
    let stopped = pod(1, 1).ended(143, "", 52).stopping();
    scene.pods([failed.clone(), stopped.clone().stored(true, 9, 0)]);
    assert_eq!(scene.look(53).effects, [], "rank 0 is not counted yet");
    scene.pods([failed.stored(true, 4, 0), stopped.stored(true, 9, 0)]);
    assert_eq!(scene.look(54).effects, [delete(1, 1)]);
    assert_eq!(scene.status().logs, Some(sum(false, 13, 0)));
    assert_eq!(scene.status().attempts[0].logs, Some(sum(true, 13, 0)));
}

#[test]
fn a_rank_whose_kubelet_does_not_stop_it_is_deleted_after_its_grace_period() {
    let mut scene = collected(later());
    let failed = pod(1, 0).ended(1, "boom", 50).held();
    scene.pods([failed, pod(1, 1).running().stopping()]);
    let wait = scene.look(51).requeue.unwrap();
    assert_eq!(wait.as_secs(), 30 + 30);
    assert_eq!(scene.look(51 + 60).effects, [delete(1, 1)]);
}

#[test]
fn a_rank_that_was_stopped_and_whose_log_nobody_reads_is_deleted_after_its_time() {
    let mut scene = collected(later());
    let failed = pod(1, 0).ended(1, "boom", 50).held().stored(true, 4, 0);
    scene.pods([
        failed.clone(),
        pod(1, 1).ended(143, "", 52).stopping().held(),
    ]);
    let wait = scene.look(53).requeue.unwrap();
    assert_eq!(wait.as_secs(), 59);
    assert_eq!(scene.look(52 + 60).effects, [delete(1, 1)]);
    assert_eq!(scene.status().attempts[0].logs, Some(sum(false, 4, 1)));
    scene.pods([
        failed,
        pod(1, 1).ended(143, "", 52).stopping().held().deleted(112),
    ]);
    assert_eq!(scene.look(113).effects, [release(1, 1)]);
}

#[test]
fn a_rank_that_has_no_log_yet_is_deleted_at_once() {
    let mut scene = collected(later());
    let mut starting = pod(1, 1);
    starting.accepted = None;
    scene.pods([pod(1, 0).ended(1, "boom", 50), starting]);
    assert_eq!(scene.look(51).effects, [delete(1, 1)]);
}

#[test]
fn a_pod_that_someone_deletes_stays_until_its_lines_are_counted() {
    let mut scene = collected(later());
    let other = pod(1, 0).ended(1, "lost its peer", 52).held();
    let ending = pod(1, 1).ended(143, "", 52).deleted(51).held();
    scene.pods([other.clone(), ending.clone()]);
    assert_eq!(scene.look(52).effects, []);
    scene.pods([other.clone(), ending.clone().stored(true, 9, 0)]);
    assert_eq!(scene.look(53).effects, [], "rank 0 is not counted yet");
    scene.pods([other.stored(true, 4, 0), ending.stored(true, 9, 0)]);
    assert_eq!(scene.look(54).effects, [release(1, 1)]);
}

#[test]
fn a_pod_whose_log_nobody_reads_goes_after_its_time_and_counts_as_a_gap() {
    let mut scene = collected(later());
    let failed = pod(1, 0).ended(1, "boom", 50).held().stored(true, 4, 0);
    let ending = pod(1, 1).ended(143, "", 70).deleted(51).held();
    scene.pods([failed, ending]);
    // Its grace of 30 s was over at 81; from then on it has its time.
    let plan = scene.look(100);
    assert_eq!(plan.effects, []);
    assert_eq!(plan.requeue.unwrap().as_secs(), 41);
    assert_eq!(scene.look(141).effects, [release(1, 1)]);
    assert_eq!(scene.status().attempts[0].logs, Some(sum(false, 4, 1)));
}

#[test]
fn a_pod_that_never_ran_holds_up_nobody() {
    let mut scene = collected(json!({}));
    scene.job.spec.suspend = true;
    let mut waiting = pod(1, 1).held().deleted(10);
    waiting.node = None;
    scene.pods([
        pod(1, 0).ended(143, "", 11).held().stored(true, 2, 0),
        waiting.clone(),
    ]);
    assert!(!waiting.alive(at(10)));
    assert_eq!(scene.look(12).effects, [release(1, 1)]);
    assert_eq!(scene.status().logs, Some(sum(false, 2, 0)));
}

#[test]
fn a_pod_of_a_job_that_is_gone_waits_for_its_log_and_for_nothing_else() {
    let scene = collected(json!({}));
    let ended = pod(1, 0).ended(143, "", 11).deleted(10).held();
    let may_go = |pod: &PodFacts, now| may_go_alone(pod, &scene.seen, at(now));
    assert!(!may_go(&pod(1, 0).running().deleted(10).held(), 11));
    assert!(!may_go(&ended, 12));
    assert!(may_go(&ended.clone().stored(true, 1, 0), 12));
    assert!(may_go(&ended, 40 + PATIENCE));
}

#[test]
fn a_job_that_is_being_deleted_lets_its_pods_go_one_by_one() {
    let mut scene = collected(json!({}));
    scene.job.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(10)));
    let ended = |rank| pod(1, rank).ended(143, "", 11).deleted(10).held();
    scene.pods([ended(0), ended(1).stored(true, 1, 0)]);
    let plan = crate::plan::plan(&scene.job, &scene.seen, at(12));
    assert_eq!(plan.effects, [release(1, 1)]);
    assert_eq!(plan.record, None);
}

#[test]
fn attempts_that_the_ledger_forgets_before_their_logs_are_settled_are_gaps() {
    let mut scene =
        collected(json!({"backoffLimit": 20, "failurePolicy": {"backoffBaseSeconds": 0}}));
    let mut pods = Vec::new();
    for n in 1..=12 {
        pods.extend([0, 1].map(|rank| pod(n, rank).ended(1, "boom", 50).held()));
        scene.pods(pods.clone());
        scene.seen.created = [0, 1].into();
        scene.look(60 + i64::from(n));
    }
    assert_eq!(scene.status().attempts.len(), 10);
    assert_eq!(scene.status().logs.unwrap().gaps, 12 - 9);
}

#[test]
fn without_a_collector_a_long_ledger_says_nothing_of_logs() {
    let mut scene = Scene::running(
        1,
        json!({"backoffLimit": 20, "failurePolicy": {"backoffBaseSeconds": 0}}),
    );
    for n in 1..=12 {
        scene.pods([pod(n, 0).ended(1, "boom", 50)]);
        scene.seen.created = [0].into();
        scene.look(60 + i64::from(n));
    }
    assert_eq!(scene.status().attempts.len(), 10);
    assert_eq!(scene.status().logs, None);
}

#[test]
fn without_a_collector_nothing_is_said_of_logs() {
    let mut scene = Scene::running(2, json!({}));
    scene.all(1, |pod| pod.ended(0, "", 50));
    assert_eq!(scene.look(51).requeue, None);
    assert_eq!(scene.is("LogsComplete"), "-");
    assert_eq!(scene.status().logs, None);
}
