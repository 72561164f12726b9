//! A job that has ended for good: what still runs is stopped, its logs are waited for, and the job is
//! deleted when its `ttlSecondsAfterFinished` is over. Nothing here can start anything again.

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{Effect, Observed, Plan, PodFacts, logs, stop::stop};
use crate::api::{TrainingJob, TrainingJobStatus};

pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let pods: Vec<&PodFacts> = observed.pods.iter().collect();
    let expiry = expiry(job, stored);
    let running = stop(job, stored, &pods, observed, now);
    if !running.effects.is_empty() {
        return running.until(expiry, now);
    }
    let logs = logs::conclude(job, stored, observed, now);
    let concluded = logs.record.as_ref().is_none_or(|r| &r.status == stored);
    // A job that still waits for its logs is looked at again when that is over.
    if concluded && logs.requeue.is_none() && expiry.is_some_and(|at| at <= now) {
        return Plan::act(vec![Effect::DeleteJob]);
    }
    logs.and(running).until(expiry, now)
}

/// When the job's time to live is over.
fn expiry(job: &TrainingJob, stored: &TrainingJobStatus) -> Option<Timestamp> {
    let ttl = job.spec.ttl_seconds_after_finished?;
    let end = stored.completion_time.as_ref()?.0;
    end.checked_add(ttl.seconds()).ok()
}
