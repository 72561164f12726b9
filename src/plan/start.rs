//! Starting a job: its runtime is looked up and copied, and the first attempt (or the first after a
//! suspension) is opened.

use k8s_openapi::jiff::Timestamp;
use regex::bytes::Regex;

use super::{
    Event, Observed, Plan, failure, nodes,
    record::{Draft, Is},
};
use crate::api::{TrainingJob, TrainingJobStatus, conditions, reasons};

pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let mut draft = Draft::new(job, stored, now);
    let Some(runtime) = &observed.runtime else {
        return runtime_not_found(job, draft, stored);
    };
    draft.status.runtime = Some(runtime.clone());
    draft.status.start_time = Some(draft.now());
    draft.open_attempt(now);
    report_bad_rules(job, &mut draft);
    let number = draft.status.attempts.last().map_or(1, |a| a.number);
    let message = format!(
        "attempt {number} starts: {} on runtime {}",
        nodes(job.spec.num_nodes),
        runtime.name
    );
    draft.active(reasons::STARTING, message.clone());
    draft.set(
        conditions::PODS_READY,
        Is::False,
        reasons::STARTING,
        "the pods are being created",
    );
    let event = Event {
        warning: false,
        reason: reasons::STARTING,
        note: message,
    };
    Plan::record(draft.status, Some(event))
}

/// A failure rule that can't be used stops nothing; the user is told once, by a condition. The
/// cluster's own rules are the platform team's, and are reported there.
fn report_bad_rules(job: &TrainingJob, draft: &mut Draft) {
    let bad = failure::bad_rules(job, &draft.status);
    let mut problems: Vec<String> = bad.iter().map(ToString::to_string).collect();
    let pattern = job.spec.progress_pattern.as_deref();
    if let Some(Err(error)) = pattern.map(Regex::new) {
        problems.push(format!(
            "progressPattern is left out, so that every log line counts as progress: {error}"
        ));
    }
    if problems.is_empty() {
        draft.unset(conditions::FAILURE_POLICY_VALID);
    } else {
        let kind = conditions::FAILURE_POLICY_VALID;
        let message = problems.join("; ");
        draft.set(kind, Is::False, reasons::BAD_FAILURE_RULE, message);
    }
}

/// Not an error of the manifest: the runtime may come later, as in a GitOps repository applied in
/// any order. The job starts when it appears.
fn runtime_not_found(job: &TrainingJob, mut draft: Draft, stored: &TrainingJobStatus) -> Plan {
    let runtime = &job.spec.runtime_ref;
    let plural = format!("{}s", runtime.kind).to_lowercase();
    let message = format!(
        "there is no {} named {}: create it, or correct spec.runtimeRef (kubectl get {plural} lists them); the job starts when it exists",
        runtime.kind, runtime.name
    );
    draft.stalled(reasons::RUNTIME_NOT_FOUND, message.clone());
    let known = stored
        .condition(conditions::SUCCEEDED)
        .is_some_and(|c| c.reason == reasons::RUNTIME_NOT_FOUND);
    let event = (!known).then_some(Event {
        warning: true,
        reason: reasons::RUNTIME_NOT_FOUND,
        note: message,
    });
    Plan::record(draft.status, event)
}
