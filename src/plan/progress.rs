//! `progressTimeoutSeconds`: a gang that says nothing for so long counts as hanging.
//!
//! No agent and no stream is needed: the logs are looked at only when the newest line known would be
//! too old, which is once in each timeout for a healthy gang, and any rank's new line is enough.

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{Effect, Observed, Plan, Question, failure, gang::Gang, retry};
use crate::{
    api::{TrainingJob, TrainingJobStatus, conditions},
    diagnose, pods,
};

/// When the gang's silence is to be looked into next; a plan where it has lasted too long.
pub(super) enum Pace {
    /// Nothing is asked of it, or there is time until then.
    Fine(Option<Timestamp>),
    /// To find out, or to end it.
    Silent(Box<Plan>),
}

pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Pace {
    let Some(timeout) = job.spec.progress_timeout_seconds else {
        return Pace::Fine(None);
    };
    // Silence counts from when the gang became complete: before that there is startDeadlineSeconds.
    let Some(ready) = stored.condition(conditions::PODS_READY) else {
        return Pace::Fine(None);
    };
    let progress = observed.answers.progress;
    let newest = progress.and_then(|p| p.last);
    let last = newest.map_or(ready.last_transition_time.0, |line| {
        line.max(ready.last_transition_time.0)
    });
    let Ok(due) = last.checked_add(timeout.seconds()) else {
        return Pace::Fine(None);
    };
    if now < due {
        return Pace::Fine(Some(due));
    }
    if progress.is_none_or(|p| p.checked < due) {
        let question = Question::Progress { since: last };
        return Pace::Silent(Box::new(Plan::act(vec![Effect::Ask(question)])));
    }
    let running = gang.all().into_iter().filter(|p| !p.terminal());
    if let Some(ask) = failure::ask(running, observed) {
        return Pace::Silent(Box::new(ask));
    }
    let book = failure::book(job, stored, observed);
    let limit = pods::memory_limit(job);
    let ranks = failure::evidence(gang, observed, limit.as_deref());
    let diagnosis = diagnose::hang(&ranks, timeout, &book);
    Pace::Silent(Box::new(retry::failed(job, stored, &diagnosis, now)))
}
