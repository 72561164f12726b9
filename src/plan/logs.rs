//! The logs of pods that have ended: when a pod may go, and what the status says of the job's lines.
//!
//! Every pod has a finalizer ([`FINALIZER_LOGS`](crate::api::names::FINALIZER_LOGS)): whoever deletes
//! it (the operator, its user, a drain, the garbage collector), it stays as a pod that has ended until
//! the collector has said on it that its lines are stored to their end, or has had its time for that.
//! The finalizer holds no GPUs: those are free when the containers have ended.
//!
//! What the pods of an attempt say is added up in the ledger before the first of them is released, so
//! a crash in between counts nothing twice and forgets nothing. Late is not lost: a collector that
//! reports after its time corrects what the status says, as long as the pods are there.
//!
//! Not here: storing lines, and proving their end ([`crate::logs`]).

use k8s_openapi::jiff::Timestamp;

use super::{
    Effect, Event, Observed, Plan, PodFacts,
    record::{Draft, Is},
};
use crate::api::{Attempt, LogsStatus, TrainingJob, TrainingJobStatus, conditions, reasons};

/// Enters into the ledger what is stored of the attempts that have ended since.
pub(super) fn settle(
    job: &TrainingJob,
    status: &mut TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) {
    if observed.log_drain.is_none() {
        return;
    }
    for attempt in &mut status.attempts {
        if attempt.logs.is_some() || attempt.end_time.is_none() {
            continue;
        }
        if let Some(logs) = stored_of(job, attempt, observed, now) {
            attempt.logs = Some(logs);
            status.logs.get_or_insert_default().add(logs);
        }
    }
}

/// What is stored of an attempt; None while the end of one of its logs is not settled.
fn stored_of(
    job: &TrainingJob,
    attempt: &Attempt,
    observed: &Observed,
    now: Timestamp,
) -> Option<LogsStatus> {
    let mut sum = LogsStatus::default();
    let mut there = 0;
    for pod in observed.pods.iter().filter(|p| p.attempt == attempt.number) {
        there += 1;
        match pod.logs.filter(|_| pod.terminal()) {
            Some(logs) => {
                // What is incomplete has a gap, whatever the message says.
                let gaps = logs.gaps.max(i64::from(!logs.complete));
                sum.add(LogsStatus { gaps, ..logs });
            }
            None if pod.never_ran() => {}
            None if overdue_at(pod, observed).is_some_and(|at| at <= now) => sum.gaps += 1,
            None => return None,
        }
    }
    // Whoever took these away has not waited for anything.
    if attempt.pods_created {
        sum.gaps += i64::from((job.spec.num_nodes - there).max(0));
    }
    sum.complete = sum.gaps == 0;
    Some(sum)
}

/// When a pod that is to go has waited long enough: `log_drain` after it has ended, or should have.
fn overdue_at(pod: &PodFacts, observed: &Observed) -> Option<Timestamp> {
    let ended = pod.terminated.as_ref().and_then(|t| t.finished);
    let stopped = ended.filter(|_| pod.stopping && pod.terminal());
    let from = pod
        .deletion
        .max(stopped)?
        .max(ended.unwrap_or(Timestamp::MIN));
    from.checked_add(observed.log_drain.unwrap_or_default())
        .ok()
}

/// A write that drops attempts from the ledger whose logs are not settled must not forget that.
pub(super) fn keep_count(
    before: &TrainingJobStatus,
    after: &mut TrainingJobStatus,
    observed: &Observed,
) {
    if observed.log_drain.is_none() {
        return;
    }
    let oldest = after.attempts.first().map_or(0, |a| a.number);
    let unsettled = before
        .attempts
        .iter()
        .filter(|a| a.number < oldest && a.end_time.is_some() && a.logs.is_none());
    let dropped = i64::try_from(unsettled.count()).unwrap_or(i64::MAX);
    if dropped > 0 {
        after.logs.get_or_insert_default().gaps += dropped;
    }
}

/// The pods that are being deleted and may go now.
pub(super) fn release(
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Vec<Effect> {
    let pods = observed.pods.iter().filter(|p| p.draining());
    pods.filter(|pod| may_go(pod, stored, observed, now))
        .map(|pod| Effect::ReleasePod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        })
        .collect()
}

/// When the next of the pods that wait for their logs has waited long enough.
pub(super) fn next_release(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let pods = observed.pods.iter();
    pods.filter(|p| p.draining() || (p.stopping && p.logs.is_none()))
        .filter_map(|pod| overdue_at(pod, observed))
        .filter(|at| *at > now)
        .min()
}

fn may_go(pod: &PodFacts, stored: &TrainingJobStatus, observed: &Observed, now: Timestamp) -> bool {
    let mut attempts = stored.attempts.iter();
    let may_go = match attempts.find(|a| a.number == pod.attempt) {
        // Counted is what is stored, or as a gap what has had its time.
        Some(attempt) => attempt.logs.is_some(),
        None => pod.never_ran() || (pod.terminal() && pod.logs.is_some()),
    };
    may_go || overdue_at(pod, observed).is_none_or(|at| at <= now)
}

/// Whether a pod whose job is gone, or is being deleted, may go. Nobody counts its lines any more.
#[must_use]
pub fn may_go_alone(pod: &PodFacts, observed: &Observed, now: Timestamp) -> bool {
    may_go(pod, &TrainingJobStatus::default(), observed, now)
}

/// The job ends with this status: from now on it says how far its logs are.
pub(super) fn drain(
    job: &TrainingJob,
    status: &mut TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) {
    if observed.log_drain.is_some() {
        let mut draft = Draft::new(job, status, now);
        draining(&mut draft);
        *status = draft.status;
    }
}

fn draining(draft: &mut Draft) {
    let message = "the ends of the logs are being read";
    let kind = conditions::LOGS_COMPLETE;
    draft.set(kind, Is::Unknown, reasons::DRAINING, message);
}

/// What the status of a job that has ended says of its logs, and when to look again. A job that ended
/// where nobody collected logs says nothing.
pub(super) fn conclude(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let Some(patience) = observed.log_drain.filter(|_| !stored.logs_settled()) else {
        return Plan::default();
    };
    let mut draft = Draft::new(job, stored, now);
    let (is, reason, message) = if stored.attempts.iter().all(|a| a.logs.is_some()) {
        let sum = draft.status.logs.get_or_insert_default();
        sum.complete = sum.gaps == 0;
        verdict(*sum)
    } else {
        let end = stored.completion_time.as_ref().map(|t| t.0);
        let due = end.and_then(|end| end.checked_add(patience).ok());
        if due.is_some_and(|due| now < due) {
            draining(&mut draft);
            return Plan::record(draft.status, None).until(due, now);
        }
        let seconds = patience.as_secs();
        let message = format!(
            "the collector has not said within {seconds} s that all logs are stored to their end, so lines may be missing: check that it runs; this is corrected when it reports"
        );
        (Is::False, reasons::NOT_REPORTED, message)
    };
    let known = stored.condition(conditions::LOGS_COMPLETE);
    let event = matches!(is, Is::False) && known.is_none_or(|c| c.reason != reason);
    let event = event.then(|| Event {
        warning: true,
        reason,
        note: message.clone(),
    });
    draft.set(conditions::LOGS_COMPLETE, is, reason, message);
    Plan::record(draft.status, event)
}

fn verdict(sum: LogsStatus) -> (Is, &'static str, String) {
    let stored = format!("{} lines, {} bytes", sum.lines, sum.bytes);
    if sum.complete {
        let message = format!("every line is stored: {stored}");
        return (Is::True, reasons::END_PROVEN, message);
    }
    let places = match sum.gaps {
        1 => "in one place".to_owned(),
        n => format!("in {n} places"),
    };
    let message = format!(
        "{stored} are stored; lines are missing, or may be, {places}: the store's completeness report says where and why"
    );
    (Is::False, reasons::GAP_RECORDED, message)
}
