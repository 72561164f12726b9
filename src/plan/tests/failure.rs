//! What is asked when an attempt has failed, how its class is judged, and what that costs the job.

use std::collections::BTreeMap;

use serde_json::json;

use super::builders::{Scene, at, create, job, pod};
use crate::{
    api::{FailureClass, MAX_AVOIDED, TrainingJobStatus, conditions},
    plan::{Effect, MAX_TAILS, PodFacts, Question, plan},
};

const USER_ERROR: &[u8] = b"epoch 1\nTraceback (most recent call last):\n  File \"train.py\", line 7, in <module>\n    main()\nValueError: expected 10 classes\n";
const LOST_PEER: &[u8] = b"RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.88.0.7]:43211\n";
const ECC: &[u8] = b"RuntimeError: CUDA error: uncorrectable ECC error encountered\n";

fn asked_ranks(scene: &Scene) -> Vec<Vec<i32>> {
    let ranks = scene.asked.iter().filter_map(|q| match q {
        Question::Evidence { ranks } => Some(ranks.clone()),
        _ => None,
    });
    ranks.collect()
}

/// Runs attempt after attempt, each failing on node `node` with `log`, until the job has ended or
/// `most` have failed.
fn fail(scene: &mut Scene, log: &[u8], node: &str, most: usize) {
    for _ in 0..most {
        let Some(open) = scene.job.status.as_ref().and_then(|s| s.open_attempt()) else {
            return;
        };
        let (number, now) = (open.number, scene.next_start());
        scene.logs = BTreeMap::from([(0, log.to_vec())]);
        scene.pods([PodFacts {
            node: Some(node.into()),
            ..pod(number, 0).ended(1, "", now + 1)
        }]);
        scene.look(now + 1);
    }
}

fn count(status: &TrainingJobStatus, class: FailureClass) -> i32 {
    status.failures.get(&class).copied().unwrap_or(0)
}

#[test]
fn a_user_error_costs_one_attempt() {
    let mut scene = Scene::started(1, json!({}));
    fail(&mut scene, USER_ERROR, "gpu-1", 9);
    assert_eq!(scene.reason(), "NotRetryable");
    let status = scene.status();
    assert_eq!((status.attempts.len(), status.retries), (1, 0));
    let attempt = &status.attempts[0];
    assert_eq!(attempt.class, Some(FailureClass::UserError));
    assert!(attempt.rule.is_some() && attempt.hint.is_some());
    assert_eq!(
        attempt.decision.as_deref(),
        Some("not retried: a user error, which every attempt would repeat")
    );
    assert!(scene.message().contains("ValueError: expected 10 classes"));
}

#[test]
fn failed_hardware_is_not_charged_has_its_own_ceiling_and_its_node_is_avoided() {
    let mut scene = Scene::started(1, json!({"backoffLimit": 0}));
    fail(&mut scene, ECC, "gpu-1", 1);
    let status = scene.status();
    assert_eq!((status.retries, status.retries_ignored), (0, 1));
    assert_eq!(status.avoided_nodes[0].name, "gpu-1");
    assert!(scene.message().contains(" on another node, not charged"));
    fail(&mut scene, ECC, "gpu-2", 30);
    assert_eq!(scene.reason(), "MaxRetriesExceeded", "{}", scene.message());
    let status = scene.status();
    assert_eq!(
        count(status, FailureClass::GpuHardware),
        status.retries_ignored + 1
    );
    assert!(
        scene
            .message()
            .contains("retries for GpuHardware are spent")
    );
}

#[test]
fn nodes_are_avoided_for_a_day_and_not_more_than_a_few_at_once() {
    let rule = json!({"class": "GpuHardware", "maxRetries": 50});
    let spec = json!({"failurePolicy": {"backoffBaseSeconds": 0, "backoffMaxSeconds": 0, "classes": [rule]}});
    let mut scene = Scene::started(1, spec);
    for n in 0..MAX_AVOIDED + 3 {
        fail(&mut scene, ECC, &format!("gpu-{n}"), 1);
    }
    let names: Vec<&str> = (scene.status().avoided_nodes.iter())
        .map(|n| n.name.as_str())
        .collect();
    assert_eq!(names.len(), MAX_AVOIDED);
    assert_eq!(names.last(), Some(&"gpu-10"), "the newest");
    // A day later none is left.
    let number = scene.status().open_attempt().unwrap().number;
    let day = scene.next_start() + 25 * 3600;
    scene.logs.clear();
    scene.pods([pod(number, 0)
        .disrupted("PreemptionByScheduler", "")
        .ended(137, "", day)]);
    scene.look(day);
    assert_eq!(scene.status().avoided_nodes, []);
}

#[test]
fn a_node_where_the_job_failed_twice_without_a_word_is_avoided() {
    let mut scene = Scene::started(1, json!({}));
    fail(&mut scene, b"", "gpu-1", 1);
    assert_eq!(scene.status().avoided_nodes, []);
    fail(&mut scene, b"", "gpu-2", 1);
    assert_eq!(scene.status().avoided_nodes, [], "another node");
    fail(&mut scene, b"", "gpu-1", 1);
    assert_eq!(scene.status().avoided_nodes[0].name, "gpu-1");
}

#[test]
fn counters_by_class_survive_the_trimming_of_the_ledger() {
    let spec = json!({"failurePolicy": {"backoffBaseSeconds": 0, "classes": [{"class": "Preempted", "maxRetries": 40}]}});
    let mut scene = Scene::started(1, spec);
    for _ in 0..25 {
        let (number, now) = (
            scene.status().open_attempt().unwrap().number,
            scene.next_start(),
        );
        scene.pods([pod(number, 0)
            .disrupted("PreemptionByScheduler", "")
            .ended(137, "", now)]);
        scene.look(now);
    }
    assert_eq!(scene.status().attempts.len(), 10);
    assert_eq!(count(scene.status(), FailureClass::Preempted), 25);
    assert_eq!(scene.status().retries, 0);
    assert!(scene.asked.is_empty(), "a preemption explains itself");
}

#[test]
fn the_rank_to_blame_gets_a_moment_to_show_when_only_its_victims_are_seen() {
    let mut scene = Scene::running(3, json!({}));
    scene.logs = BTreeMap::from([(0, LOST_PEER.to_vec()), (2, USER_ERROR.to_vec())]);
    let victim = || pod(1, 0).ended(1, "", 5);
    scene.pods([victim(), pod(1, 1).running(), pod(1, 2).running()]);
    let plan = scene.look(5);
    assert_eq!((plan.record, plan.effects), (None, vec![]));
    assert_eq!(plan.requeue.map(|r| r.as_secs()), Some(5));
    scene.pods([victim(), pod(1, 1).running(), pod(1, 2).ended(1, "", 4)]);
    scene.look(7);
    let cause = scene.status().attempts[0].root_cause.clone().unwrap();
    assert_eq!(cause.rank, Some(2));
    assert_eq!(asked_ranks(&scene), [vec![0], vec![2]], "each is read once");
}

#[test]
fn when_it_does_not_show_the_ranks_that_still_run_are_read_too() {
    let mut scene = Scene::running(3, json!({}));
    // Rank 2 has thrown and hangs in its clean-up.
    scene.logs = BTreeMap::from([(0, LOST_PEER.to_vec()), (2, USER_ERROR.to_vec())]);
    scene.pods([
        pod(1, 0).ended(1, "", 5),
        pod(1, 1).running(),
        pod(1, 2).running(),
    ]);
    scene.look(5);
    scene.look(10);
    assert_eq!(asked_ranks(&scene), [vec![0], vec![1, 2]]);
    let cause = scene.status().attempts[0].root_cause.clone().unwrap();
    assert_eq!(cause.rank, Some(2), "{cause:?}");
    assert_eq!(scene.reason(), "NotRetryable");
}

#[test]
fn of_a_large_gang_that_fails_at_once_the_first_ranks_are_read_and_no_more() {
    let nodes = 3 * i32::try_from(MAX_TAILS).unwrap();
    let mut scene = Scene::running(nodes, json!({}));
    scene.pods((0..nodes).map(|rank| pod(1, rank).ended(1, "", 1000 - i64::from(rank))));
    scene.look(1000);
    let asked: Vec<i32> = asked_ranks(&scene).concat();
    assert_eq!(asked.len(), MAX_TAILS);
    assert!(asked.contains(&(nodes - 1)), "those that ended first");
}

#[test]
fn a_log_that_can_not_be_read_holds_nothing_up() {
    let mut scene = Scene::running(2, json!({"failurePolicy": {"backoffBaseSeconds": 0}}));
    scene.pods([pod(1, 0).running(), pod(1, 1).ended(1, "boom", 5)]);
    scene.look(5);
    scene.pods([]);
    assert_eq!(
        scene.status().attempts[0].class,
        Some(FailureClass::Unknown)
    );
    assert_eq!(scene.look(40).effects.len(), 3, "the next attempt");
}

#[test]
fn a_jobs_own_rule_comes_before_its_runtimes_and_that_before_the_clusters() {
    let rule = |name: &str, class: &str| json!({"rules": [{"name": name, "class": class, "onExitCodes": [1]}]});
    for (own, theirs, cluster, expected) in [
        (true, true, true, "own"),
        (false, true, true, "theirs"),
        (false, false, true, "cluster"),
    ] {
        let spec = if own {
            json!({"failurePolicy": rule("own", "Storage")})
        } else {
            json!({})
        };
        let mut scene = Scene::new(job(1, spec));
        scene.seen.opened_here = true;
        if theirs {
            let runtime = scene.seen.runtime.as_mut().unwrap();
            let rules = rule("theirs", "Communication");
            runtime.spec.failure_policy = serde_json::from_value(rules).unwrap();
        }
        if cluster {
            let rules = serde_json::from_value(rule("cluster", "GpuHardware")).unwrap();
            scene.seen.cluster_rules = std::sync::Arc::new(rules);
        }
        scene.look(0);
        fail(&mut scene, USER_ERROR, "gpu-1", 1);
        assert_eq!(scene.status().attempts[0].rule.as_deref(), Some(expected));
    }
}

#[test]
fn a_rule_that_cant_be_used_is_reported_and_stops_nothing() {
    // Unbounded, it would take more memory to compile than a job's rule may.
    let rules = json!({"rules": [{"name": "huge", "class": "Storage", "onLogPatterns": ["(a{1000}){1000}"]}]});
    let mut scene = Scene::new(job(1, json!({"failurePolicy": rules})));
    scene.seen.opened_here = true;
    assert_eq!(scene.look(0).effects, [create(1, 0)]);
    assert_eq!(scene.is(conditions::FAILURE_POLICY_VALID), "False");
    let mut scene = Scene::new(job(1, json!({})));
    scene.look(0);
    assert_eq!(scene.is(conditions::FAILURE_POLICY_VALID), "-");
}

#[test]
fn silence_ends_an_attempt_only_after_the_logs_have_been_looked_at() {
    let mut scene = Scene::running(2, json!({"progressTimeoutSeconds": 100}));
    let plan = scene.look(10);
    assert_eq!(plan.requeue.map(|r| r.as_secs()), Some(90));
    assert!(scene.asked.is_empty());
    scene.newest_line = Some(95);
    let plan = scene.look(100);
    assert_eq!(scene.asked, [Question::Progress { since: at(0) }]);
    assert_eq!(plan.requeue.map(|r| r.as_secs()), Some(95), "195 is due");
    scene.look(150);
    assert_eq!(scene.asked.len(), 1, "once in each timeout");
    scene.look(195);
    let attempt = &scene.status().attempts[0];
    assert_eq!(attempt.class, Some(FailureClass::Hang));
    assert_eq!(scene.status().retries, 1);
    assert!(scene.message().contains("100 s"), "{}", scene.message());
}

#[test]
fn without_a_progress_timeout_silence_is_nobodys_business() {
    let mut scene = Scene::running(1, json!({}));
    scene.look(1_000_000);
    assert!(scene.asked.is_empty());
    assert_eq!(scene.reason(), "Running");
}

#[test]
fn what_keeps_a_pod_waiting_is_found_out_once_a_minute_and_told() {
    let mut scene = Scene::started(1, json!({"gpusPerNode": 8}));
    scene.start_problem = Some(crate::plan::Reason {
        reason: "Unschedulable".into(),
        message: "needs 8 nvidia.com/gpu on one node; the largest has 4 free (gpu-3)".into(),
    });
    scene
        .pods([pod(1, 0).unschedulable("0/6 nodes are available: 6 Insufficient nvidia.com/gpu.")]);
    scene.look(1);
    assert!(scene.message().contains("the largest has 4 free"));
    assert!(scene.message().contains("0/6 nodes are available"));
    scene.look(30);
    assert_eq!(scene.asked.len(), 1);
    scene.look(61);
    assert_eq!(scene.asked.len(), 2);
    assert!(matches!(scene.asked[1], Question::Start { rank: 0 }));
}

#[test]
fn a_pod_that_is_silent_on_its_node_is_asked_about_after_a_while() {
    let mut scene = Scene::started(1, json!({}));
    scene.pods([pod(1, 0)]);
    let plan = plan(&scene.job, &scene.seen, at(1));
    assert!(!matches!(plan.effects[..], [Effect::Ask(_)]));
    scene.look(1);
    scene.start_problem = Some(crate::plan::Reason {
        reason: "FailedMount".into(),
        message: "rank 0: pod ddp-1-0 can't start: configmap \"settings\" not found".into(),
    });
    scene.look(20);
    assert!(scene.message().contains("settings"), "{}", scene.message());
    scene.look(300);
    let attempt = &scene.status().attempts[0];
    assert_eq!(attempt.class, Some(FailureClass::ConfigError));
    assert_eq!(scene.reason(), "NotRetryable");
}
