//! The lives of jobs that are run again and again.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    collector::Logs,
    kubelet::Outcome,
    world::{Act, Expected, Scenario},
};

fn spec(nodes: i64, more: Value) -> Value {
    let mut spec = json!({
        "runtimeRef": {"name": "r"}, "command": ["train"], "numNodes": nodes,
        "failurePolicy": {"backoffBaseSeconds": 0, "backoffMaxSeconds": 600},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

fn outcome(after: u64, exit_code: i64) -> Outcome {
    Outcome {
        after: Duration::from_secs(after),
        exit_code,
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn succeeds(_: i64, _: i64) -> Outcome {
    outcome(3, 0)
}

/// Rank 1 fails until two retries have been charged.
fn fails_twice(retries: i64, rank: i64) -> Outcome {
    match (retries, rank) {
        (0 | 1, 1) => outcome(2, 1),
        (0 | 1, _) => outcome(3600, 0),
        _ => outcome(3, 0),
    }
}

fn fails(_: i64, rank: i64) -> Outcome {
    outcome(2 + 3 * u64::try_from(rank).unwrap_or(0), 1)
}

fn runs_long(_: i64, _: i64) -> Outcome {
    outcome(90, 0)
}

fn runs_for_ever(_: i64, _: i64) -> Outcome {
    outcome(1_000_000, 0)
}

pub fn one_node() -> Scenario {
    Scenario {
        name: "one node succeeds",
        spec: spec(1, json!({})),
        program: succeeds,
        script: Vec::new(),
        end: Expected::As("True", "Completed", 0),
        logs: Logs::Stored,
        and_rest: true,
    }
}

pub fn gang_retried_at_once() -> Scenario {
    Scenario {
        name: "a gang fails twice, is retried at once and succeeds",
        spec: spec(2, json!({})),
        program: fails_twice,
        script: Vec::new(),
        end: Expected::As("True", "Completed", 2),
        logs: Logs::Stored,
        and_rest: true,
    }
}

pub fn gang_retried_later() -> Scenario {
    Scenario {
        name: "a gang fails twice, is retried after its backoff and succeeds",
        spec: spec(
            2,
            json!({"failurePolicy": {"backoffBaseSeconds": 10, "backoffMaxSeconds": 600}}),
        ),
        ..gang_retried_at_once()
    }
}

pub fn retries_spent() -> Scenario {
    Scenario {
        name: "a gang fails until its retries are spent",
        spec: spec(2, json!({"backoffLimit": 1})),
        program: fails,
        script: Vec::new(),
        end: Expected::As("False", "BackoffLimitExceeded", 1),
        logs: Logs::Stored,
        and_rest: true,
    }
}

pub fn suspended() -> Scenario {
    Scenario {
        name: "a gang is suspended, resumed and succeeds",
        spec: spec(2, json!({})),
        program: runs_long,
        script: vec![(s(5), Act::Suspend), (s(20), Act::Resume)],
        end: Expected::As("True", "Completed", 0),
        logs: Logs::Stored,
        and_rest: true,
    }
}

pub fn suspended_for_a_moment() -> Scenario {
    Scenario {
        name: "a gang is suspended, resumed at once and succeeds",
        script: vec![
            (s(5), Act::Suspend),
            (Duration::from_millis(5050), Act::Resume),
        ],
        ..suspended()
    }
}

pub fn too_late() -> Scenario {
    Scenario {
        name: "a gang runs into its deadline",
        spec: spec(2, json!({"activeDeadlineSeconds": 20})),
        program: runs_for_ever,
        script: Vec::new(),
        end: Expected::As("False", "DeadlineExceeded", 0),
        logs: Logs::Stored,
        and_rest: true,
    }
}

pub fn deleted() -> Scenario {
    Scenario {
        name: "a job is deleted while it runs",
        script: vec![(s(5), Act::Delete)],
        end: Expected::Gone,
        ..suspended()
    }
}

pub fn applied_anew() -> Scenario {
    Scenario {
        name: "a job is deleted and applied anew under its name",
        script: vec![
            (s(5), Act::Delete),
            (Duration::from_millis(5100), Act::Apply),
        ],
        ..suspended()
    }
}

/// Its pods get the names that the first job's had.
pub fn suspended_and_applied_anew() -> Scenario {
    Scenario {
        name: "a suspended job is deleted and applied anew under its name",
        script: vec![
            (s(5), Act::Suspend),
            (Duration::from_millis(5500), Act::Delete),
            (s(6), Act::Apply),
        ],
        and_rest: false,
        ..suspended()
    }
}

pub fn nobody_collects() -> Scenario {
    Scenario {
        name: "a gang fails twice, is retried and succeeds, and the collector is down",
        logs: Logs::Silent,
        ..gang_retried_later()
    }
}

/// The runtime comes an hour after the job: the job has to wait in silence and then start.
pub fn waits_for_its_runtime() -> Scenario {
    Scenario {
        name: "a job waits for its runtime",
        script: vec![(s(3600), Act::ApplyRuntime)],
        ..one_node()
    }
}

pub fn all() -> Vec<Scenario> {
    vec![
        one_node(),
        gang_retried_at_once(),
        gang_retried_later(),
        retries_spent(),
        suspended(),
        suspended_for_a_moment(),
        too_late(),
        deleted(),
        applied_anew(),
        waits_for_its_runtime(),
        nobody_collects(),
    ]
}
