//! A gang at work: success, failures of every kind, and pods that do not start.

use serde_json::json;

use super::builders::{Scene, pod};
use crate::{
    api::conditions,
    plan::{PodFacts, Terminated},
};

#[test]
fn a_job_has_succeeded_when_all_its_nodes_have() {
    for (nodes, message) in [
        (1, "the node ended with exit code 0"),
        (2, "all 2 nodes ended with exit code 0"),
    ] {
        let mut scene = Scene::running(nodes, json!({}));
        scene.all(1, |p| p.ended(0, "", 50));
        scene.look(51);
        assert_eq!((scene.reason(), scene.message()), ("Completed", message));
        assert_eq!(scene.is(conditions::SUCCEEDED), "True");
        assert_eq!(scene.is(conditions::STALLED), "-");
        assert_eq!(scene.ledger(), [(1, true, Some("succeeded"))]);
        assert!(scene.status().completion_time.is_some());
    }
}

#[test]
fn one_node_that_has_succeeded_does_not_end_the_others() {
    let mut scene = Scene::running(2, json!({}));
    scene.pods([pod(1, 0).running(), pod(1, 1).ended(0, "", 50)]);
    assert_eq!(scene.look(51).effects, []);
    assert_eq!(
        (scene.reason(), scene.is(conditions::PODS_READY)),
        ("Running", "True")
    );
}

#[test]
fn a_success_is_kept_that_came_before_the_deadline_or_a_suspension_was_noticed() {
    let mut late = Scene::running(1, json!({"activeDeadlineSeconds": 60}));
    late.all(1, |p| p.ended(0, "", 50));
    late.look(61);
    assert_eq!(late.reason(), "Completed");
    let mut suspended = Scene::running(1, json!({}));
    suspended.all(1, |p| p.ended(0, "", 50));
    suspended.job.spec.suspend = true;
    suspended.look(51);
    assert_eq!(suspended.reason(), "Completed");
}

/// What is said of rank 1 of 2, which ended like that while the job ran.
#[test]
fn the_sentence_names_cause_and_consequence() {
    let taint = "Taint manager: deleting due to NoExecute taint";
    let retried = "retry 1 of 3 in 9 s";
    let free = "started again in 9 s, not charged to backoffLimit";
    for (ended, message, decision) in [
        (
            pod(1, 1).ended(
                1,
                "Traceback (most recent call last):\nValueError: bad lr\n",
                9,
            ),
            "rank 1 (pod ddp-1-1 on node gpu-1) exited with code 1: ValueError: bad lr",
            "not retried: a user error, which every attempt would repeat",
        ),
        (
            pod(1, 1).ended(139, "", 9),
            "rank 1 (pod ddp-1-1 on node gpu-1) exited with code 139 (SIGSEGV) and no output",
            retried,
        ),
        (
            pod(1, 1).ended(137, "", 9).because("OOMKilled"),
            "rank 1 (pod ddp-1-1 on node gpu-1) was OOMKilled: the container used more memory than its limit and the kernel killed it: raise resourcesPerNode.limits.memory, or use less",
            "not retried: every attempt would need the same memory",
        ),
        (
            pod(1, 1).running().deleted(9),
            "rank 1 (pod ddp-1-1 on node gpu-1) was deleted before it had ended; the API server's audit log says by whom",
            free,
        ),
        (
            pod(1, 1)
                .ended(143, "", 12)
                .disrupted("DeletionByTaintManager", taint),
            "rank 1 (pod ddp-1-1 on node gpu-1) was evicted by a taint of its node (DeletionByTaintManager: Taint manager: deleting due to NoExecute taint, exit code 143 (SIGTERM))",
            free,
        ),
        (
            pod(1, 1)
                .ended(137, "", 9)
                .disrupted("Evicted", "The node was low on resource: memory. "),
            "rank 1 (pod ddp-1-1 on node gpu-1) was evicted by its node (Evicted: The node was low on resource: memory, exit code 137 (SIGKILL))",
            "started again in 9 s on another node, not charged to backoffLimit",
        ),
    ] {
        let mut scene = Scene::running(2, json!({}));
        scene.pods([pod(1, 0).running(), ended]);
        scene.look(12);
        let message = format!("attempt 1 failed: {message}; {decision}");
        assert_eq!(scene.message(), message);
        assert_eq!(scene.events.last().unwrap().note, message);
        let status = scene.status();
        assert_eq!(status.retries, i32::from(decision == retried));
        assert_eq!(
            status.retries_ignored,
            i32::from(decision.contains("not charged"))
        );
        assert_eq!(status.attempts[0].decision.as_deref(), Some(decision));
        assert_eq!(scene.is(conditions::PODS_READY), "False");
    }
}

#[test]
fn a_pod_that_is_gone_fails_the_attempt_it_was_part_of() {
    let mut scene = Scene::running(2, json!({}));
    scene.pods([pod(1, 0).running()]);
    scene.look(9);
    let cause = scene.status().attempts[0].root_cause.clone().unwrap();
    assert_eq!((cause.reason.as_str(), cause.rank), ("PodDeleted", Some(1)));
}

#[test]
fn a_program_that_exits_0_on_sigterm_has_not_finished_its_training() {
    for stopped in [
        pod(1, 0).ended(0, "", 20).deleted(10),
        pod(1, 0).ended(0, "", 10).deleted(10), // within the second of the deletion
        pod(1, 0)
            .ended(0, "", 20)
            .disrupted("EvictionByEvictionAPI", ""),
        pod(1, 0)
            .ended(0, "", 20)
            .disrupted("PreemptionByScheduler", ""),
        pod(1, 0)
            .ended(0, "", 20)
            .disrupted("Terminated", "node shutdown"),
        pod(1, 0)
            .ended(0, "", 20)
            .disrupted("TerminationByKubelet", ""),
    ] {
        let mut scene = Scene::running(1, json!({}));
        scene.pods([stopped]);
        scene.look(21);
        assert_eq!(scene.reason(), "Retrying");
    }
}

#[test]
fn a_finished_pod_that_is_deleted_afterwards_still_counts_as_finished() {
    let mut scene = Scene::running(1, json!({}));
    scene.pods([pod(1, 0).ended(0, "", 9).deleted(10)]);
    scene.look(11);
    assert_eq!(scene.reason(), "Completed");
}

#[test]
fn a_command_that_is_not_in_the_image_is_not_tried_again() {
    let mut scene = Scene::started(1, json!({}));
    let message =
        "failed to create containerd task: exec: \"trian\": executable file not found in $PATH";
    scene.pods([pod(1, 0).ended(128, message, 2).because("StartError")]);
    scene.look(3);
    let expected = format!(
        "attempt 1 failed: rank 0 (pod ddp-1-0 on node gpu-0) could not start its command: {message}; not retried: a user error, which every attempt would repeat"
    );
    assert_eq!(
        (scene.reason(), scene.message()),
        ("NotRetryable", expected.as_str())
    );
    assert_eq!(scene.status().retries, 0);
}

#[test]
fn an_image_that_cant_be_pulled_is_shown_at_once_and_an_attempt_has_five_minutes_for_it() {
    let mut scene = Scene::started(2, json!({}));
    let message = "Back-off pulling image \"pytroch:2.6\"";
    let starting = || pod(1, 0).waits("ImagePullBackOff", message);
    scene.pods([starting(), pod(1, 1).running()]);
    let plan = scene.look(3);
    let text = "attempt 1 starts: 1 of 2 nodes are ready; rank 0: container trainer of pod ddp-1-0 can't start: ImagePullBackOff: Back-off pulling image \"pytroch:2.6\"";
    assert_eq!((scene.reason(), scene.message()), ("Starting", text));
    assert_eq!(
        scene.status().condition("PodsReady").unwrap().reason,
        "ImagePullBackOff"
    );
    assert_eq!(plan.requeue.unwrap().as_secs(), 297);
    scene.look(299);
    assert_eq!(scene.reason(), "Starting");
    scene.look(300);
    let text = "attempt 1 failed: rank 0: container trainer of pod ddp-1-0 can't start: ImagePullBackOff: Back-off pulling image \"pytroch:2.6\"; retry 1 of 3 in 27 s";
    assert_eq!((scene.reason(), scene.message()), ("Retrying", text));
}

#[test]
fn the_five_minutes_begin_when_a_node_has_the_pod_not_when_the_job_began_to_wait_for_one() {
    let mut scene = Scene::started(1, json!({}));
    scene
        .pods([pod(1, 0).unschedulable("0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")]);
    scene.look(3600);
    let mut placed = pod(1, 0).waits("ErrImagePull", "registry: 503");
    placed.accepted = Some(super::builders::at(3600));
    scene.pods([placed]);
    assert_eq!(scene.look(3602).requeue.unwrap().as_secs(), 298);
    assert_eq!(scene.reason(), "Starting");
    scene.look(3900);
    assert_eq!(scene.reason(), "Retrying");
}

#[test]
fn what_can_never_start_fails_at_once() {
    for (reason, message) in [
        ("InvalidImageName", "couldn't parse image name \"Foo:\""),
        ("ErrImageNeverPull", "not present with pull policy of Never"),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
        ),
    ] {
        let mut scene = Scene::started(1, json!({}));
        scene.pods([pod(1, 0).waits(reason, message)]);
        scene.look(2);
        assert_eq!(scene.reason(), "NotRetryable", "{reason}");
        assert!(scene.message().contains(message), "{}", scene.message());
    }
}

#[test]
fn a_job_waits_for_gpus_for_ever_unless_it_has_a_start_deadline() {
    let full = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.";
    let mut scene = Scene::started(1, json!({}));
    scene.pods([pod(1, 0).unschedulable(full)]);
    // It looks now and then how many GPUs are free.
    assert_eq!(scene.look(100_000).requeue.map(|r| r.as_secs()), Some(60));
    let text = format!(
        "attempt 1 starts: the node is not ready; rank 0: no node can take pod ddp-1-0: {full}"
    );
    assert_eq!(
        (scene.reason(), scene.message()),
        ("Starting", text.as_str())
    );

    let mut scene = Scene::started(1, json!({"startDeadlineSeconds": 120}));
    scene.pods([pod(1, 0).unschedulable(full)]);
    assert_eq!(scene.look(70).requeue.unwrap().as_secs(), 50);
    scene.look(120);
    let text = "attempt 1 failed: rank 0: no node can take pod ddp-1-0: 0/4 nodes are available: 4 Insufficient nvidia.com/gpu; not retried: it was not ready within startDeadlineSeconds (120 s)";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("StartDeadlineExceeded", text)
    );
}

#[test]
fn a_start_deadline_names_the_ranks_that_were_not_ready() {
    let mut scene = Scene::started(3, json!({"startDeadlineSeconds": 60}));
    scene.pods([pod(1, 0).running(), pod(1, 1), pod(1, 2)]);
    scene.look(60);
    let text = "attempt 1 failed: ranks 1, 2 did not become ready; kubectl describe pod shows what they wait for; not retried: it was not ready within startDeadlineSeconds (60 s)";
    assert_eq!(scene.message(), text);
}

#[test]
fn a_gang_that_has_been_ready_once_is_not_late_when_readiness_flaps() {
    let mut scene = Scene::running(2, json!({"startDeadlineSeconds": 60}));
    let unready = |mut p: PodFacts| {
        p.ready = false;
        p
    };
    scene.pods([pod(1, 0).running(), unready(pod(1, 1).running())]);
    scene.look(500);
    let ready = scene.status().condition(conditions::PODS_READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.message.as_str()),
        ("False", "1 of 2 nodes are ready")
    );
    assert_eq!(
        (scene.reason(), scene.message()),
        ("Running", "attempt 1 runs on 2 nodes")
    );
    scene.all(1, PodFacts::running);
    scene.look(501);
    assert_eq!(scene.is(conditions::PODS_READY), "True");
}

#[test]
fn the_moment_between_a_containers_end_and_its_pods_costs_no_write() {
    let mut scene = Scene::running(1, json!({}));
    let mut ending = pod(1, 0).running();
    ending.ready = false;
    ending.terminated = Some(Terminated {
        container: "trainer".into(),
        exit_code: 0,
        reason: "Completed".into(),
        message: String::new(),
        finished: None,
    });
    scene.pods([ending]);
    let before = scene.status().clone();
    scene.look(60);
    assert_eq!(*scene.status(), before);
}
