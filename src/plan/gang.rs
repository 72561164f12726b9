//! An open attempt: its pods are created together, run as one, and end as one.
//!
//! In order: the pods of earlier attempts end first; then the missing ones are created, but only by
//! the process that can vouch that nobody created them before; then the gang is watched until all
//! ranks have succeeded or the first has failed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{
    Effect, Event, Observed, Phase, Plan, PodFacts, Record, Refusal, Urgency, nodes,
    record::{Draft, Is, without_unused},
    retry, stop,
};
use crate::{
    api::{
        Attempt, FailureClass, NodeCounts, RootCause, TrainingJob, TrainingJobStatus, conditions,
        names, reasons,
    },
    diagnose::{self, Diagnosis, RankEvidence, RuleBook},
};

/// How long an image may fail to be pulled, or a container to be created, before the job fails
/// (seconds). The kubelet goes on trying with a backoff of up to 5 minutes; a registry's short
/// outage fits into this, a wrong name shows in the condition at once.
const START_PROBLEM_PATIENCE: i64 = 300;

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
        follow(job, stored, &gang, now)
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
    let failure = diagnose::failure(&gang.ranks(), &RuleBook::default());
    let stored = if gang.pods.is_empty() {
        without_unused(stored, observed, now)
    } else {
        progress(job, stored, gang, now).status
    };
    let seconds = job.spec.active_deadline_seconds.unwrap_or_default();
    let waited = stored.open_attempt().is_none();
    let last = stored.attempts.last().filter(|_| waited);
    let last = last.and_then(|a| Some((a.number, &a.root_cause.as_ref()?.reason)));
    let before = last.map_or(String::new(), |(number, reason)| {
        format!("; it was waiting for a retry, after attempt {number} had failed with {reason}")
    });
    let cause = failure.unwrap_or_else(|| {
        late(
            reasons::DEADLINE_EXCEEDED,
            format!(
                "the job did not finish within activeDeadlineSeconds ({seconds} s), retries included{before}"
            ),
        )
    });
    let reason = reasons::DEADLINE_EXCEEDED;
    let decision = "not retried: the job's time is up";
    retry::give_up(job, &stored, &cause, reason, decision, now)
}

/// The pods of one attempt by rank.
struct Gang<'a> {
    attempt: &'a Attempt,
    pods: BTreeMap<i32, &'a PodFacts>,
    missing: BTreeSet<i32>,
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

    fn ranks(&self) -> Vec<RankEvidence<'a>> {
        self.pods.values().map(|p| RankEvidence::of(p)).collect()
    }

    fn all(&self) -> Vec<&'a PodFacts> {
        self.pods.values().copied().collect()
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
    if let Some(diagnosis) = diagnose::failure(&gang.ranks(), &RuleBook::default()) {
        return retry::failed(job, stored, &diagnosis, now);
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let number = gang.attempt.number;
    if let Some(rank) = gang.missing.intersection(&observed.created).next() {
        let diagnosis = diagnose::missing(
            names::pod_name(name, number, *rank),
            *rank,
            &RuleBook::default(),
        );
        return retry::failed(job, stored, &diagnosis, now);
    }
    let earlier: Vec<&PodFacts> = observed
        .pods
        .iter()
        .filter(|p| p.attempt != number && p.alive(now))
        .collect();
    if !earlier.is_empty() {
        let patience = earlier.iter().filter_map(|p| p.out_of_reach_at()).min();
        return Plan::act(stop(&earlier)).until(patience, now);
    }
    let start = gang.attempt.start_time.0;
    if now < start {
        return Plan::default().until(Some(start), now);
    }
    if !observed.opened_here {
        return retry::interrupted(job, stored, &operator_restarted(), now);
    }
    if let Some(refusal) = &observed.refusal
        && let Some(plan) = refused(job, stored, gang, refusal, now)
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

/// The API server did not take a pod: tells the user, and ends the job where trying again is no use.
/// None where the status says so already and it is to be tried again.
fn refused(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    refusal: &Refusal,
    now: Timestamp,
) -> Option<Plan> {
    let due = deadline(
        Some(gang.attempt.start_time.0),
        job.spec.start_deadline_seconds,
    );
    let cause = late(
        reasons::INVALID_POD,
        format!("its pods can't be created: {}", refusal.message.trim()),
    );
    if refusal.permanent {
        let decision = "not retried: the same pod would be refused again";
        let reason = reasons::INVALID_POD;
        return Some(retry::give_up(job, stored, &cause, reason, decision, now));
    }
    if due.is_some_and(|at| at <= now) {
        let decision = "not retried: the nodes did not start in time";
        let reason = reasons::START_DEADLINE_EXCEEDED;
        return Some(retry::give_up(job, stored, &cause, reason, decision, now));
    }
    let mut draft = Draft::new(job, stored, now);
    let message = cause.root_cause.message;
    draft.active(
        reasons::STARTING,
        format!("attempt {} starts: {message}", gang.attempt.number),
    );
    draft.set(conditions::PODS_READY, Is::False, "PodsRefused", message);
    (draft.status != *stored).then(|| record(draft, Urgency::Now))
}

/// The process that opened the attempt ended before all its pods were seen. Its successor can't know
/// whether a pod that is not there was never created or was created and then deleted, and a second
/// pod for one (job, attempt, rank) must never be; so the attempt is given up and repeated under the
/// next number.
fn operator_restarted() -> Diagnosis {
    late(
        "OperatorRestarted",
        "trainyard's operator was restarted while it created this attempt's pods".into(),
    )
}

fn late(reason: &str, message: String) -> Diagnosis {
    Diagnosis {
        class: FailureClass::Unknown,
        rule: None,
        root_cause: RootCause {
            reason: reason.into(),
            message: message.clone(),
            ..RootCause::default()
        },
        summary: message,
        hint: None,
        policy: RuleBook::default().policy(FailureClass::Unknown),
        collateral: false,
    }
}

/// All pods of the attempt have been created.
fn follow(job: &TrainingJob, stored: &TrainingJobStatus, gang: &Gang, now: Timestamp) -> Plan {
    let pods = gang.all();
    if let Some(diagnosis) =
        diagnose::failure(&gang.ranks(), &RuleBook::default()).or_else(|| deleted(job, gang))
    {
        let counted = progress(job, stored, gang, now).status;
        return retry::failed(job, &counted, &diagnosis, now);
    }
    if let Some(diagnosis) = diagnose::never_starts(&pods, &RuleBook::default()) {
        return retry::failed(job, stored, &diagnosis, now);
    }
    let ready = pods.iter().all(|p| p.ready || p.phase == Phase::Succeeded);
    if !ready && pods.iter().any(|p| p.ending()) {
        // A moment later the kubelet says how it ended; a write in between would tell nobody anything.
        return Plan::default();
    }
    if ready || was_ready(stored, gang) {
        return running(job, stored, gang, ready, now);
    }
    starting(job, stored, gang, now)
}

fn deleted(job: &TrainingJob, gang: &Gang) -> Option<Diagnosis> {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    gang.missing.first().map(|&rank| {
        diagnose::missing(
            names::pod_name(name, gang.attempt.number, rank),
            rank,
            &RuleBook::default(),
        )
    })
}

/// Whether this attempt has been ready before; readiness may come and go after that.
fn was_ready(stored: &TrainingJobStatus, gang: &Gang) -> bool {
    gang.attempt.pods_created
        && stored
            .condition(conditions::SUCCEEDED)
            .is_some_and(|c| c.reason == reasons::RUNNING)
}

fn completed(job: &TrainingJob, stored: &TrainingJobStatus, gang: &Gang, now: Timestamp) -> Plan {
    let mut draft = progress(job, stored, gang, now);
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
    ready: bool,
    now: Timestamp,
) -> Plan {
    let mut draft = progress(job, stored, gang, now);
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
            ready_of(job, gang),
        );
    }
    draft.status.next_retry_time = None;
    let flipped = draft
        .status
        .condition(conditions::PODS_READY)
        .map(|c| &c.status)
        != stored.condition(conditions::PODS_READY).map(|c| &c.status);
    record(draft, if flipped { Urgency::Now } else { Urgency::Soon })
}

/// The gang is not complete yet: says what it waits for, and fails the job when that takes too long.
fn starting(job: &TrainingJob, stored: &TrainingJobStatus, gang: &Gang, now: Timestamp) -> Plan {
    let pods = gang.all();
    let begin = gang.attempt.start_time.0;
    let blocked = pods
        .iter()
        .filter(|p| diagnose::start_problem(p).is_some())
        .min_by_key(|p| (patience(p).is_none(), patience(p), p.rank));
    let problem = blocked.and_then(|p| diagnose::start_problem(p));
    let nothing_to_tell = problem.is_none();
    let patience = blocked.and_then(|p| patience(p));
    let due = deadline(Some(begin), job.spec.start_deadline_seconds);
    let late = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    if late(due) {
        let seconds = job.spec.start_deadline_seconds.unwrap_or_default();
        let decision =
            format!("not retried: it was not ready within startDeadlineSeconds ({seconds} s)");
        let cause = blocked.and_then(|p| diagnose::not_started(p, &RuleBook::default()));
        let cause = cause.unwrap_or_else(|| not_ready(gang));
        let reason = reasons::START_DEADLINE_EXCEEDED;
        return retry::give_up(job, stored, &cause, reason, &decision, now);
    }
    if late(patience)
        && let Some(cause) = blocked.and_then(|p| diagnose::not_started(p, &RuleBook::default()))
    {
        let decision = format!("not retried: that has not changed for {START_PROBLEM_PATIENCE} s");
        let reason = reasons::NOT_RETRYABLE;
        return retry::give_up(job, stored, &cause, reason, &decision, now);
    }
    let mut draft = progress(job, stored, gang, now);
    let waits = ready_of(job, gang);
    let (reason, message) = problem.map_or((reasons::STARTING.to_owned(), waits.clone()), |r| {
        (r.reason, format!("{waits}; {}", r.message))
    });
    draft.active(
        reasons::STARTING,
        format!("attempt {} starts: {message}", gang.attempt.number),
    );
    draft.set(conditions::PODS_READY, Is::False, &reason, message);
    draft.status.next_retry_time = None;
    // A pod that is simply starting is no news: a job of one pod that starts within a minute costs no
    // write for it.
    let same = nothing_to_tell && draft.status.nodes.ready == stored.nodes.ready;
    let urgency = if same {
        Urgency::Eventually
    } else {
        Urgency::Soon
    };
    record(draft, urgency).until(due, now).until(patience, now)
}

/// When a container that can't be started ends the job: some time after a kubelet began to try, which
/// may be long after the attempt's start where GPUs are scarce. None for a pod that no node has.
fn patience(pod: &PodFacts) -> Option<Timestamp> {
    diagnose::start_problem(pod).filter(|r| r.reason != diagnose::UNSCHEDULABLE)?;
    pod.accepted?
        .checked_add(START_PROBLEM_PATIENCE.seconds())
        .ok()
}

fn ready_of(job: &TrainingJob, gang: &Gang) -> String {
    let up = |p: &&&PodFacts| p.ready || p.phase == Phase::Succeeded;
    match (gang.pods.values().filter(up).count(), job.spec.num_nodes) {
        (_, 1) => "the node is not ready".into(),
        (ready, all) => format!("{ready} of {all} nodes are ready"),
    }
}

fn not_ready(gang: &Gang) -> Diagnosis {
    let waiting = gang.pods.values().filter(|p| !p.ready && !p.terminal());
    let ranks: Vec<String> = waiting.map(|p| p.rank.to_string()).collect();
    let (word, shown) = match ranks.len() {
        1 => ("rank", ranks.join("")),
        2..=8 => ("ranks", ranks.join(", ")),
        n => (
            "ranks",
            format!(
                "{} and {} more",
                ranks[..8.min(n)].join(", "),
                n.saturating_sub(8)
            ),
        ),
    };
    late(
        reasons::START_DEADLINE_EXCEEDED,
        format!(
            "{word} {shown} did not become ready; kubectl describe pod shows what they wait for"
        ),
    )
}

/// A draft with the gang's counts, and the note that all its pods have been seen.
fn progress(job: &TrainingJob, stored: &TrainingJobStatus, gang: &Gang, now: Timestamp) -> Draft {
    let mut draft = Draft::new(job, stored, now);
    let count = |f: fn(&&PodFacts) -> bool| {
        i32::try_from(gang.pods.values().copied().filter(f).count()).unwrap_or(i32::MAX)
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

fn record(draft: Draft, urgency: Urgency) -> Plan {
    Plan {
        record: Some(Record {
            status: draft.status,
            urgency,
            event: None,
        }),
        ..Plan::default()
    }
}

fn deadline(from: Option<Timestamp>, seconds: Option<i64>) -> Option<Timestamp> {
    from?.checked_add(seconds?.seconds()).ok()
}
