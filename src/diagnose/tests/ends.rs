//! All the ways in which Kubernetes ends a pod.

use super::{at, disrupted, ended, of, pod};
use crate::{
    api::{FailureAction, FailureClass as C},
    diagnose::{NodeFacts, RankEvidence, RuleBook, failure},
    plan::{Phase, PodFacts, Reason},
};

fn because(reason: &str, message: &str) -> PodFacts {
    PodFacts {
        phase: Phase::Failed,
        disruption: Some(Reason {
            reason: reason.into(),
            message: message.into(),
        }),
        ..pod(0)
    }
}

#[test]
fn each_way_in_which_kubernetes_ends_a_pod_has_its_class_and_is_retried_where_that_helps() {
    use FailureAction::{Fail, RetryIgnoreLimit};
    for (reason, message, class, action) in [
        (
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
            C::Preempted,
            RetryIgnoreLimit,
        ),
        (
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            C::Evicted,
            RetryIgnoreLimit,
        ),
        (
            "EvictionByEvictionAPI",
            "Eviction API: evicting",
            C::Evicted,
            RetryIgnoreLimit,
        ),
        (
            "DeletionByPodGC",
            "PodGC: node no longer exists",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        (
            "TerminationByKubelet",
            "Pod was terminated in response to imminent node shutdown.",
            C::Evicted,
            RetryIgnoreLimit,
        ),
        (
            "TerminationByKubelet",
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. Container trainer was using 10Gi, request is 1Gi, has larger consumption of memory.",
            C::Evicted,
            RetryIgnoreLimit,
        ),
        (
            "Evicted",
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10%, available: 8%.",
            C::Evicted,
            RetryIgnoreLimit,
        ),
        (
            "Evicted",
            "The node had condition: [PIDPressure]. ",
            C::Evicted,
            RetryIgnoreLimit,
        ),
        (
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
            C::Evicted,
            Fail,
        ),
        (
            "Evicted",
            "Container trainer exceeded its local ephemeral storage limit \"1Gi\". ",
            C::Evicted,
            Fail,
        ),
        (
            "Evicted",
            "Usage of EmptyDir volume \"shm\" exceeds the limit \"64Mi\". ",
            C::Evicted,
            Fail,
        ),
        (
            "Preempting",
            "Preempted in order to admit critical pod",
            C::Preempted,
            RetryIgnoreLimit,
        ),
        (
            "NodeShutdown",
            "Pod was rejected as the node is shutting down.",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        (
            "Terminated",
            "Pod was terminated in response to imminent node shutdown.",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        (
            "NodeLost",
            "Node gpu-1 which was running pod job-1-0 is unresponsive",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        (
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 8, used: 60, capacity: 64",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        ("OutOfmemory", "", C::NodeLost, RetryIgnoreLimit),
        ("OutOfnvidia.com/gpu", "", C::NodeLost, RetryIgnoreLimit),
        (
            "UnexpectedAdmissionError",
            "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, which is unexpected",
            C::GpuHardware,
            RetryIgnoreLimit,
        ),
        (
            "NodeAffinity",
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        (
            "TopologyAffinityError",
            "Pod was rejected: Resources cannot be allocated with Topology locality",
            C::NodeLost,
            RetryIgnoreLimit,
        ),
        (
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
            C::ConfigError,
            Fail,
        ),
        (
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline",
            C::DeadlineExceeded,
            Fail,
        ),
        ("SomethingNew", "", C::Evicted, RetryIgnoreLimit),
    ] {
        let found = of(&[because(reason, message)]).unwrap();
        assert_eq!(
            (found.class, found.policy.action),
            (class, action),
            "{reason}: {message}"
        );
        assert_eq!(found.root_cause.reason, reason);
        assert!(!found.collateral);
    }
}

#[test]
fn a_taint_that_says_that_the_node_is_gone_is_a_lost_node() {
    let pod = because("DeletionByTaintManager", "");
    let node = NodeFacts {
        name: "gpu-0".into(),
        ready: false,
        taints: vec!["node.kubernetes.io/unreachable:NoExecute".into()],
        ..NodeFacts::default()
    };
    let evidence = RankEvidence {
        node: Some(&node),
        ..RankEvidence::of(&pod)
    };
    let found = failure(&[evidence], &RuleBook::default()).unwrap();
    assert_eq!(found.class, C::NodeLost);
    assert!(found.policy.avoid_node);
}

#[test]
fn exit_code_137_is_told_apart_five_ways_behind_the_same_tail() {
    let killed = |reason| ended(0, 137, reason, "step 12 loss 0.3", Some(5));
    let deleted = PodFacts {
        phase: Phase::Running,
        deletion: Some(at(9)),
        deletion_requested: Some(at(4)),
        ..killed("Error")
    };
    let deadline = PodFacts {
        disruption: Some(Reason {
            reason: "DeadlineExceeded".into(),
            message: String::new(),
        }),
        ..killed("Error")
    };
    for (pod, class) in [
        (killed("OOMKilled"), C::HostOutOfMemory),
        (
            disrupted(killed("Error"), "PreemptionByScheduler"),
            C::Preempted,
        ),
        (
            disrupted(killed("Error"), "EvictionByEvictionAPI"),
            C::Evicted,
        ),
        (deadline, C::DeadlineExceeded),
        (deleted, C::Interrupted),
        // By hand, on the node.
        (killed("Error"), C::Unknown),
    ] {
        assert_eq!(of(&[pod]).unwrap().class, class);
    }
}

#[test]
fn a_pod_that_handles_sigterm_in_a_node_shutdown_has_not_done_its_work() {
    let polite = disrupted(
        ended(0, 0, "Completed", "", Some(5)),
        "TerminationByKubelet",
    );
    assert_eq!(of(&[polite]).unwrap().class, C::Evicted);
}

#[test]
fn an_oom_kill_names_the_limit() {
    let pod = ended(0, 137, "OOMKilled", "", Some(5));
    let evidence = RankEvidence {
        memory_limit: Some("256Mi"),
        ..RankEvidence::of(&pod)
    };
    let found = failure(&[evidence], &RuleBook::default()).unwrap();
    assert!(
        found.summary.contains("its limit (256Mi)"),
        "{}",
        found.summary
    );
    assert!(found.hint.unwrap().contains("256Mi"));
}

#[test]
fn what_the_node_reports_of_its_gpu_decides_where_the_log_does_not() {
    let pod = ended(
        0,
        1,
        "Error",
        "RuntimeError: CUDA error: unknown error",
        Some(5),
    );
    let node = NodeFacts {
        name: "gpu-0".into(),
        ready: true,
        problems: vec!["GpuUnhealthy: XidError: NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.".into()],
        ..NodeFacts::default()
    };
    let evidence = RankEvidence {
        node: Some(&node),
        ..RankEvidence::of(&pod)
    };
    let found = failure(&[evidence], &RuleBook::default()).unwrap();
    assert_eq!(found.class, C::GpuHardware);
    assert!(found.policy.avoid_node);
    // The log's line stays the decisive one; the node's report is beside it.
    assert_eq!(
        found.root_cause.message,
        "RuntimeError: CUDA error: unknown error"
    );
    assert!(found.summary.contains("fallen off the bus"));
}

#[test]
fn a_rank_on_a_node_that_does_not_answer_is_to_blame_for_the_connections_that_others_lost() {
    let lost = ended(
        0,
        1,
        "Error",
        "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.3]:1234",
        Some(5),
    );
    let silent = pod(1);
    let node = NodeFacts {
        name: "gpu-1".into(),
        ready: false,
        ..NodeFacts::default()
    };
    let alone = failure(&[RankEvidence::of(&lost)], &RuleBook::default()).unwrap();
    assert!(alone.collateral, "the rank to blame may still show");
    let ranks = [
        RankEvidence::of(&lost),
        RankEvidence {
            node: Some(&node),
            ..RankEvidence::of(&silent)
        },
    ];
    let found = failure(&ranks, &RuleBook::default()).unwrap();
    assert_eq!((found.class, found.root_cause.rank), (C::NodeLost, Some(1)));
    assert!(!found.collateral);
}

#[test]
fn a_rank_that_is_done_while_the_others_wait_for_it_is_the_programs_fault() {
    let text = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.3]:1234";
    let pods = [
        ended(0, 1, "Error", text, Some(5)),
        ended(1, 0, "Completed", "", Some(4)),
        ended(2, 1, "Error", text, Some(5)),
    ];
    let found = of(&pods).unwrap();
    assert_eq!(
        (found.class, found.root_cause.rank, found.collateral),
        (C::UserError, Some(1), false)
    );
}
