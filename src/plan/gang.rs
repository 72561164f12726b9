//! An open attempt: its pods are created together, run as one, and end as one.
//!
//! In order: the pods of earlier attempts end first; then the missing ones are created, but only by
//! the process that can vouch that nobody created them before; then the gang is watched until all
//! ranks have succeeded or the first has failed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{
    Effect, Event, Observed, Phase, Plan, PodFacts, Record, Urgency, failure, nodes,
    progress::{self, Pace},
    record::{Draft, Is, without_unused},
    retry, starting,
    stop::stop,
};
use crate::{
    api::{Attempt, NodeCounts, TrainingJob, TrainingJobStatus, conditions, names, reasons},
    diagnose,
};

pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    attempt: &Attempt,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let deadline = deadline(
        stored.start_time.as_ref().map(|t| t.0),
        job.spec.active_deadline_seconds,
    );
    let gang = Gang::of(job, attempt, observed);
    if deadline.is_some_and(|at| at <= now) {
        return out_of_time(job, stored, &gang, observed, now);
    }
    let plan = if attempt.pods_created || gang.missing.is_empty() {
        follow(job, stored, &gang, observed, now)
    } else {
        create(job, stored, &gang, observed, now)
    };
    plan.until(deadline, now)
}

/// The job is done if every rank of its open attempt has succeeded, whatever came in the meantime (a
/// suspension, a deadline, an operator that was away).
pub(super) fn done(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Option<Plan> {
    let gang = Gang::of(job, stored.open_attempt()?, observed);
    let pods = gang.all();
    let succeeded = pods.iter().all(|p| p.phase == Phase::Succeeded);
    (gang.missing.is_empty() && succeeded && !diagnose::has_failed(&pods))
        .then(|| completed(job, stored, &gang, now))
}

/// `activeDeadlineSeconds` is over.
fn out_of_time(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let failure = failure::explain(job, stored, gang, observed);
    let stored = if gang.pods.is_empty() {
        without_unused(stored, observed, now)
    } else {
        gang.counted(job, stored, now).status
    };
    let seconds = job.spec.active_deadline_seconds.unwrap_or_default();
    let waited = stored.open_attempt().is_none();
    let last = stored.attempts.last().filter(|_| waited);
    let last = last.and_then(|a| Some((a.number, &a.root_cause.as_ref()?.reason)));
    let before = last.map_or(String::new(), |(number, reason)| {
        format!("; it was waiting for a retry, after attempt {number} had failed with {reason}")
    });
    let cause = failure.unwrap_or_else(|| {
        let message = format!(
            "the job did not finish within activeDeadlineSeconds ({seconds} s), retries included{before}"
        );
        let book = failure::book(job, &stored, observed);
        diagnose::deadline(&message, reasons::DEADLINE_EXCEEDED, &book)
    });
    let reason = reasons::DEADLINE_EXCEEDED;
    let decision = "not retried: the job's time is up";
    retry::give_up(job, &stored, &cause, reason, decision, now)
}

/// The pods of one attempt by rank.
pub(super) struct Gang<'a> {
    pub attempt: &'a Attempt,
    pub pods: BTreeMap<i32, &'a PodFacts>,
    pub missing: BTreeSet<i32>,
}

impl<'a> Gang<'a> {
    fn of(job: &TrainingJob, attempt: &'a Attempt, observed: &'a Observed) -> Self {
        let pods: BTreeMap<i32, &PodFacts> = observed
            .pods
            .iter()
            .filter(|p| p.attempt == attempt.number)
            .map(|p| (p.rank, p))
            .collect();
        let missing = (0..job.spec.num_nodes)
            .filter(|rank| !pods.contains_key(rank))
            .collect();
        Self {
            attempt,
            pods,
            missing,
        }
    }

    pub fn all(&self) -> Vec<&'a PodFacts> {
        self.pods.values().copied().collect()
    }

    /// A draft with the gang's counts, and the note that all its pods have been seen.
    pub fn counted(&self, job: &TrainingJob, stored: &TrainingJobStatus, now: Timestamp) -> Draft {
        let mut draft = Draft::new(job, stored, now);
        let count = |f: fn(&&PodFacts) -> bool| {
            i32::try_from(self.pods.values().copied().filter(f).count()).unwrap_or(i32::MAX)
        };
        draft.status.nodes = NodeCounts {
            active: count(|p| !p.terminal()),
            ready: count(|p| p.ready),
            failed: count(|p| p.phase == Phase::Failed),
        };
        if let Some(attempt) = draft.status.attempts.last_mut() {
            attempt.pods_created = true;
        }
        draft
    }
}

/// Not all pods of the attempt are there yet.
fn create(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let (name, number) = (
        job.metadata.name.as_deref().unwrap_or_default(),
        gang.attempt.number,
    );
    if diagnose::has_failed(&gang.all()) {
        return failed(job, stored, gang, observed, now).unwrap_or_default();
    }
    let book = || failure::book(job, stored, observed);
    if let Some(rank) = gang.missing.intersection(&observed.created).next() {
        let diagnosis = diagnose::missing(names::pod_name(name, number, *rank), *rank, &book());
        return retry::failed(job, stored, &diagnosis, now);
    }
    let earlier: Vec<&PodFacts> = observed
        .pods
        .iter()
        .filter(|p| p.attempt != number && p.alive(now))
        .collect();
    if !earlier.is_empty() {
        let patience = earlier.iter().filter_map(|p| p.out_of_reach_at()).min();
        return stop(job, stored, &earlier, observed, now).until(patience, now);
    }
    let start = gang.attempt.start_time.0;
    if now < start {
        return Plan::default().until(Some(start), now);
    }
    if !observed.opened_here {
        // The process that opened the attempt ended before all its pods were seen. Its successor can't
        // know whether a pod that is not there was never created or was created and then deleted, and
        // a second pod for one (job, attempt, rank) must never be; so the attempt is given up and
        // repeated under the next number.
        let diagnosis = diagnose::operator_restarted(&book());
        return retry::failed(job, stored, &diagnosis, now);
    }
    if let Some(refusal) = &observed.refusal
        && let Some(plan) = starting::refused(job, stored, gang, refusal, &book(), now)
    {
        return plan;
    }
    let service = (job.spec.num_nodes > 1 && gang.pods.is_empty()).then_some(Effect::CreateService);
    let pods = gang.missing.iter().map(|&rank| Effect::CreatePod {
        attempt: number,
        rank,
    });
    // A refusal is tried again, but not past the deadline.
    let due = observed.refusal.as_ref().and_then(|_| {
        let start = Some(gang.attempt.start_time.0);
        deadline(start, job.spec.start_deadline_seconds)
    });
    Plan::act(service.into_iter().chain(pods).collect()).until(due, now)
}

/// All pods of the attempt have been created.
fn follow(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let pods = gang.all();
    if let Some(plan) = failed(job, stored, gang, observed, now) {
        return plan;
    }
    if pods.iter().any(|p| p.waiting.is_some()) {
        let book = failure::book(job, stored, observed);
        if let Some(diagnosis) = diagnose::never_starts(&pods, &book) {
            return retry::failed(job, stored, &diagnosis, now);
        }
    }
    let ready = pods.iter().all(|p| p.ready || p.phase == Phase::Succeeded);
    if !ready && pods.iter().any(|p| p.ending()) {
        // A moment later the kubelet says how it ended; a write in between would tell nobody anything.
        return Plan::default();
    }
    if ready || was_ready(stored, gang) {
        return running(job, stored, gang, observed, ready, now);
    }
    starting::plan(job, stored, gang, observed, now)
}

/// The plan of an attempt of which a rank has failed or is gone.
fn failed(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Option<Plan> {
    let counted = if gang.missing.is_empty() || gang.attempt.pods_created {
        gang.counted(job, stored, now).status
    } else {
        stored.clone()
    };
    failure::plan(job, &counted, gang, observed, now)
}

/// Whether this attempt has been ready before; readiness may come and go after that.
fn was_ready(stored: &TrainingJobStatus, gang: &Gang) -> bool {
    gang.attempt.pods_created
        && stored
            .condition(conditions::SUCCEEDED)
            .is_some_and(|c| c.reason == reasons::RUNNING)
}

fn completed(job: &TrainingJob, stored: &TrainingJobStatus, gang: &Gang, now: Timestamp) -> Plan {
    let mut draft = gang.counted(job, stored, now);
    draft.close_attempt(None, "succeeded");
    let retries = match stored.retries {
        0 => String::new(),
        1 => " after 1 retry".into(),
        n => format!(" after {n} retries"),
    };
    let message = match job.spec.num_nodes {
        1 => format!("the node ended with exit code 0{retries}"),
        n => format!("all {n} nodes ended with exit code 0{retries}"),
    };
    draft.finish(true, reasons::COMPLETED, message.clone());
    let event = Event {
        warning: false,
        reason: reasons::COMPLETED,
        note: message,
    };
    Plan::record(draft.status, Some(event))
}

fn running(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    ready: bool,
    now: Timestamp,
) -> Plan {
    let mut draft = gang.counted(job, stored, now);
    let number = gang.attempt.number;
    draft.active(
        reasons::RUNNING,
        format!("attempt {number} runs on {}", nodes(job.spec.num_nodes)),
    );
    if ready {
        draft.set(
            conditions::PODS_READY,
            Is::True,
            reasons::RUNNING,
            "every node is ready or has finished",
        );
    } else {
        draft.set(
            conditions::PODS_READY,
            Is::False,
            "NotReady",
            starting::ready_of(job, gang),
        );
    }
    draft.status.next_retry_time = None;
    let flipped = draft
        .status
        .condition(conditions::PODS_READY)
        .map(|c| &c.status)
        != stored.condition(conditions::PODS_READY).map(|c| &c.status);
    if flipped {
        return record(draft, Urgency::Now);
    }
    match progress::plan(job, stored, gang, observed, now) {
        Pace::Silent(plan) => *plan,
        Pace::Fine(due) => record(draft, Urgency::Soon).until(due, now),
    }
}

pub(super) fn record(draft: Draft, urgency: Urgency) -> Plan {
    Plan {
        record: Some(Record {
            status: draft.status,
            urgency,
            event: None,
        }),
        ..Plan::default()
    }
}

pub(super) fn deadline(from: Option<Timestamp>, seconds: Option<i64>) -> Option<Timestamp> {
    from?.checked_add(seconds?.seconds()).ok()
}
