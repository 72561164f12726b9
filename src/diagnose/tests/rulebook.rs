//! Rules that people write, and their order.

use super::{ended, of};
use crate::{
    api::{ClassPolicy, FailureAction, FailureClass as C, FailureRule, FailureRules},
    diagnose::{Diagnosis, Origin, RankEvidence, RuleBook, Tail, failure},
};

fn rule(name: &str, class: C) -> FailureRule {
    FailureRule {
        name: name.into(),
        class,
        on_exit_codes: vec![],
        on_log_patterns: vec![],
        on_pod_reasons: vec![],
        on_pod_conditions: vec![],
        on_termination_message: vec![],
        action: None,
        max_retries: None,
        backoff_base_seconds: None,
        backoff_max_seconds: None,
        avoid_node: None,
        hint: None,
    }
}

fn rules(rules: Vec<FailureRule>) -> FailureRules {
    FailureRules {
        rules,
        classes: vec![],
    }
}

fn class(class: C) -> ClassPolicy {
    ClassPolicy {
        class,
        action: None,
        max_retries: None,
        backoff_base_seconds: None,
        backoff_max_seconds: None,
        avoid_node: None,
    }
}

fn judged(book: &RuleBook, log: &str) -> Diagnosis {
    let pod = ended(0, 1, "Error", "", Some(5));
    let tail = Tail {
        bytes: log.as_bytes().to_vec(),
        stamped: true,
    };
    let evidence = RankEvidence {
        tail: Some(&tail),
        ..RankEvidence::of(&pod)
    };
    failure(&[evidence], book).unwrap()
}

const LOG: &str = "2026-03-01T10:00:05.123456789Z mylib: shard server is busy\n2026-03-01T10:00:05.223456789Z Traceback (most recent call last):\n2026-03-01T10:00:05.223456789Z   File \"t.py\", line 1, in <module>\n2026-03-01T10:00:05.223456789Z ValueError: no shard\n";

#[test]
fn the_jobs_rules_come_before_the_runtimes_and_those_before_the_clusters_and_the_built_in() {
    let matching = |name: &str, class| FailureRule {
        on_log_patterns: vec!["^mylib: shard server is busy$".into()],
        ..rule(name, class)
    };
    let job = rules(vec![matching("job", C::Storage)]);
    let runtime = rules(vec![matching("runtime", C::Communication)]);
    let cluster = rules(vec![matching("cluster", C::Hang)]);
    let layers = [
        (Origin::Job, &job),
        (Origin::Runtime, &runtime),
        (Origin::Cluster, &cluster),
    ];
    for n in 0..3 {
        let (book, bad) = RuleBook::new(&layers[n..]);
        assert_eq!(bad, vec![]);
        let found = judged(&book, LOG);
        assert_eq!(
            found.rule.as_deref(),
            Some(["job", "runtime", "cluster"][n])
        );
        assert_eq!(found.root_cause.message, "mylib: shard server is busy");
    }
    let (book, _) = RuleBook::new(&[]);
    assert_eq!(judged(&book, LOG).class, C::UserError);
}

#[test]
fn every_list_that_is_given_must_match() {
    let both = FailureRule {
        on_exit_codes: vec![1, 3],
        on_log_patterns: vec!["shard server".into()],
        ..rule("both", C::Storage)
    };
    let code = FailureRule {
        on_exit_codes: vec![3],
        ..both.clone()
    };
    let reason = FailureRule {
        on_pod_reasons: vec!["OOMKilled".into()],
        ..both.clone()
    };
    for (rule, matches) in [(both, true), (code, false), (reason, false)] {
        let layer = rules(vec![rule]);
        let (book, _) = RuleBook::new(&[(Origin::Job, &layer)]);
        assert_eq!(judged(&book, LOG).class == C::Storage, matches);
    }
}

#[test]
fn a_condition_of_the_pod_can_be_asked_for_by_type_or_with_its_reason() {
    let mut pod = ended(0, 1, "Error", "boom", Some(5));
    pod.conditions = vec!["example.com/Fenced=Operator".into()];
    for (wanted, matches) in [
        ("example.com/Fenced", true),
        ("example.com/Fenced=Operator", true),
        ("example.com/Fenced=Other", false),
        ("Fenced", false),
    ] {
        let layer = rules(vec![FailureRule {
            on_pod_conditions: vec![wanted.into()],
            ..rule("fenced", C::NodeLost)
        }]);
        let (book, _) = RuleBook::new(&[(Origin::Job, &layer)]);
        let found = failure(&[RankEvidence::of(&pod)], &book).unwrap();
        assert_eq!(found.class == C::NodeLost, matches, "{wanted}");
    }
}

#[test]
fn a_bad_rule_is_reported_and_the_others_hold() {
    let pattern = |name: &str, pattern: &str| FailureRule {
        on_log_patterns: vec![pattern.into()],
        ..rule(name, C::Storage)
    };
    let layer = FailureRules {
        rules: vec![
            pattern("open", "(unclosed"),
            pattern("huge", r"(\w{500}){500}"),
            rule("nothing", C::Storage),
            FailureRule {
                action: Some(FailureAction::Fail),
                max_retries: Some(3),
                ..pattern("no-retry", "x")
            },
            FailureRule {
                backoff_base_seconds: Some(9),
                backoff_max_seconds: Some(3),
                ..pattern("backwards", "x")
            },
            pattern("good", "shard server"),
        ],
        classes: vec![ClassPolicy {
            action: Some(FailureAction::Fail),
            avoid_node: Some(true),
            ..class(C::Hang)
        }],
    };
    let (book, bad) = RuleBook::new(&[(Origin::Cluster, &layer)]);
    let names: Vec<&str> = bad.iter().map(|b| b.rule.as_str()).collect();
    assert_eq!(
        names,
        [
            "open",
            "huge",
            "nothing",
            "no-retry",
            "backwards",
            "for class Hang"
        ]
    );
    assert!(bad[0].to_string().contains("\"(unclosed\""), "{}", bad[0]);
    assert!(bad[1].problem.contains("too large"), "{}", bad[1]);
    assert_eq!(judged(&book, LOG).rule.as_deref(), Some("good"));
    assert_eq!(book.policy(C::Hang).action, FailureAction::Retry);
}

#[test]
fn the_strongest_policy_of_a_class_wins_and_the_rest_of_it_is_kept() {
    let job = FailureRules {
        rules: vec![],
        classes: vec![ClassPolicy {
            max_retries: Some(1),
            ..class(C::Storage)
        }],
    };
    let cluster = FailureRules {
        rules: vec![],
        classes: vec![ClassPolicy {
            max_retries: Some(9),
            avoid_node: Some(true),
            ..class(C::Storage)
        }],
    };
    let (book, _) = RuleBook::new(&[(Origin::Job, &job), (Origin::Cluster, &cluster)]);
    let policy = book.policy(C::Storage);
    assert_eq!(
        (policy.max_retries, policy.avoid_node, policy.action),
        (Some(1), true, FailureAction::Retry)
    );
}

#[test]
fn every_class_that_is_retried_has_a_ceiling() {
    let book = RuleBook::default();
    for class in C::ALL {
        let policy = book.policy(class);
        // What is charged ends with backoffLimit.
        let ceiling = policy.action != FailureAction::RetryIgnoreLimit;
        assert!(ceiling || policy.max_retries.is_some(), "{class}");
    }
    for class in [
        C::UserError,
        C::DataError,
        C::ConfigError,
        C::HostOutOfMemory,
    ] {
        assert_eq!(book.policy(class).action, FailureAction::Fail, "{class}");
    }
}

#[test]
fn a_rule_of_a_persons_own_does_not_change_whose_failure_it_is() {
    let layer = rules(vec![FailureRule {
        on_log_patterns: vec!["Connection closed by peer".into()],
        ..rule("lost", C::NodeLost)
    }]);
    let (book, _) = RuleBook::new(&[(Origin::Job, &layer)]);
    let pods = [
        ended(
            0,
            1,
            "Error",
            "RuntimeError: gloo: Connection closed by peer [10.0.0.1]:1",
            Some(3),
        ),
        ended(1, 1, "Error", "ValueError: no", Some(5)),
    ];
    let ranks: Vec<RankEvidence> = pods.iter().map(RankEvidence::of).collect();
    let found = failure(&ranks, &book).unwrap();
    assert_eq!(
        (found.root_cause.rank, found.class),
        (Some(1), C::UserError)
    );
    assert_eq!(of(&pods).unwrap().root_cause.rank, Some(1));
}
