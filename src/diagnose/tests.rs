//! Tables: evidence → diagnosis. Here are the builders.

mod causes;
mod ends;
mod gangs;
mod logs;
mod order;
mod rulebook;
mod starts;

use k8s_openapi::jiff::Timestamp;

use super::{Diagnosis, RankEvidence, RuleBook, Tail, failure};
use crate::api::FailureClass;
use crate::plan::{Phase, PodFacts, Reason, Terminated, Waiting};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn pod(rank: i32) -> PodFacts {
    PodFacts {
        name: format!("ddp-1-{rank}"),
        rank,
        attempt: 1,
        phase: Phase::Running,
        node: Some(format!("gpu-{rank}")),
        ..PodFacts::default()
    }
}

fn ended(rank: i32, exit_code: i32, reason: &str, message: &str, when: Option<i64>) -> PodFacts {
    PodFacts {
        phase: if exit_code == 0 {
            Phase::Succeeded
        } else {
            Phase::Failed
        },
        terminated: Some(Terminated {
            container: "trainer".into(),
            exit_code,
            reason: reason.into(),
            message: message.into(),
            finished: when.map(at),
        }),
        ..pod(rank)
    }
}

fn disrupted(pod: PodFacts, reason: &str) -> PodFacts {
    PodFacts {
        disruption: Some(Reason {
            reason: reason.into(),
            message: String::new(),
        }),
        ..pod
    }
}

fn waits(reason: &str, message: &str) -> PodFacts {
    PodFacts {
        phase: Phase::Pending,
        waiting: Some(Waiting {
            container: "trainer".into(),
            reason: reason.into(),
            message: message.into(),
        }),
        ..pod(0)
    }
}

/// Of pods alone.
fn of(pods: &[PodFacts]) -> Option<Diagnosis> {
    let ranks: Vec<RankEvidence> = pods.iter().map(RankEvidence::of).collect();
    failure(&ranks, &RuleBook::default())
}

/// Of a pod that exited with `code` behind this log.
fn log(code: i32, log: &str) -> Diagnosis {
    let pod = ended(0, code, "Error", "", Some(5));
    let tail = Tail {
        bytes: log.as_bytes().to_vec(),
        stamped: false,
    };
    let evidence = RankEvidence {
        tail: Some(&tail),
        ..RankEvidence::of(&pod)
    };
    failure(&[evidence], &RuleBook::default()).unwrap()
}

fn traceback(end: &str) -> String {
    format!(
        "Traceback (most recent call last):\n  File \"/work/train.py\", line 88, in <module>\n    main()\n  File \"/work/train.py\", line 61, in main\n    step(batch)\n{end}\n"
    )
}

fn steps(from: u32, to: u32) -> String {
    (from..to)
        .map(|n| format!("step {n}: loss 0.{n} error_rate 0.1 grad_norm 1.0\n"))
        .collect()
}

#[track_caller]
fn is(text: &str, class: FailureClass, line: &str) {
    let found = log(1, text);
    assert_eq!(
        (found.class, found.root_cause.message.as_str()),
        (class, line),
        "rule {:?} in\n{text}",
        found.rule
    );
}
