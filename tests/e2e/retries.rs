//! Retries of the whole gang, and their end.

use std::time::Duration;

use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::site::{Site, delete_now, message, reason};

/// Rank 1 fails in its first two attempts.
pub const FAILS_TWICE: &str = r#"
echo "attempt $TRAINYARD_ATTEMPT rank $TRAINYARD_RANK"
if [ $TRAINYARD_RANK = 1 ] && [ $TRAINYARD_ATTEMPT -le 2 ]; then echo "shard is stale" >&2; exit 7; fi
sleep 1"#;

#[tokio::test]
async fn a_gang_that_fails_twice_succeeds_and_the_ledger_says_what_happened() {
    let site = Site::new("twice").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", FAILS_TWICE], "numNodes": 2,
        "failurePolicy": {"backoffBaseSeconds": 1, "backoffMaxSeconds": 2},
    });
    site.submit("gang", spec).await;
    let status = site.ended("gang").await;

    assert_eq!(reason(&status), "Completed");
    assert_eq!(
        message(&status),
        "all 2 nodes ended with exit code 0 after 2 retries"
    );
    assert_eq!((status.retries, status.retries_ignored), (2, 0));
    assert_eq!(status.attempts.len(), 3, "{:#?}", status.attempts);
    for (attempt, number) in status.attempts[..2].iter().zip(1..) {
        let cause = attempt
            .root_cause
            .as_ref()
            .expect("a failed attempt has a root cause");
        assert_eq!(attempt.number, number);
        assert_eq!(cause.rank, Some(1));
        assert_eq!(cause.exit_code, Some(7));
        assert_eq!(cause.pod, Some(format!("gang-{number}-1")));
        assert!(cause.node.is_some());
        assert!(
            cause.message.contains("shard is stale"),
            "{}",
            cause.message
        );
        assert!(
            attempt
                .decision
                .as_ref()
                .is_some_and(|d| d.starts_with(&format!("retry {number} of 3")))
        );
    }
    let last = &status.attempts[2];
    assert_eq!(last.decision.as_deref(), Some("succeeded"));
    assert!(last.root_cause.is_none() && last.end_time.is_some());
    site.history.assert_clean();
    assert_eq!(site.history.pods(), 6);
}

#[tokio::test]
async fn a_job_that_spent_its_retries_stays_failed_whatever_is_done_to_its_pods_and_labels() {
    let site = Site::new("spent").await;
    let operator = site.operator();
    let spec = json!({
        "command": ["sh", "-c", "echo no such dataset; exit 3"], "backoffLimit": 1,
        "failurePolicy": {"backoffBaseSeconds": 0, "backoffMaxSeconds": 0},
    });
    site.submit("spent", spec).await;
    let ended = site.ended("spent").await;
    assert_eq!(reason(&ended), "BackoffLimitExceeded");
    assert!(
        message(&ended).contains("exited with code 3"),
        "{}",
        message(&ended)
    );
    assert!(
        message(&ended).contains("no such dataset"),
        "{}",
        message(&ended)
    );
    assert_eq!(ended.retries, 1);

    for pod in site.pod_list().await {
        delete_now(&site.pods(), &pod.name_any()).await;
    }
    let labels = json!({"metadata": {"labels": {"touched": "yes"}}});
    let params = PatchParams::default();
    site.jobs()
        .patch("spent", &params, &Patch::Merge(labels))
        .await
        .unwrap();
    assert_eq!(
        operator.terminate(),
        Some(0),
        "SIGTERM ends the operator cleanly"
    );
    let _again = site.operator();
    // A second job going through shows that the new operator is at work and had its look at the first.
    site.submit("other", json!({"command": ["true"]})).await;
    site.ended("other").await;

    assert_eq!(
        site.jobs().get("spent").await.unwrap().status.unwrap(),
        ended
    );
    assert_eq!(
        site.history.pods(),
        3,
        "two attempts of the one, one of the other"
    );
    site.history.assert_clean();
}

#[tokio::test]
async fn a_retry_waits_for_its_backoff_and_says_until_when() {
    let site = Site::new("backoff").await;
    let _operator = site.operator();
    let spec = json!({
        "command": ["false"],
        "failurePolicy": {"backoffBaseSeconds": 3600, "backoffMaxSeconds": 3600},
    });
    site.submit("waits", spec).await;
    let status = site
        .until("waits", "to wait for a retry", |s| reason(s) == "Retrying")
        .await;
    let next = status
        .next_retry_time
        .expect("the time of the next attempt")
        .0;
    let ended = status.attempts[0]
        .end_time
        .clone()
        .expect("the end of the first")
        .0;
    let wait = next.duration_since(ended).as_secs();
    assert!(
        (3240..=3600).contains(&wait),
        "{wait} s is not an hour less at most 10 %"
    );
    assert_eq!(
        status.attempts.len(),
        2,
        "the next attempt is counted before it starts"
    );
    assert_eq!(site.history.pods(), 1);

    // Deleting the job in its backoff takes everything with it.
    site.jobs()
        .delete("waits", &DeleteParams::default())
        .await
        .unwrap();
    crate::site::eventually("the pods to go with their job", || async {
        let left = crate::site::names(&site.pod_list().await);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_replica_takes_over_from_a_killed_leader_and_does_nothing_twice() {
    let site = Site::new("replicas").await;
    let mut first = site.operator();
    let slow = json!({"command": ["sh", "-c", "sleep 25"], "numNodes": 2});
    site.submit("before", slow).await;
    site.running("before").await;
    let second = site.operator();
    first.kill();
    let killed = std::time::Instant::now();

    site.submit("after", json!({"command": ["true"]})).await;
    let status = site.ended("after").await;
    let takeover = killed.elapsed();
    assert_eq!(reason(&status), "Completed");
    assert!(
        takeover < Duration::from_secs(60),
        "took over after {takeover:?}"
    );
    let status = site.ended("before").await;
    assert_eq!(reason(&status), "Completed");
    assert_eq!((status.retries, status.retries_ignored), (0, 0));
    assert_eq!(site.history.pods(), 3);
    site.history.assert_clean();

    // A leader that is asked to stop gives its Lease back: the next one need not wait for it.
    assert_eq!(second.terminate(), Some(0));
    let begin = std::time::Instant::now();
    let _third = site.operator();
    site.submit("handed-over", json!({"command": ["true"]}))
        .await;
    site.until("handed-over", "to start", |s| s.start_time.is_some())
        .await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "the Lease was not given back"
    );
}
