//! What to do about an attempt that has failed: another one, and when, or the end of the job.
//!
//! The class of the failure decides ([`Policy`]): it is retried and charged to `backoffLimit`, retried
//! and not charged, or final; every class may have a ceiling of its own, counted in
//! `status.failures`, which the trimming of the ledger does not touch.
//!
//! The next attempt is entered into the ledger by the same write that records the failure, with its
//! start in the future: one write a retry, and the count is stored before anything is created.

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{Event, Plan, record::Draft};
use crate::{
    api::{Attempt, FailureAction, FailureClass, TrainingJob, TrainingJobStatus, reasons},
    diagnose::{Diagnosis, Policy},
};

/// Ceiling of restarts that are not charged to `backoffLimit`, over the life of a job and all classes:
/// without one, a fault that only looks like infrastructure would be retried for ever.
const MAX_IGNORED: i32 = 50;

/// How long a node is avoided after a failure that it may be to blame for (hours): long enough for a
/// night's retries to stay away from it, and a repaired node is taken again the next day.
const AVOID_HOURS: i64 = 24;

/// What is decided about a failure.
enum Verdict {
    /// Another attempt after `wait` seconds.
    Again {
        wait: i64,
        charged: bool,
        decision: String,
    },
    /// The job fails for good.
    End {
        reason: &'static str,
        decision: String,
    },
}

/// The attempt failed for the reason in `diagnosis`.
pub(super) fn failed(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    diagnosis: &Diagnosis,
    now: Timestamp,
) -> Plan {
    let avoid = avoided_node(stored, diagnosis);
    match judge(job, stored, diagnosis, avoid.is_some()) {
        Verdict::End { reason, decision } => {
            give_up(job, stored, diagnosis, reason, &decision, now)
        }
        Verdict::Again {
            wait,
            charged,
            decision,
        } => {
            let mut draft = Draft::new(job, stored, now);
            if charged {
                draft.status.retries += 1;
            } else {
                draft.status.retries_ignored += 1;
            }
            if let Some(node) = avoid {
                let until = now.checked_add(AVOID_HOURS.hours()).unwrap_or(now);
                draft.avoid(node, diagnosis.class, until);
            }
            again(draft, diagnosis, wait, &decision, now)
        }
    }
}

fn judge(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    diagnosis: &Diagnosis,
    elsewhere: bool,
) -> Verdict {
    let (class, policy) = (diagnosis.class, diagnosis.policy);
    let limit = job.spec.backoff_limit;
    let before = stored.failures.get(&class).copied().unwrap_or(0);
    let end = |reason, decision| Verdict::End { reason, decision };
    if policy.action == FailureAction::Fail {
        return end(
            reasons::NOT_RETRYABLE,
            format!("not retried: {}", no_use(class)),
        );
    }
    if let Some(max) = policy.max_retries.filter(|max| before >= *max) {
        let decision = match max {
            0 => format!("not retried: no retry is allowed for {class}"),
            1 => format!("not retried: the one retry for {class} is spent"),
            n => format!("not retried: the {n} retries for {class} are spent"),
        };
        return end(reasons::MAX_RETRIES_EXCEEDED, decision);
    }
    let place = if elsewhere { " on another node" } else { "" };
    if policy.action == FailureAction::RetryIgnoreLimit {
        if stored.retries_ignored >= MAX_IGNORED {
            let decision = format!(
                "not retried: {MAX_IGNORED} restarts that were not charged are the most for one job"
            );
            return end(reasons::TOO_MANY_INTERRUPTIONS, decision);
        }
        let wait = backoff(job, policy, before + 1);
        let decision = format!(
            "started again {}{place}, not charged to backoffLimit",
            when(wait)
        );
        return Verdict::Again {
            wait,
            charged: false,
            decision,
        };
    }
    let retry = stored.retries + 1;
    if retry > limit {
        let decision = if limit == 0 {
            "not retried: backoffLimit is 0".to_owned()
        } else {
            format!("not retried: backoffLimit {limit} is spent")
        };
        return end(reasons::BACKOFF_LIMIT_EXCEEDED, decision);
    }
    let n = if policy.backoff_base_seconds.is_some() {
        before + 1
    } else {
        retry
    };
    let wait = backoff(job, policy, n);
    let decision = format!("retry {retry} of {limit} {}{place}", when(wait));
    Verdict::Again {
        wait,
        charged: true,
        decision,
    }
}

/// Why a retry of this class is no use.
fn no_use(class: FailureClass) -> &'static str {
    match class {
        FailureClass::UserError => "a user error, which every attempt would repeat",
        FailureClass::DataError => "the data would be the same",
        FailureClass::ConfigError => "the job's surroundings would be the same",
        FailureClass::HostOutOfMemory | FailureClass::GpuOutOfMemory => {
            "every attempt would need the same memory"
        }
        FailureClass::ImagePull => "the image would be missing again",
        FailureClass::DeadlineExceeded => "its time is up",
        _ => "the failure policy says so",
    }
}

/// The node to keep away from: where the class says so, or where the job has failed before without
/// an explanation that is its own.
fn avoided_node<'a>(stored: &TrainingJobStatus, diagnosis: &'a Diagnosis) -> Option<&'a str> {
    let node = diagnosis.root_cause.node.as_deref()?;
    let failed_there = |a: &Attempt| {
        let cause = a.root_cause.as_ref().and_then(|c| c.node.as_deref());
        cause == Some(node) && a.class == Some(FailureClass::Unknown)
    };
    let again =
        diagnosis.class == FailureClass::Unknown && stored.attempts.iter().any(failed_there);
    (diagnosis.policy.avoid_node || again).then_some(node)
}

/// The job fails for good, with an attempt open.
pub(super) fn give_up(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    diagnosis: &Diagnosis,
    reason: &'static str,
    decision: &str,
    now: Timestamp,
) -> Plan {
    let mut draft = Draft::new(job, stored, now);
    let message = format!("{}; {decision}", sentence(stored, diagnosis));
    draft.close_failed(diagnosis, decision);
    draft.finish(false, reason, message.clone());
    let event = Event {
        warning: true,
        reason,
        note: message,
    };
    Plan::record(draft.status, Some(event))
}

fn again(
    mut draft: Draft,
    diagnosis: &Diagnosis,
    wait: i64,
    decision: &str,
    now: Timestamp,
) -> Plan {
    let message = format!("{}; {decision}", sentence(&draft.status, diagnosis));
    draft.close_failed(diagnosis, decision);
    let start = now.checked_add(wait.seconds()).unwrap_or(now);
    draft.open_attempt(start);
    draft.status.next_retry_time = draft.status.attempts.last().map(|a| a.start_time.clone());
    draft.active(reasons::RETRYING, message.clone());
    let event = Event {
        warning: true,
        reason: "AttemptFailed",
        note: message,
    };
    Plan::record(draft.status, Some(event))
}

/// "attempt 2 failed: rank 1 (pod ddp-2-1 on node gpu-7) exited with code 1: ValueError: …"
fn sentence(status: &TrainingJobStatus, diagnosis: &Diagnosis) -> String {
    let summary = diagnosis.summary.trim_end_matches('.');
    status.open_attempt().map_or_else(
        || summary.to_owned(),
        |attempt| format!("attempt {} failed: {summary}", attempt.number),
    )
}

fn when(wait: i64) -> String {
    match wait {
        0 => "at once".to_owned(),
        s => format!("in {s} s"),
    }
}

/// Seconds before retry `n` (from 1): base × 2^(n−1), at most the maximum, give or take 10 %, so
/// that jobs that failed together do not come back together. The jitter is drawn from the job's uid
/// and `n`, because a plan has no randomness of its own.
fn backoff(job: &TrainingJob, policy: Policy, n: i32) -> i64 {
    let own = job.spec.failure_policy.clone().unwrap_or_default();
    // The job's longest wait holds for a class's own backoff too, unless that has one.
    let max = policy
        .backoff_max_seconds
        .unwrap_or(own.backoff_max_seconds);
    let base = policy
        .backoff_base_seconds
        .unwrap_or(own.backoff_base_seconds);
    let doublings = u32::try_from(n - 1).unwrap_or(0).min(32);
    let wait = base.saturating_mul(1_i64 << doublings).min(max);
    let seed = job
        .metadata
        .uid
        .as_deref()
        .unwrap_or_default()
        .bytes()
        .fold(u64::from(n.unsigned_abs()), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
        });
    let per_mille = 900 + i64::try_from(seed % 201).unwrap_or(100);
    (wait * per_mille / 1000).min(max)
}
