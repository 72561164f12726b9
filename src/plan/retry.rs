//! What to do about an attempt that has failed: another one, and when, or the end of the job.
//!
//! The next attempt is entered into the ledger by the same write that records the failure, with its
//! start in the future: one write a retry, and the count is stored before anything is created.

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{Event, Plan, record::Draft};
use crate::{
    api::{FailureAction, TrainingJob, TrainingJobStatus, reasons},
    diagnose::Diagnosis,
};

/// Ceiling of restarts that are not charged to `backoffLimit`, over the life of a job: without one,
/// a fault that only looks like infrastructure would be retried for ever.
const MAX_IGNORED: i32 = 50;

/// The attempt failed for the reason in `diagnosis`.
pub(super) fn failed(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    diagnosis: &Diagnosis,
    now: Timestamp,
) -> Plan {
    let limit = job.spec.backoff_limit;
    let retry = stored.retries + 1;
    if diagnosis.policy.action == FailureAction::Fail {
        return give_up(
            job,
            stored,
            diagnosis,
            reasons::NOT_RETRYABLE,
            "not retried: a retry can't fix this",
            now,
        );
    }
    if retry > limit {
        let decision = if limit == 0 {
            "not retried: backoffLimit is 0".to_owned()
        } else {
            format!("not retried: backoffLimit {limit} is spent")
        };
        return give_up(
            job,
            stored,
            diagnosis,
            reasons::BACKOFF_LIMIT_EXCEEDED,
            &decision,
            now,
        );
    }
    let wait = backoff(job, retry);
    let mut draft = Draft::new(job, stored, now);
    draft.status.retries = retry;
    let when = match wait {
        0 => "at once".to_owned(),
        s => format!("in {s} s"),
    };
    let decision = format!("retry {retry} of {limit} {when}");
    again(draft, diagnosis, wait, &decision, now)
}

/// The attempt was cut short by something that is not the job's fault: it is repeated at once.
pub(super) fn interrupted(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    diagnosis: &Diagnosis,
    now: Timestamp,
) -> Plan {
    if stored.retries_ignored >= MAX_IGNORED {
        return give_up(
            job,
            stored,
            diagnosis,
            reasons::TOO_MANY_INTERRUPTIONS,
            &format!(
                "not retried: {MAX_IGNORED} restarts that were not charged are the most for one job"
            ),
            now,
        );
    }
    let mut draft = Draft::new(job, stored, now);
    draft.status.retries_ignored += 1;
    again(
        draft,
        diagnosis,
        0,
        "started again at once, not charged to backoffLimit",
        now,
    )
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
    draft.close_attempt(Some(diagnosis.root_cause.clone()), decision);
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
    draft.close_attempt(Some(diagnosis.root_cause.clone()), decision);
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

/// Seconds before retry `n` (from 1): base × 2^(n−1), at most the maximum, give or take 10 %, so
/// that jobs that failed together do not come back together. The jitter is drawn from the job's uid
/// and `n`, because a plan has no randomness of its own.
fn backoff(job: &TrainingJob, n: i32) -> i64 {
    let policy = job.spec.failure_policy.clone().unwrap_or_default();
    let doublings = u32::try_from(n - 1).unwrap_or(0).min(32);
    let wait = policy
        .backoff_base_seconds
        .saturating_mul(1_i64 << doublings)
        .min(policy.backoff_max_seconds);
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
    (wait * per_mille / 1000).min(policy.backoff_max_seconds)
}
