//! The operator killed with -9 at random moments.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;

use crate::{
    retries::FAILS_TWICE,
    site::{Site, reason},
};

/// How often the operator is killed.
const KILLS: u32 = 50;

#[tokio::test]
async fn an_operator_killed_fifty_times_ends_every_job_as_an_undisturbed_one_would() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let site = Site::new("chaos").await;
    let quick = json!({"backoffBaseSeconds": 0, "backoffMaxSeconds": 0});
    let mut operator = site.operator();
    for kill in 0..KILLS {
        if kill % 5 == 0 {
            let round = kill / 5;
            let twice = json!({"command": ["sh", "-c", FAILS_TWICE], "numNodes": 2, "failurePolicy": quick});
            let never = json!({"command": ["false"], "backoffLimit": 2, "failurePolicy": quick});
            site.submit(&format!("twice-{round}"), twice).await;
            site.submit(&format!("never-{round}"), never).await;
        }
        // From before the new process has read its first list to well into its work.
        let pause = Duration::from_millis(random.random_range(50..1500));
        tokio::time::sleep(pause).await;
        operator.kill();
        operator = site.operator();
    }
    for round in 0..KILLS / 5 {
        let never = site.ended(&format!("never-{round}")).await;
        assert_eq!(reason(&never), "BackoffLimitExceeded");
        assert_eq!(never.retries, 2, "the budget is spent, and not exceeded");
        let twice = site.ended(&format!("twice-{round}")).await;
        assert_eq!(reason(&twice), "Completed", "{twice:#?}");
        assert!(twice.retries <= 2, "{twice:#?}");
    }
    site.history.assert_clean();
}
