//! `spec.suspend`: stopping a job frees its nodes at once; resuming opens a new attempt. Neither is
//! charged to `backoffLimit`. While suspended the job counts as not started: its spec may be edited
//! and its deadlines do not run (as in batch/v1 Job).

use k8s_openapi::jiff::Timestamp;

use super::{
    Event, Observed, Plan, PodFacts,
    record::{Draft, Is, without_unused},
    stop::stop,
};
use crate::api::{TrainingJob, TrainingJobStatus, conditions, reasons};

/// The plan of a job that is, or is being, suspended; None for one that is to run and whose status
/// says so.
pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Option<Plan> {
    let suspended = stored
        .condition(conditions::SUSPENDED)
        .is_some_and(|c| c.status == "True");
    match (job.spec.suspend, suspended) {
        (true, true) => Some(hold(job, stored, observed, now)),
        (true, false) => Some(begin(job, &without_unused(stored, observed, now), now)),
        (false, true) => Some(end(job, stored, now)),
        (false, false) => None,
    }
}

fn begin(job: &TrainingJob, stored: &TrainingJobStatus, now: Timestamp) -> Plan {
    let mut draft = Draft::new(job, stored, now);
    draft.close_attempt(None, "stopped: the job was suspended; not charged");
    draft.status.start_time = None;
    draft.status.next_retry_time = None;
    let message = "suspended by spec.suspend: nothing runs until it is set to false";
    draft.active(reasons::SUSPENDED, message);
    draft.unset(conditions::RECONCILING);
    draft.set(conditions::SUSPENDED, Is::True, reasons::SUSPENDED, message);
    draft.set(
        conditions::PODS_READY,
        Is::False,
        reasons::SUSPENDED,
        message,
    );
    let event = Event {
        warning: false,
        reason: reasons::SUSPENDED,
        note: message.into(),
    };
    Plan::record(draft.status, Some(event))
}

fn hold(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let pods: Vec<&PodFacts> = observed.pods.iter().collect();
    let running = stop(job, stored, &pods, observed, now);
    if running.effects.is_empty() {
        return Plan::record(Draft::new(job, stored, now).status, None).and(running);
    }
    running
}

fn end(job: &TrainingJob, stored: &TrainingJobStatus, now: Timestamp) -> Plan {
    let mut draft = Draft::new(job, stored, now);
    draft.set(
        conditions::SUSPENDED,
        Is::False,
        reasons::RESUMED,
        "spec.suspend is false",
    );
    draft.active(reasons::STARTING, "resumed");
    Plan::record(draft.status, None)
}
