//! Wrong failure policies: one would be found out at the first failure, in the night. A job's and a
//! runtime's have the same rules.

use crate::manifest::{Wrong, check, job, wrong};

/// What stands in `failurePolicy`; `PATH` is where that is.
const TABLE: &[Wrong] = &[
    wrong(
        "a rule that matches everything, or nothing",
        "{rules: [{name: a, class: Storage}]}",
        &[
            "PATH.rules[0]: Invalid value: a failure rule must say what it matches: give onLogPatterns, onExitCodes, onPodReasons, onPodConditions or onTerminationMessage; to change what is done about a whole class, use classes",
        ],
    ),
    wrong(
        "a pattern that never matches, as it is none",
        "{rules: [{name: a, class: Storage, onLogPatterns: ['ok', '(unclosed']}]}",
        &[
            "PATH.rules[0].onLogPatterns: Invalid value: \"array\": error parsing regexp: missing closing ): `(unclosed` evaluating rule: a pattern in onLogPatterns is no regular expression: see https://github.com/google/re2/wiki/Syntax",
        ],
    ),
    wrong(
        "the same in the termination message",
        "{rules: [{name: a, class: Storage, onTerminationMessage: ['[']}]}",
        &[
            "PATH.rules[0].onTerminationMessage: Invalid value: \"array\": error parsing regexp: missing closing ]: `[` evaluating rule: a pattern in onTerminationMessage is no regular expression: see https://github.com/google/re2/wiki/Syntax",
        ],
    ),
    wrong(
        "a success would count as a failure",
        "{rules: [{name: a, class: Storage, onExitCodes: [0]}]}",
        &["PATH.rules[0].onExitCodes: Invalid value: onExitCodes must be 1 to 255: 0 is success"],
    ),
    wrong(
        "a class that nobody reads",
        "{classes: [{class: Storrage}]}",
        &[
            "PATH.classes[0].class: Unsupported value: \"Storrage\": supported values: \"UserError\", \"DataError\", \"ConfigError\", \"ImagePull\", \"Unschedulable\", \"HostOutOfMemory\", \"GpuOutOfMemory\", \"GpuHardware\", \"Communication\", \"Storage\", \"NodeLost\", \"Preempted\", \"Evicted\", \"Interrupted\", \"Hang\", \"DeadlineExceeded\", \"Unknown\"",
        ],
    ),
    wrong(
        "an action that nobody takes",
        "{classes: [{class: Storage, action: Restart}]}",
        &[
            "PATH.classes[0].action: Unsupported value: \"Restart\": supported values: \"Retry\", \"RetryIgnoreLimit\", \"Fail\"",
        ],
    ),
    wrong(
        "retries of what is not retried",
        "{rules: [{name: a, class: Storage, onExitCodes: [3], action: Fail, maxRetries: 2}]}",
        &[
            "PATH.rules[0]: Invalid value: action Fail allows no retry, so maxRetries, avoidNode and the backoff mean nothing with it: remove them, or choose Retry",
        ],
    ),
    wrong(
        "the same for a class",
        "{classes: [{class: Storage, action: Fail, avoidNode: true}]}",
        &[
            "PATH.classes[0]: Invalid value: action Fail allows no retry, so maxRetries, avoidNode and the backoff mean nothing with it: remove them, or choose Retry",
        ],
    ),
    wrong(
        "the status could not say which of two rules matched",
        "{rules: [{name: a, class: Storage, onExitCodes: [3]}, {name: a, class: Hang, onExitCodes: [4]}]}",
        &[
            "PATH.rules: Invalid value: two failure rules have the same name: give each its own, or remove one",
        ],
    ),
    wrong(
        "one of two policies would win by chance",
        "{classes: [{class: Storage}, {class: Storage, action: Fail}]}",
        &[
            "PATH.classes: Invalid value: two entries of classes have the same class: give each its own, or remove one",
        ],
    ),
    wrong(
        "a negative number of retries",
        "{classes: [{class: Storage, maxRetries: -1}]}",
        &[
            "PATH.classes[0].maxRetries: Invalid value: -1: maxRetries must be 0 to 100; 0 means no retry",
        ],
    ),
    wrong(
        "a wait of days, and a name that no label takes",
        "{rules: [{name: A B, class: Storage, onExitCodes: [3], backoffBaseSeconds: 90000}]}",
        &[
            "PATH.rules[0].backoffBaseSeconds: Invalid value: 90000: backoffBaseSeconds must be 0 to 86400 (a day); 0 retries at once",
            "PATH.rules[0].name: Invalid value: \"A B\": a rule's name must be lower-case letters, digits and '-', such as flaky-mount",
        ],
    ),
    wrong(
        "a first wait longer than the longest",
        "{rules: [{name: a, class: Storage, onExitCodes: [3], backoffBaseSeconds: 9, backoffMaxSeconds: 3}]}",
        &[
            "PATH.rules[0]: Invalid value: backoffBaseSeconds must not exceed backoffMaxSeconds: raise the maximum too",
        ],
    ),
    wrong(
        "a list that can't match",
        "{rules: [{name: a, class: Storage, onLogPatterns: []}]}",
        &[
            "PATH.rules[0].onLogPatterns: Invalid value: 0: PATH.rules[0].onLogPatterns in body should have at least 1 items",
        ],
    ),
];

#[tokio::test]
async fn a_jobs_failure_rule_that_could_not_work_is_refused_when_it_is_applied() {
    let template = |policy: &str| job(&format!("failurePolicy: {policy}"));
    check("wrong-policy", template, &at("spec.failurePolicy")).await;
}

#[tokio::test]
async fn a_runtimes_failure_rule_that_could_not_work_is_refused_when_it_is_applied() {
    let template = |policy: &str| {
        format!(
            "apiVersion: trainyard.dev/v1alpha1
kind: TrainingRuntime
metadata: {{name: ours}}
spec: {{image: a, failurePolicy: {policy}}}"
        )
    };
    check("wrong-rt-policy", template, &at("spec.failurePolicy")).await;
}

#[tokio::test]
async fn a_hang_that_would_never_or_always_be_found_is_refused() {
    check("wrong-progress", job, &[
        wrong("every attempt would hang at once", "progressTimeoutSeconds: 0", &[
            "spec.progressTimeoutSeconds: Invalid value: 0: progressTimeoutSeconds must be 1 to 315360000 (ten years); leave it out to wait for ever"]),
        wrong("no line would ever be progress", "progressPattern: 'step ['", &[
            "spec.progressPattern: Invalid value: \"string\": error parsing regexp: missing closing ]: `[` evaluating rule: progressPattern is no regular expression: see https://github.com/google/re2/wiki/Syntax"]),
    ]).await;
}

fn at(path: &str) -> Vec<Wrong> {
    let leak = |s: String| -> &'static str { s.leak() };
    TABLE
        .iter()
        .map(|row| Wrong {
            says: row
                .says
                .iter()
                .map(|s| leak(s.replace("PATH", path)))
                .collect::<Vec<_>>()
                .leak(),
            ..*row
        })
        .collect()
}
