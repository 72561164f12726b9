//! Evidence → root cause, and what is said of it.

use super::{disrupted, ended, of, pod};
use crate::{
    api::FailureAction,
    diagnose::{RuleBook, missing, start_problem, words::telling_line},
    plan::{Phase, PodFacts, Waiting},
};

/// Rank, reason and retryability of the root cause.
fn cause(pods: &[PodFacts]) -> Option<(i32, String, bool)> {
    let found = of(pods)?;
    let cause = found.root_cause;
    Some((
        cause.rank.unwrap(),
        cause.reason,
        found.policy.action != FailureAction::Fail,
    ))
}

#[test]
fn a_gang_at_work_or_done_has_no_failure() {
    assert_eq!(
        cause(&[pod(0), ended(1, 0, "Completed", "", Some(5))]),
        None
    );
    assert_eq!(cause(&[]), None);
}

#[test]
fn each_end_gets_the_reason_that_kubernetes_gives_and_is_retried_unless_that_is_no_use() {
    for (code, reason, message, retryable) in [
        (1, "Error", "boom", true),
        (137, "Error", "", true),
        (137, "OOMKilled", "", false),
        (143, "Error", "", true),
        (
            128,
            "StartError",
            "exec: \"trian\": executable file not found in $PATH",
            false,
        ),
        (
            128,
            "StartError",
            "exec: \"/run.sh\": permission denied: unknown",
            false,
        ),
        (128, "StartError", "exec /run.sh: exec format error", false),
        (
            128,
            "ContainerCannotRun",
            "stat /x: no such file or directory",
            false,
        ),
        // The node's fault: a broken driver must not fail the job for good.
        (
            128,
            "StartError",
            "nvidia-container-cli: initialization error: driver error",
            true,
        ),
    ] {
        let found = cause(&[ended(0, code, reason, message, Some(5))]);
        assert_eq!(found, Some((0, reason.into(), retryable)), "{message}");
    }
}

#[test]
fn what_kubernetes_did_to_a_pod_is_said_in_words_and_can_be_retried() {
    for (reason, words) in [
        (
            "PreemptionByScheduler",
            "had to make room for a pod of higher priority",
        ),
        (
            "DeletionByTaintManager",
            "was evicted by a taint of its node",
        ),
        (
            "EvictionByEvictionAPI",
            "was evicted, as when a node is drained",
        ),
        ("DeletionByPodGC", "was lost with its node"),
        ("TerminationByKubelet", "was ended by Kubernetes"),
        ("Evicted", "was evicted by its node"),
        ("Terminated", "was ended by its node's shutdown"),
        ("UnexpectedAdmissionError", "was refused by its node"),
    ] {
        let failed = disrupted(
            PodFacts {
                phase: Phase::Failed,
                ..pod(2)
            },
            reason,
        );
        let found = of(std::slice::from_ref(&failed)).unwrap();
        let summary = format!("rank 2 (pod ddp-1-2 on node gpu-2) {words} ({reason})");
        assert_eq!(
            (found.summary, found.policy.action != FailureAction::Fail),
            (summary, true)
        );
        assert_eq!(found.root_cause.reason, reason);
    }
}

#[test]
fn an_eviction_beats_the_exit_code_that_follows_from_it() {
    let evicted = disrupted(ended(0, 137, "Error", "", Some(9)), "Evicted");
    let found = of(std::slice::from_ref(&evicted)).unwrap().root_cause;
    assert_eq!(
        (found.reason.as_str(), found.exit_code),
        ("Evicted", Some(137))
    );
}

#[test]
fn the_rank_to_blame_is_the_first_that_failed_of_itself() {
    let error = |rank, when| ended(rank, 1, "Error", "boom", when);
    let term = |rank, when| ended(rank, 143, "Error", "", when);
    let cases: [(&str, Vec<PodFacts>, i32); 6] = [
        (
            "the earliest",
            vec![error(0, Some(9)), error(1, Some(8)), error(2, Some(10))],
            1,
        ),
        (
            "not SIGTERM, though earlier",
            vec![term(0, Some(1)), error(1, Some(8))],
            1,
        ),
        (
            "SIGTERM, if there is nothing else",
            vec![pod(0), term(1, Some(1))],
            1,
        ),
        (
            "the lower rank of two in one second",
            vec![error(1, Some(8)), error(0, Some(8))],
            0,
        ),
        (
            "one with a time before one without",
            vec![error(0, None), error(1, Some(8))],
            1,
        ),
        (
            "an interruption, of which the crashes elsewhere follow",
            vec![
                error(0, Some(8)),
                disrupted(pod(1), "PreemptionByScheduler"),
            ],
            1,
        ),
    ];
    for (name, pods, rank) in cases {
        assert_eq!(cause(&pods).unwrap().0, rank, "{name}");
    }
}

#[test]
fn a_failed_pod_about_which_nothing_is_known_is_still_a_failure() {
    let found = of(&[PodFacts {
        phase: Phase::Failed,
        ..pod(0)
    }])
    .unwrap();
    let summary = "rank 0 (pod ddp-1-0 on node gpu-0) failed and Kubernetes does not say why";
    assert_eq!(
        (
            found.summary.as_str(),
            found.policy.action != FailureAction::Fail
        ),
        (summary, true)
    );
}

#[test]
fn an_init_container_is_named_where_it_failed() {
    let mut failed = ended(0, 2, "Error", "no route to host", Some(5));
    failed.terminated.as_mut().unwrap().container = "fetch".into();
    failed.node = None;
    let summary = "rank 0 (pod ddp-1-0): container fetch exited with code 2: no route to host";
    assert_eq!(of(std::slice::from_ref(&failed)).unwrap().summary, summary);
}

#[test]
fn a_missing_pod_says_where_to_look() {
    let found = missing("ddp-1-3".into(), 3, &RuleBook::default());
    let message =
        "pod ddp-1-3 was deleted before it had ended; the API server's audit log says by whom";
    assert_eq!(found.root_cause.message, message);
    assert!(found.policy.action != FailureAction::Fail);
}

#[test]
fn a_long_message_keeps_its_end_and_no_half_characters() {
    for fill in ["x", "ü", "火", "🔥"] {
        for tail in ["", "a", "ab", "abc"] {
            let message = format!("{}{tail}END", fill.repeat(3000));
            let found = of(&[ended(0, 1, "Error", &message, Some(5))]).unwrap();
            let kept = &found.root_cause.message;
            assert!(
                kept.starts_with('…') && kept.ends_with("END"),
                "{fill}{tail}"
            );
            assert!((1018..=1027).contains(&kept.len()), "{} bytes", kept.len());
            assert!(found.summary.len() < 1200, "nor is the sentence longer");
        }
    }
}

#[test]
fn the_line_that_tells_is_found_at_the_end_of_real_logs() {
    let python = "Traceback (most recent call last):\n  File \"train.py\", line 9, in <module>\n    main()\nValueError: learning rate must be positive\n";
    let torch = "[rank1]: Traceback (most recent call last):\n[rank1]:   File \"train.py\", line 3\n[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n[W1124 ProcessGroupNCCL.cpp:1250] Warning: destroy_process_group() was not called\n";
    let report = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\ntrain.py FAILED\n----\nRoot Cause (first observed failure):\n[0]:\n  time      : 2026-11-24_04:12:00\n  exitcode  : 1 (pid: 77)\n  error_file: <N/A>\n  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html\n====\n";
    let both = format!("RuntimeError: boom\nTraceback (most recent call last):\n{report}");
    for (log, line) in [
        (python, "ValueError: learning rate must be positive"),
        (
            torch,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        (
            report,
            "torchrun says that one of its processes failed (exit code 1 (pid: 77)); that process's own error is further up in the log",
        ),
        (both.as_str(), "RuntimeError: boom"),
        ("step 1\nKeyboardInterrupt\n", "KeyboardInterrupt"),
        ("loading\nout of disk\n======\n\n", "out of disk"),
        ("step 9: Error rate 0.3\nlast words.", "last words"),
        ("=====", "it says nothing"),
    ] {
        assert_eq!(telling_line(log), line);
    }
}

#[test]
fn only_real_problems_are_called_problems() {
    let waits = |reason: &str, message: &str| PodFacts {
        waiting: Some(Waiting {
            container: "trainer".into(),
            reason: reason.into(),
            message: message.into(),
        }),
        ..pod(0)
    };
    assert_eq!(start_problem(&pod(0)), None);
    assert_eq!(start_problem(&waits("SomethingNew", "")), None);
    let told = |p: &PodFacts| start_problem(p).unwrap().message;
    let start = "rank 0: container trainer of pod ddp-1-0 can't start: ";
    let silent = told(&waits("CreateContainerError", " "));
    assert_eq!(
        silent,
        format!("{start}CreateContainerError"),
        "no empty end"
    );
    let root = told(&waits(
        "CreateContainerConfigError",
        "container has runAsNonRoot and image will run as root",
    ));
    assert_eq!(
        root,
        format!(
            "{start}CreateContainerConfigError: container has runAsNonRoot and image will run as root (give the image a numeric USER other than 0)"
        )
    );
    let unplaced = PodFacts {
        unschedulable: Some(String::new()),
        ..pod(0)
    };
    assert_eq!(told(&unplaced), "rank 0: no node can take pod ddp-1-0");
}
