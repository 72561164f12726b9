//! The collector and the operator on a real node: every line is stored, pods stay until that is
//! proven, and the verifier agrees.

use std::{path::Path, process::Command};

use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;
use trainyard::api::LogsStatus;

use crate::site::{Site, eventually, run};

/// What the verifier says of a store; it fails where that is not all there.
fn verify(store: &Path) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["logs", "verify", "--store"])
        .arg(store))
}

#[tokio::test]
async fn a_job_says_when_all_its_lines_are_stored_and_the_verifier_agrees() {
    let site = Site::new("lines").await;
    let _operator = site.operator_that_drains(120);
    let (mut collector, store) = site.collector();
    let script = "seq 1 3000; sleep 4; seq 3001 6000; printf '\\377\\n\\n'; printf 'no newline'";
    let spec = json!({"command": ["sh", "-c", script]});
    site.submit("lines", spec).await;
    site.running("lines").await;
    // Killed in the middle of it.
    collector.kill();
    let (_collector, _) = site.collector();
    let status = site.drained("lines").await;
    let bytes = (1..=6000)
        .map(|n: i64| n.to_string().len() as i64)
        .sum::<i64>()
        + 1
        + 10;
    let all = LogsStatus {
        complete: true,
        lines: 6003,
        bytes,
        gaps: 0,
    };
    assert_eq!(status.logs, Some(all));
    assert_eq!(status.attempts[0].logs, Some(all));
    let condition = status.condition("LogsComplete").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("True", "EndProven")
    );
    let report = verify(&store);
    assert!(report.contains("6003 lines"), "{report}");
    assert!(report.contains("continuity proven, complete"), "{report}");
}

#[tokio::test]
async fn the_last_lines_of_a_rank_that_was_stopped_are_kept() {
    let site = Site::new("stopped").await;
    let _operator = site.operator_that_drains(120);
    let (_collector, store) = site.collector();
    // Rank 0 fails in the first attempt; rank 1 is stopped for it and has something to say.
    let script = "echo begin; trap 'echo last words; exit 143' TERM; \
        if [ $TRAINYARD_ATTEMPT = 2 ]; then exit 0; fi; \
        if [ $TRAINYARD_RANK = 0 ]; then sleep 2; exit 75; fi; \
        while true; do sleep 0.1; done";
    let policy = json!({"backoffBaseSeconds": 0, "rules": [
        {"name": "again", "class": "Unknown", "action": "Retry", "onExitCodes": [75]}
    ]});
    let spec = json!({"numNodes": 2, "command": ["sh", "-c", script], "failurePolicy": policy});
    site.submit("stopped", spec).await;
    let status = site.drained("stopped").await;
    let logs: Vec<_> = status
        .attempts
        .iter()
        .map(|a| a.logs.map(|l| l.lines))
        .collect();
    assert_eq!(
        logs,
        [Some(3), Some(2)],
        "begin, begin, last words; begin, begin"
    );
    assert!(status.logs.is_some_and(|l| l.complete), "{status:?}");
    eventually("the stopped rank's pod to go", || async {
        let left = site.pods().get_opt("stopped-1-1").await.unwrap();
        left.map_or(Ok(()), |pod| Err(format!("{:?}", pod.metadata)))
    })
    .await;
    assert!(verify(&store).contains(" 0 gaps"), "{}", verify(&store));
}

#[tokio::test]
async fn a_job_that_its_user_deletes_keeps_its_lines_to_the_last() {
    let site = Site::new("deleted").await;
    let _operator = site.operator_that_drains(120);
    let (_collector, store) = site.collector();
    let script = "trap 'seq 1 2000; exit 143' TERM; echo begin; while true; do sleep 0.1; done";
    site.submit("deleted", json!({"command": ["sh", "-c", script]}))
        .await;
    site.running("deleted").await;
    let background = DeleteParams::background();
    site.jobs().delete("deleted", &background).await.unwrap();
    eventually("its pod to go", || async {
        let left = site.pod_list().await;
        left.first()
            .map_or(Ok(()), |pod| Err(format!("{:?}", pod.metadata)))
    })
    .await;
    // The kubelet throws the log of a deleted pod away about when it ends. So every line must be there,
    // but that it was the last one can only be proven by who was quick.
    let report = verify(&store);
    assert!(report.contains("2001 lines"), "{report}");
    let told = eventually("the job that is gone to be explained", || async {
        let output = Command::new(env!("CARGO_BIN_EXE_kubectl-trainyard"))
            .args([
                "explain",
                "deleted",
                "--namespace",
                &site.namespace,
                "--store",
            ])
            .arg(&store)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
    .await;
    assert!(told.starts_with("deleted ("), "{told}");
    assert!(told.contains("Attempt 1"), "{told}");
}

#[tokio::test]
async fn a_collector_that_is_down_holds_pods_only_for_their_time() {
    let site = Site::new("silent").await;
    let _operator = site.operator_that_drains(5);
    let script = "trap 'exit 143' TERM; while true; do sleep 0.1; done";
    for job in ["kept", "gone"] {
        site.submit(job, json!({"command": ["sh", "-c", script]}))
            .await;
        site.running(job).await;
    }
    let patch = json!({"spec": {"suspend": true}});
    let patch = kube::api::Patch::Merge(&patch);
    site.jobs()
        .patch("kept", &Default::default(), &patch)
        .await
        .unwrap();
    site.jobs()
        .delete("gone", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the pods to go", || async {
        let left = site.pod_list().await;
        left.first().map_or(Ok(()), |pod| {
            Err(format!("{} {:?}", pod.name_any(), pod.metadata))
        })
    })
    .await;
    let told = |logs: Option<LogsStatus>| logs.is_some_and(|l| !l.complete && l.gaps == 1);
    let status = site
        .until("kept", "to count the gap", |s| told(s.logs))
        .await;
    assert!(told(status.attempts[0].logs), "{status:?}");
}
