//! Quiet at rest, and few writes at work: counted in the API server's audit log.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::json;

use crate::{
    audit,
    site::{Site, reason},
};

#[tokio::test]
async fn a_one_pod_job_costs_at_most_six_writes() {
    let site = Site::new("writes").await;
    let _operator = site.operator();
    site.submit("one", json!({"command": ["sleep", "2"]})).await;
    assert_eq!(reason(&site.ended("one").await), "Completed");
    let Some(writes) = audit::writes(&site.operator_account()) else {
        eprintln!("not counted: this cluster's audit log is not ours to read");
        return;
    };
    let total: usize = writes.values().sum();
    println!("writes from apply to Succeeded: {total} {writes:?}");
    assert!((3..=6).contains(&total), "{writes:?}");
}

#[tokio::test]
async fn finished_and_running_jobs_cost_no_writes_at_all_while_nothing_happens() {
    const FINISHED: usize = 200;
    const RUNNING: usize = 20;
    let site = Site::new("quiet").await;
    let operator = site.operator();
    let runs = |n: usize| {
        let site = &site;
        async move {
            let name = format!("runs-{n}");
            site.submit(&name, json!({"command": ["sleep", "900"]}))
                .await;
            site.running(&name).await;
        }
    };
    stream::iter(0..RUNNING).for_each_concurrent(10, runs).await;
    let ends = |n: usize| {
        let site = &site;
        async move {
            let name = format!("ends-{n}");
            site.submit(&name, json!({"command": ["true"]})).await;
            assert_eq!(reason(&site.ended(&name).await), "Completed");
        }
    };
    stream::iter(0..FINISHED)
        .for_each_concurrent(16, ends)
        .await;

    let Some(before) = audit::writes(&site.operator_account()) else {
        eprintln!("not counted: this cluster's audit log is not ours to read");
        return;
    };
    // The minute that the promise is about; a restart in it must not write either.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(operator.terminate(), Some(0));
    let _again = site.operator();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = audit::writes(&site.operator_account()).unwrap();
    assert_eq!(before, after, "an operator at rest wrote");
    assert!(
        before["update trainingjobs/status"] >= FINISHED,
        "{before:?}"
    );
}
