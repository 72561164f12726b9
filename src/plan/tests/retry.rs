//! Backoff, its limit, and the ledger.

use std::collections::BTreeSet;

use serde_json::json;

use super::builders::{Scene, create, pod};
use crate::{api::MAX_LEDGER, plan::PodFacts};

/// Lets the open attempt run and fail at its start; returns the wait before the next.
fn fail(scene: &mut Scene) -> Option<i64> {
    let number = scene.status().open_attempt().unwrap().number;
    let now = scene.next_start();
    scene.all(number, PodFacts::running);
    scene.look(now);
    scene.all(number, |p| p.ended(1, "boom", now));
    scene.look(now);
    scene.status().open_attempt()?;
    Some(scene.next_start() - now)
}

#[test]
fn waits_double_up_to_the_maximum_and_are_spread_by_a_tenth() {
    let spec = json!({"backoffLimit": 9, "failurePolicy": {"backoffBaseSeconds": 100, "backoffMaxSeconds": 1000}});
    let mut firsts = BTreeSet::new();
    for uid in 0..200 {
        let mut scene = Scene::started(1, spec.clone());
        scene.job.metadata.uid = Some(format!("0b9fe3c2-{uid:04}"));
        for (n, nominal) in [100, 200, 400, 800, 1000, 1000].into_iter().enumerate() {
            let wait = fail(&mut scene).unwrap();
            let most = (nominal * 11 / 10).min(1000);
            assert!(
                (nominal * 9 / 10..=most).contains(&wait),
                "retry {n}: {wait}"
            );
            if n == 0 {
                firsts.insert(wait);
            }
        }
    }
    assert!(
        firsts.len() > 15,
        "jobs that failed together come back apart: {firsts:?}"
    );
}

#[test]
fn the_default_waits_are_those_that_the_field_documents() {
    let mut scene = Scene::started(1, json!({"backoffLimit": 8}));
    let waits: Vec<i64> = std::iter::from_fn(|| fail(&mut scene)).collect();
    assert_eq!(waits.len(), 8);
    for (wait, nominal) in waits.into_iter().zip([10, 20, 40, 80, 160, 320, 600, 600]) {
        assert!((nominal * 9 / 10..=nominal * 11 / 10).contains(&wait) && wait <= 600);
    }
}

#[test]
fn the_budget_is_spent_exactly_and_then_the_job_has_failed() {
    let mut scene = Scene::started(1, json!({"backoffLimit": 2}));
    while fail(&mut scene).is_some() {}
    assert_eq!(scene.status().retries, 2);
    let message = "attempt 3 failed: rank 0 (pod ddp-3-0 on node gpu-0) exited with code 1: boom; not retried: backoffLimit 2 is spent";
    assert_eq!(
        (scene.reason(), scene.message()),
        ("BackoffLimitExceeded", message)
    );
    let decisions: Vec<_> = scene.ledger().into_iter().map(|l| l.2.unwrap()).collect();
    assert!(decisions[0].starts_with("retry 1 of 2 in "));
    assert_eq!(decisions[2], "not retried: backoffLimit 2 is spent");
}

#[test]
fn a_limit_of_0_means_no_retry() {
    let mut scene = Scene::started(1, json!({"backoffLimit": 0}));
    assert_eq!(fail(&mut scene), None);
    assert!(
        scene
            .message()
            .ends_with("; not retried: backoffLimit is 0")
    );
}

#[test]
fn a_backoff_of_0_retries_at_once_and_says_so() {
    let mut scene = Scene::running(1, json!({"failurePolicy": {"backoffBaseSeconds": 0}}));
    scene.pods([pod(1, 0).ended(1, "boom", 5)]);
    assert_eq!(scene.look(5).effects, [create(2, 0)]);
    assert!(scene.message().ends_with("; retry 1 of 3 at once"));
}

#[test]
fn the_ledger_keeps_the_newest_ten_and_numbers_go_on() {
    let mut scene = Scene::started(1, json!({"backoffLimit": 15}));
    while fail(&mut scene).is_some() {
        let numbers: Vec<i32> = scene.ledger().iter().map(|l| l.0).collect();
        assert!(numbers.len() <= MAX_LEDGER);
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    }
    let numbers: Vec<i32> = scene.ledger().iter().map(|l| l.0).collect();
    assert_eq!(numbers, (7..=16).collect::<Vec<_>>());
}

#[test]
fn a_success_after_retries_says_how_many() {
    for (retries, tail) in [(1, " after 1 retry"), (2, " after 2 retries")] {
        let mut scene = Scene::started(1, json!({}));
        for _ in 0..retries {
            fail(&mut scene).unwrap();
        }
        let (number, now) = (retries + 1, scene.next_start());
        scene.all(number, |p| p.ended(0, "", now));
        scene.look(now);
        assert_eq!(
            scene.message(),
            format!("the node ended with exit code 0{tail}")
        );
    }
}

#[test]
fn the_time_of_the_next_retry_is_shown_while_it_is_waited_for_and_not_after() {
    let mut scene = Scene::running(1, json!({}));
    scene.pods([pod(1, 0).ended(1, "boom", 5)]);
    scene.look(5);
    let start = scene.next_start();
    let shown = scene.status().next_retry_time.clone().unwrap();
    assert_eq!(shown.0, super::builders::at(start));
    scene.seen.opened_here = true;
    scene.all(2, PodFacts::running);
    scene.look(start);
    assert_eq!(scene.status().next_retry_time, None);
}
